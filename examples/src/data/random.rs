//! Random streams addressed by what they are for, instead of by how much was drawn before.

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

/// What a stream of random numbers decides. The discriminants are part of the data's definition:
/// never reuse one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub enum Purpose {
    /// Which pairs meet in a batch, and in what order.
    Order = 1,
    /// Which of an image's captions is shown.
    Caption = 2,
    /// Crop and flip of an image.
    Augmentation = 3,
    /// Which scenes a generated set holds.
    SceneChoice = 4,
    /// How one generated scene is placed, painted and worded.
    SceneDrawing = 5,
    /// Which activations dropout zeroes in a batch.
    Dropout = 6,
    /// Which questions are asked about a generated scene, and in what words.
    SceneQuestions = 7,
    /// Which statements are made about two generated scenes, and in what words.
    SceneStatements = 8,
    /// Which negatives are drawn and which tokens are hidden in a shard of a step.
    Pretraining = 9,
    /// Which two images a caption has in text assignment, in a shard of a step.
    TextAssignment = 10,
    /// Which of a study's images is shown.
    StudyImage = 31,
    /// The order in which training studies get their labels.
    LabelSubset = 32,
    /// What a generated study shows and says.
    Findings = 33,
    /// The noise of an image of a generated study.
    FindingsNoise = 34,
    /// Which regions beside its objects an image has.
    Regions = 14,
    /// Which meanings of a generated set are for training, validation and test.
    SceneDivision = 41,
}

/// The random stream for `purpose`, in `epoch`, of the example or batch `index`.
///
/// Streams with different arguments are independent; the same arguments give the same stream on
/// every machine.
pub fn stream(seed: u64, epoch: u64, index: u64, purpose: Purpose) -> ChaCha8Rng {
    let mut key = [0; 32];
    for (bytes, value) in key
        .chunks_exact_mut(8)
        .zip([seed, epoch, index, purpose as u64])
    {
        bytes.copy_from_slice(&value.to_le_bytes());
    }
    ChaCha8Rng::from_seed(key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::RngExt;

    #[test]
    fn every_argument_changes_the_stream_and_nothing_else_does() {
        let first = |s, e, i, p| stream(s, e, i, p).random::<u64>();
        let base = first(1, 2, 3, Purpose::Order);
        assert_eq!(base, first(1, 2, 3, Purpose::Order));
        for other in [
            first(2, 2, 3, Purpose::Order),
            first(1, 3, 3, Purpose::Order),
            first(1, 2, 4, Purpose::Order),
            first(1, 2, 3, Purpose::Caption),
            first(1, 2, 3, Purpose::Dropout),
            first(2, 1, 3, Purpose::Order),
        ] {
            assert_ne!(base, other);
        }
    }
}
