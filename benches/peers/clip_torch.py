"""The model of the `clip` example in eager PyTorch: a worker that `benches/peers/clip` starts.

    python clip_torch.py THREADS LENGTH

The first line on stdin is the configuration that `clip --print-config` gives, answered by the
number of parameters; each further one is a number of steps, answered by the seconds of each.
"""

import json
import math
import sys
import time

import torch
from torch import nn


class Encoder(nn.Module):
    """What both encoders have: positions, a pre-norm transformer, a pooling."""

    def __init__(self, config, tokens):
        super().__init__()
        width = config["width"]
        layer = nn.TransformerEncoderLayer(
            width,
            config["heads"],
            4 * width,
            config["dropout"],
            "gelu",
            batch_first=True,
            norm_first=True,
        )
        self.mean = config["pooling"] == "mean"
        self.positions = nn.Parameter(torch.randn(1, tokens, width) * 0.02)
        self.transformer = nn.TransformerEncoder(
            layer, config["layers"], enable_nested_tensor=False
        )
        self.post_norm = nn.LayerNorm(width)


class ImageEncoder(Encoder):
    def __init__(self, config):
        width, patch = config["width"], config["patch_size"]
        patches = (config["image_size"] // patch) ** 2
        super().__init__(config, patches + (config["pooling"] == "token"))
        self.patches = nn.Conv2d(3, width, patch, patch, bias=False)
        self.pre_norm = nn.LayerNorm(width)
        if not self.mean:
            self.class_token = nn.Parameter(torch.randn(1, 1, width) * 0.02)

    def forward(self, images):
        x = self.patches(images).flatten(2).transpose(1, 2)
        if not self.mean:
            x = torch.cat([self.class_token.expand(len(x), -1, -1), x], 1)
        x = self.transformer(self.pre_norm(x + self.positions))
        return self.post_norm(x.mean(1) if self.mean else x[:, 0])


class TextEncoder(Encoder):
    def __init__(self, config):
        super().__init__(config, config["context"])
        self.tokens = nn.Embedding(config["vocabulary"], config["width"])

    def forward(self, tokens, padding):
        x = self.tokens(tokens) + self.positions[:, : tokens.shape[1]]
        x = self.post_norm(self.transformer(x, src_key_padding_mask=padding))
        if not self.mean:
            return x[:, 0]
        present = ~padding[..., None]
        return (x * present).sum(1) / present.sum(1)


class DualEncoder(nn.Module):
    def __init__(self, config):
        super().__init__()
        image, text, embedding = config["image"], config["text"], config["embedding"]
        self.image, self.text = ImageEncoder(image), TextEncoder(text)
        self.image_projection = nn.Linear(image["width"], embedding, bias=False)
        self.text_projection = nn.Linear(text["width"], embedding, bias=False)
        self.log_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))

    def forward(self, images, tokens, padding):
        normalize, cross_entropy = nn.functional.normalize, nn.functional.cross_entropy
        image = normalize(self.image_projection(self.image(images)))
        text = normalize(self.text_projection(self.text(tokens, padding)))
        logits = self.log_scale.exp() * image @ text.T
        labels = torch.arange(len(logits))
        return (cross_entropy(logits, labels) + cross_entropy(logits.T, labels)) / 2


def main():
    threads, length = map(int, sys.argv[1:])
    torch.set_num_threads(threads)
    config = json.loads(sys.stdin.readline())
    model, batch = DualEncoder(config["model"]), config["data"]["batch_size"]
    answer(sum(parameter.numel() for parameter in model.parameters()))

    settings = config["optimizer"]
    decays = {True: [], False: []}
    for parameter in model.parameters():
        decays[parameter.dim() > 1].append(parameter)
    optimizer = torch.optim.AdamW(
        [{"params": decays[True]}, {"params": decays[False], "weight_decay": 0.0}],
        lr=settings["learning_rate"],
        betas=(settings["beta_1"], settings["beta_2"]),
        eps=settings["epsilon"],
        weight_decay=settings["weight_decay"],
    )
    size, text = config["model"]["image"]["image_size"], config["model"]["text"]
    images = torch.randn(batch, 3, size, size)
    tokens = torch.randint(text["vocabulary"], (batch, length))
    # Captions of two thirds of the length and more.
    lengths = torch.randint(2 * length // 3, length + 1, (batch, 1))
    padding = torch.arange(length) >= lengths

    for line in sys.stdin:
        seconds = []
        for _ in range(json.loads(line)):
            start = time.perf_counter()
            optimizer.zero_grad()
            loss = model(images, tokens, padding)
            loss.backward()
            if settings["max_grad_norm"] is not None:
                nn.utils.clip_grad_norm_(model.parameters(), settings["max_grad_norm"])
            optimizer.step()
            loss.item()
            seconds.append(time.perf_counter() - start)
        answer(seconds)


def answer(value):
    print(json.dumps(value), flush=True)


if __name__ == "__main__":
    main()
