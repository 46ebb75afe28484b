"""The other libraries' sides of the comparison: a worker that `benches/peers/run` starts.

    python worker.py SIDE THREADS        where SIDE is a key of SIDES

The protocol is that of benches/peers.rs: one JSON request a line on stdin, one JSON answer on stdout.
"""

import ctypes
import gc
import importlib.util
import json
import math
import sys
import time
from pathlib import Path

import numpy

LOG_SCALE = math.log(1 / 0.07)


class Jax:
    """`jax.jit` of the value and its three gradients, log-sum-exp both ways."""

    def __init__(self, threads):
        import jax  # its threads are set by the environment

        def loss(image, text, log_scale):
            logits = jax.numpy.exp(log_scale) * image @ text.T
            lse = jax.nn.logsumexp
            return (lse(logits, 1) + lse(logits, 0)).mean() / 2 - logits.diagonal().mean()

        self.jax = jax
        self.value_and_grad = jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2)))

    def load(self, image, text):
        self.inputs = [self.jax.numpy.array(x) for x in (image, text, numpy.float32(LOG_SCALE))]

    def evaluate(self):
        return self.jax.block_until_ready(self.value_and_grad(*self.inputs))

    def numbers(self, result):
        value, gradients = result
        return float(value), [numpy.asarray(g) for g in gradients]


class Torch:
    """A loss of PyTorch: features and the logarithm of the logit scale to a scalar."""

    def __init__(self, threads):
        import torch

        torch.set_num_threads(threads)
        self.torch = torch

    def load(self, image, text):
        tensors = [self.torch.tensor(x) for x in (image, text, numpy.float32(LOG_SCALE))]
        self.inputs = tensors
        self.labels = self.torch.arange(len(image))

    def evaluate(self):
        leaves = [x.detach().requires_grad_() for x in self.inputs]
        loss = self.loss(*leaves)
        loss.backward()
        return loss, leaves

    def numbers(self, result):
        loss, leaves = result
        return loss.item(), [leaf.grad.numpy() for leaf in leaves]


class TorchEager(Torch):
    """As anyone would write it."""

    def loss(self, image, text, log_scale):
        cross_entropy = self.torch.nn.functional.cross_entropy
        logits = log_scale.exp() * image @ text.T
        return (cross_entropy(logits, self.labels) + cross_entropy(logits.T, self.labels)) / 2


class TorchCompile(TorchEager):
    """The same through `torch.compile`, backward included, for one shape at a time."""

    def load(self, image, text):
        super().load(image, text)
        self.torch.compiler.reset()
        self.loss = self.torch.compile(super().loss, dynamic=False)


class TorchHigh(TorchCompile):
    """Compiled, with f32 products that PyTorch may round to two bf16."""

    precision = "high"

    def __init__(self, threads):
        super().__init__(threads)
        self.torch.set_float32_matmul_precision(self.precision)


class TorchMedium(TorchHigh):
    """Compiled, with f32 products that PyTorch may round to bf16."""

    precision = "medium"


class TorchBf16(TorchCompile):
    """Compiled, under automatic mixed precision."""

    def evaluate(self):
        leaves = [x.detach().requires_grad_() for x in self.inputs]
        with self.torch.autocast("cpu", dtype=self.torch.bfloat16):
            loss = self.loss(*leaves)
        loss.backward()
        return loss, leaves


class OpenClip(Torch):
    """open_clip's ClipLoss as its training uses it, labels cached."""

    def __init__(self, threads):
        super().__init__(threads)
        # Importing the package would import torchvision, timm and more; the loss needs none of them.
        package = importlib.util.find_spec("open_clip").submodule_search_locations[0]
        spec = importlib.util.spec_from_file_location("clip_loss", Path(package) / "loss.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        self.clip_loss = module.ClipLoss(cache_labels=True)

    def loss(self, image, text, log_scale):
        return self.clip_loss(image, text, log_scale.exp())


SIDES = {
    "jax": Jax,
    "torch-compile": TorchCompile,
    "torch-eager": TorchEager,
    "open-clip": OpenClip,
    "torch-high": TorchHigh,
    "torch-medium": TorchMedium,
    "torch-bf16": TorchBf16,
}


class Worker:
    def __init__(self, side):
        self.side = side
        self.case = None

    def answer(self, request):
        facts = {}
        if self.case != (request["image"], request["text"]):
            facts = self.start(request)
        # Timed: marking the leaves, forward, backward for both features and the logarithm of the
        # logit scale, waiting for the results, and dropping them.
        seconds = []
        for _ in range(request["repeat"]):
            start = time.perf_counter()
            self.side.evaluate()  # what it returns is dropped here
            seconds.append(time.perf_counter() - start)
        release_memory()
        return {"seconds": seconds, **facts}

    def start(self, request):
        """Loads a case and warms up, which compiles; then the loss, the norms of the gradients, and the peak."""
        shape = request["n"], request["d"]
        features = [numpy.fromfile(request[x], "<f4").reshape(shape) for x in ("image", "text")]
        self.side.load(*features)
        self.case = request["image"], request["text"]
        self.side.evaluate()

        release_memory()
        before = reset_peak()
        result = self.side.evaluate()
        peak_bytes = max(0, resident("VmHWM") - before)
        loss, gradients = self.side.numbers(result)
        norms = [math.sqrt(numpy.square(g, dtype=numpy.float64).sum()) for g in gradients]
        return {"loss": loss, "gradient_norms": norms, "peak_bytes": peak_bytes}


def release_memory():
    """Gives free memory back to the system."""
    gc.collect()
    malloc_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's
    if malloc_trim:
        malloc_trim(0)


def reset_peak():
    """Starts a new peak of the resident memory, and returns what is resident now; 0 without /proc."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        pass
    return resident("VmRSS")


def resident(field):
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return 0
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))


def main():
    worker = Worker(SIDES[sys.argv[1]](int(sys.argv[2])))
    for line in sys.stdin:
        print(json.dumps(worker.answer(json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
