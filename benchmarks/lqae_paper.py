"""Does the paper's LQAE (lqae-paper-256) build, take a step, resume, and export? With random weights, once.

    python benchmarks/lqae_paper.py --work FOLDER --out FILE.json

No RoBERTa is fetched: its shape is in the configuration, its weights stay random, and the words are the first 4,096
packaged ones with random rows of its width. Parameters are counted for its whole table of 50,265 rows too. Needs 12 GB
of memory and 8 GB of disk; the largest file that is written is named, for no file may exceed 2 GB.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import _common
import numpy as np
import torch
from PIL import Image

from icl_vision.codebook import Codebook
from icl_vision.exporters.checkpoint import Wishes, export_checkpoint
from icl_vision.models.lqae import build_nets
from icl_vision.models.words.masked_lm import MaskedTextEncoder
from icl_vision.training import load_config, train
from icl_vision.vocabulary import Vocabulary

ROBERTA_ROWS, WORDS, PICTURES = 50_265, 4_096, 8


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--work", type=Path, required=True, help="an empty folder for the run and the tokenizer")
    parser.add_argument("--out", type=Path, required=True, help="result file")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(0)
    pictures = options.work / "pictures"
    pictures.mkdir()
    for number in range(PICTURES):
        Image.fromarray(random.integers(0, 256, (288, 288, 3), dtype=np.uint8)).save(pictures / f"{number}.png")
    words = list(Codebook.load().vocabulary)[:WORDS]
    rows = (0.02 * random.standard_normal((WORDS, 768))).astype(np.float32)
    Codebook(Vocabulary(words), rows, name="random").save(options.work / "random")
    changes = [
        f"codebook={options.work / 'random'}", "batch=2", "steps=2", "data.validation=1", "data.workers=0",
        "log.every=1", "log.validate=2", "log.grid=2", "log.checkpoint=1", "log.tensorboard=false", "precision=32-true",
    ]  # fmt: skip
    config = load_config("lqae-paper-256", changes, data=pictures)
    found: dict[str, Any] = {"parameters": parameters(config.model)}
    for name, count in found["parameters"].items():
        print(f"{name:40} {count:>12,}", flush=True)
    run = options.work / "run"
    # Two steps; then the second is forgotten and taken once more.
    found["train_s"] = timed(lambda: train(config, run, progress=False))
    first = weights(run)
    for part in (run / "checkpoints").glob("*2"):
        part.rename(options.work / "step-2")
    found["resume_s"] = timed(lambda: train(config, run, resume=True, progress=False))
    second = weights(run)
    found["resumed_bit_for_bit"] = all(torch.equal(first[name], second[name]) for name in first)
    # Graphs and module are compared on these few pictures at three batch sizes: the packaged ones would take an hour.
    wishes = Wishes(codebook=options.work / "random", pictures=pictures)
    card: dict[str, Any] = {}
    found["export_s"] = timed(lambda: card.update(export_checkpoint(run, options.work / "lqae-paper-256", wishes)))
    found["parity"] = card["metrics"]["parity"]
    files = [file for file in options.work.rglob("*") if file.is_file()]
    largest = max(files, key=lambda file: file.stat().st_size)
    found["largest_file"] = {"name": largest.name, "bytes": largest.stat().st_size}
    found["tokenizer_bytes"] = sum(
        file.stat().st_size for file in (options.work / "lqae-paper-256").rglob("*") if file.is_file()
    )
    for name in ("train_s", "resume_s", "export_s", "parity", "resumed_bit_for_bit", "largest_file", "tokenizer_bytes"):
        print(f"{name:40} {found[name]}")
    _common.write(options.out, _common.header(0) | found)
    return 0 if found["resumed_bit_for_bit"] and largest.stat().st_size < 2 * 10**9 else 1


def parameters(config: Any) -> dict[str, int]:
    """How many there are, by part, without memory for them."""
    with torch.device("meta"):
        encoder, decoder = build_nets(config)
        text = MaskedTextEncoder(config.text, torch.empty(ROBERTA_ROWS, config.dim))
    return {
        "encoder": sum(each.numel() for each in encoder.parameters()),
        "decoder": sum(each.numel() for each in decoder.parameters()),
        "text encoder (frozen), head included": sum(each.numel() for each in text.parameters()),
        f"table of {ROBERTA_ROWS:,} words (frozen)": ROBERTA_ROWS * config.dim,
    }


def weights(run: Path) -> dict[str, torch.Tensor]:
    """Of the newest checkpoint."""
    from icl_vision.training.building import find_checkpoint

    return find_checkpoint(run).tensors("model")


def timed(action: Callable[[], object]) -> float:
    """Seconds, on a machine that others share: an order of size."""
    began = time.perf_counter()
    action()
    return round(time.perf_counter() - began, 1)


if __name__ == "__main__":
    sys.exit(main())
