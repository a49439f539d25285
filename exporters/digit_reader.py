"""The digit reader as an artefact folder: trained on real digits, exported, compared, measured.

    python -m icl_vision.exporters.digit_reader --data mnist.npz --out DIR

Knows: the network, its recipe and its card. Refuses to know: tokenizers; a judge must not see what it judges.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
import torch
from torch import Tensor, nn
from torch.nn import functional

from icl_vision.errors import ArtefactError, IclVisionError
from icl_vision.evaluation.kit.digit_reader import KIND, READER_FILE
from icl_vision.evaluation.kit.metrics import Accuracy
from icl_vision.files.storage import sha256_file
from icl_vision.models.rounding import round_to_fp16
from icl_vision.tokenizers.pixels import Preprocessing
from icl_vision.tokenizers.sessions import CPU, cpu_settings

from . import artefact
from .validate import largest_difference

logger = logging.getLogger(__name__)

SIDE, MARGIN = 32, 2
PREPROCESSING = Preprocessing(SIDE, margin=MARGIN)
EPOCHS, BATCH, RATE = 5, 256, 4e-3
TOLERANCE = 1e-4  # of probabilities, graph against module


class DigitNet(nn.Module):
    """Grey pixels [B,1,28,28] in [0,1] -> logits [B,10]: three convolutions and two linear maps, 0.2 M weights.

    A plain network on purpose: it judges as most readers of digits would.
    """

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for inside, outside in ((1, width), (width, 2 * width), (2 * width, 4 * width)):
            layers += [nn.Conv2d(inside, outside, 3, padding=1), nn.BatchNorm2d(outside), nn.ReLU(), nn.MaxPool2d(2)]
        layers.pop()  # 7 x 7 places remain
        self.net = nn.Sequential(
            *layers, nn.Flatten(), nn.Dropout(0.3), nn.Linear(4 * width * 49, 64), nn.ReLU(), nn.Linear(64, 10)
        )

    def forward(self, grey: Tensor) -> Tensor:
        logits: Tensor = self.net(grey)
        return logits


class _Graph(nn.Module):
    """uint8 [B,32,32,3] -> probabilities [B,10]."""

    def __init__(self, net: DigitNet) -> None:
        super().__init__()
        self.net = net

    def forward(self, pixels: Tensor) -> Tensor:
        grey = pixels[:, MARGIN:-MARGIN, MARGIN:-MARGIN].to(torch.float32).mean(3).unsqueeze(1) / 255
        return torch.softmax(self.net(grey), 1)


def train(images: npt.NDArray[np.uint8], labels: npt.NDArray[Any], *, seed: int = 0, epochs: int = EPOCHS) -> DigitNet:
    """Train on uint8 [N,28,28] and digits [N]; small random shifts, one-cycle rate."""
    torch.manual_seed(seed)
    data = torch.from_numpy(images)[:, None].float() / 255
    truth = torch.from_numpy(labels.astype(np.int64))
    net = DigitNet().train()
    steps = epochs * -(-len(data) // BATCH)
    optimiser = torch.optim.Adam(net.parameters(), lr=RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, total_steps=steps)
    for epoch in range(epochs):
        for rows in torch.split(torch.randperm(len(data)), BATCH):
            down, right = torch.randint(-2, 3, (2,)).tolist()
            batch = torch.roll(data[rows], (down, right), (2, 3))
            loss = functional.cross_entropy(net(batch), truth[rows])
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]  # torch does not type it
            optimiser.step()
            schedule.step()
        logger.info("epoch %d: loss %.4f", epoch + 1, loss.item())
    return net.eval()


def build(data: Path, out: Path, *, seed: int = 0, epochs: int = EPOCHS) -> dict[str, Any]:
    """Train on ``x_train``/``y_train`` of an .npz file, measure on ``x_test``/``y_test``; returns the card."""
    with np.load(data, allow_pickle=False) as file:
        x_train, y_train, x_test, y_test = (file[name] for name in ("x_train", "y_train", "x_test", "y_test"))
    graph = _Graph(train(x_train, y_train, seed=seed, epochs=epochs)).eval()
    round_to_fp16(graph)
    pixels = np.repeat(np.pad(x_test, ((0, 0), (MARGIN,) * 2, (MARGIN,) * 2))[..., None], 3, axis=3)
    example = torch.from_numpy(pixels[:2])
    model = artefact.to_onnx(graph, {"pixels": example}, ["probabilities"], {"pixels": {0: torch.export.Dim("batch")}})
    artefact.store_fp16(model)
    payload = model.SerializeToString(deterministic=True)
    session = ort.InferenceSession(payload, cpu_settings(), providers=[CPU])
    verdicts = np.concatenate(
        [session.run(None, {"pixels": pixels[at : at + 500]})[0] for at in range(0, len(pixels), 500)]
    )
    with torch.inference_mode():
        difference = largest_difference(verdicts[:100], graph(torch.from_numpy(pixels[:100])).numpy())
    if difference > TOLERANCE:
        raise ArtefactError(f"the graph's probabilities differ from the module's by {difference:.2g}")
    accuracy = Accuracy.of(verdicts.argmax(1) == y_test, "digit reader")
    logger.info("on x_test: %s", accuracy)
    card = {
        "name": "digits",
        "kind": KIND,
        "description": "Reads a hand-written digit; the judge of reconstructed and drawn digits.",
        "licence": "MIT (weights); trained on MNIST, CC BY-SA 3.0",
        "data": f"MNIST x_train ({len(x_train)} digits); measured on x_test ({len(x_test)})",
        "data_sha256": sha256_file(data),
        "recipe": {
            "command": "python -m icl_vision.exporters.digit_reader", "seed": seed, "epochs": epochs,
            "batch": BATCH, "rate": RATE, "augmentation": "shifts of up to 2 pixels",
        },
        "preprocessing": PREPROCESSING.to_dict(),
        "opset": artefact.OPSET,
        "metrics": {"x_test": accuracy.to_dict(), "graph_difference": difference},
        "versions": artefact.versions(),
    }  # fmt: skip
    with artefact.writing(out, kind=KIND) as folder:
        (folder / READER_FILE).write_bytes(payload)
        return artefact.write_card(folder, card)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line of this module."""
    parser = argparse.ArgumentParser(
        prog="python -m icl_vision.exporters.digit_reader", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--data", type=Path, required=True, help="MNIST as .npz: x_train, y_train, x_test, y_test")
    parser.add_argument("--out", type=Path, required=True, help="artefact folder to write")
    parser.add_argument("--seed", type=int, default=0, help="seed of the training (default 0)")
    parser.add_argument("--epochs", type=int, default=EPOCHS, help=f"passes over x_train (default {EPOCHS})")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(message)s")
    try:
        card = build(options.data, options.out, seed=options.seed, epochs=options.epochs)
    except IclVisionError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    print(f"{card['metrics']['x_test']['accuracy']:.2%} on x_test, in {options.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
