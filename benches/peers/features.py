"""Writes the features of one case: `python features.py N D IMAGE_FILE TEXT_FILE`.

Rows of norm 1 in little-endian f32, the same on every run. A text is its image plus three times as
much noise, a cosine of about 0.32, as pairs are early in training.
"""

import sys

import numpy

n, d = map(int, sys.argv[1:3])
generator = numpy.random.default_rng(20)


def normalised(x):
    return x / numpy.linalg.norm(x, axis=1, keepdims=True)


image = generator.standard_normal((n, d), dtype=numpy.float32)
text = image + 3 * generator.standard_normal((n, d), dtype=numpy.float32)
for path, x in zip(sys.argv[3:5], (image, text)):
    normalised(x).astype("<f4").tofile(path)
