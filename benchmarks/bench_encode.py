"""Images (or clips) per second, encoded and decoded: a tokenizer's graphs, the same nets in torch eager, a 72M VQGAN.

    pip install --no-deps diffusers==0.42.1
    python benchmarks/bench_encode.py --tokenizer spae-photo-128 --checkpoint runs/spae-photo-128 --out FILE.json

Knows: how the ways are timed side by side. Refuses to know: how good the words and pictures are.

- ``onnx``: the tokenizer's own graphs through the library's sessions; uint8 pixels in, ids out, and back.
- ``torch``: the same nets in torch eager, from the training run or checkpoint of --checkpoint (left out without it).
- ``vqgan``: a VQModel of diffusers with random weights and the sizes of LlamaGen's VQ-16 (arXiv 2406.06525: width 128,
  multipliers 1, 1, 2, 2, 4, two residual blocks a level, attention at the lowest, z of 256, 16,384 codes of 8; 71.9 M
  parameters), exported to ONNX here, at the tokenizer's resolution but at least 128 px, in a session with the same
  threads. A net's speed does not depend on its weights.

In each round every way runs once, in turning order, so that a noisy neighbour slows all alike; the figure is the median
over rounds, ratios are medians of the ratios within a round. ``encode files`` is the library's whole way from a .jpg to
words and is for knowing what stands around the graph. A tokenizer of clips is timed on windows that cross the packaged
photographs, without files; the VQGAN is for images only.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import io
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from _common import header, write

SEED = 0
LEAST_SIDE = 128  # of the VQGAN: its smallest grid is a 16th
LEAST_AGREEMENT = 0.995  # of words and of pixels between the graphs and torch: ties, and the order of additions
TARGETS = {"encode": {"vqgan": 3.0, "torch": 1.3}, "decode": {"vqgan": 2.0, "torch": 1.3}}

Way = Callable[[], object]


def photographs(count: int) -> list[Path]:
    """Packaged photographs, repeated where there are too few."""
    import icl_vision
    from icl_vision.images import list_images

    paths = list_images(Path(icl_vision.__file__).parent / "demo_data")
    step = max(1, len(paths) // count)
    return [paths[(place * step) % len(paths)] for place in range(count)]


class Ours:
    """A packaged or exported tokenizer, its pixels and its ids."""

    def __init__(self, name: str, threads: int, provider: str, batch: int) -> None:
        from icl_vision.images import load_image
        from icl_vision.tokenizers.onnx import OnnxTokenizer

        self.tokenizer = OnnxTokenizer.from_pretrained(name, providers=provider, threads=threads, batch_size=batch)
        self.frames = self.tokenizer.card.get("frames")
        self.paths = photographs(batch)
        if self.frames is None:
            self.pixels = self.tokenizer.preprocessing.batch([load_image(path) for path in self.paths])
        else:
            from icl_vision.exporters.clips import parity_clips

            some = parity_clips(self.tokenizer.preprocessing, self.frames)
            self.pixels = some[np.arange(batch) % len(some)]
        self.ids = self.tokenizer._run("encoder.onnx", {"pixels": self.pixels}, "ids")
        self.layers = np.array([len(self.tokenizer.layout)], dtype=np.int64)

    def encode(self) -> np.ndarray:
        return self.tokenizer._run("encoder.onnx", {"pixels": self.pixels}, "ids")

    def decode(self) -> np.ndarray:
        return self.tokenizer._run("decoder.onnx", {"ids": self.ids, "layers": self.layers}, "pixels")

    def encode_files(self) -> object:
        return self.tokenizer.encode(self.paths)


def torch_ways(ours: Ours, checkpoint: Path, threads: int, provider: str) -> dict[str, Way]:
    """The same nets in torch eager, with the exporter's own wrappers, on the same pixels and ids."""
    import torch

    from icl_vision.models.rounding import round_to_fp16, round_to_int8
    from icl_vision.training.building import find_checkpoint, load_model, saved_config

    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # exporters/ is a folder of the repository
    # Both families' modules name their graphs alike.
    exporter = importlib.import_module(f"exporters.{saved_config(find_checkpoint(checkpoint)).family}")
    device = "cuda" if provider == "cuda" else "cpu"
    card = ours.tokenizer.card
    torch.set_num_threads(threads)
    model = load_model(checkpoint, ema=bool(card.get("recipe", {}).get("ema", True))).eval()
    round_to_fp16(model)
    if card.get("weights") == "int8":
        round_to_int8(model)
    encoder, decoder = exporter.EncoderGraph(model).eval().to(device), exporter.DecoderGraph(model).eval().to(device)
    constants = {"codebook": torch.from_numpy(np.array(ours.tokenizer.codebook)).to(device)}
    encoding = dict(constants)
    regions = getattr(model, "regions", None)  # a SPAE may have them
    if regions is not None:
        encoding["class_bias"] = torch.zeros(len(regions.class_vectors), device=device)
    layers = torch.from_numpy(ours.layers).to(device)

    def encode() -> np.ndarray:
        with torch.inference_mode():
            return np.asarray(encoder(torch.from_numpy(ours.pixels).to(device), **encoding)[0].cpu())

    def decode() -> np.ndarray:
        with torch.inference_mode():
            return np.asarray(decoder(torch.from_numpy(ours.ids).to(device), layers, **constants).cpu())

    return {"encode": encode, "decode": decode}


def vqgan_ways(side: int, batch: int, threads: int, provider: str) -> tuple[dict[str, Way], dict[str, Any]]:
    """Encode and decode of the VQGAN through ONNX, and what it is."""
    import torch
    from diffusers import VQModel

    from icl_vision.tokenizers.sessions import GraphSession

    torch.manual_seed(SEED)
    levels = 5
    net = VQModel(
        down_block_types=("DownEncoderBlock2D",) * (levels - 1) + ("AttnDownEncoderBlock2D",),
        up_block_types=("AttnUpDecoderBlock2D",) + ("UpDecoderBlock2D",) * (levels - 1),
        block_out_channels=(128, 128, 256, 256, 512),
        layers_per_block=2,
        latent_channels=256,
        num_vq_embeddings=16384,
        vq_embed_dim=8,
    ).eval()

    class Encoder(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = net

        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            images = pixels.permute(0, 3, 1, 2).to(torch.float32) / 127.5 - 1
            z = self.net.encode(images).latents.permute(0, 2, 3, 1).flatten(1, 2)
            book = self.net.quantize.embedding.weight
            # |z - e|^2 without |z|^2: one matrix product, as good implementations do it
            distance = (book * book).sum(1) - 2 * z @ book.T
            return distance.argmin(2).to(torch.int32)

    class Decoder(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = net

        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            grid = side // 2 ** (levels - 1)
            found = torch.nn.functional.embedding(ids.to(torch.int64), self.net.quantize.embedding.weight)
            z = found.reshape(-1, grid, grid, found.shape[-1]).permute(0, 3, 1, 2)
            images = self.net.decode(z, force_not_quantize=True).sample
            return (images.clamp(-1, 1) * 127.5 + 127.5).round().to(torch.uint8).permute(0, 2, 3, 1)

    pixels = np.random.default_rng(SEED).integers(0, 256, (batch, side, side, 3), dtype=np.uint8)
    ids = np.random.default_rng(SEED).integers(0, 16384, (batch, (side // 16) ** 2), dtype=np.int32)
    sessions = {}
    for name, module, value in (("encode", Encoder(), pixels), ("decode", Decoder(), ids)):
        buffer = io.BytesIO()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                module.eval(), (torch.from_numpy(value),), dynamo=True, verbose=False, external_data=False
            )
        program.save(buffer)
        sessions[name] = GraphSession(buffer.getvalue(), f"vqgan {name}", providers=provider, threads=threads)

    def run(name: str, value: np.ndarray) -> Way:
        session = sessions[name]
        return lambda: session.run({session.inputs[0]: value}, session.outputs)

    weights = {"parameters": sum(weight.numel() for weight in net.parameters()), "side": side}
    return {"encode": run("encode", pixels), "decode": run("decode", ids)}, {
        **weights,
        "diffusers": importlib.metadata.version("diffusers"),
    }


def time_ways(ways: dict[str, Way], batch: int, rounds: int, seconds: float) -> dict[str, list[float]]:
    """Images per second of each way in each round."""
    repeats = {}
    for way, call in ways.items():
        call()
        start = time.perf_counter()
        call()
        repeats[way] = max(1, round(seconds / (time.perf_counter() - start)))
    rates: dict[str, list[float]] = {way: [] for way in ways}
    order = list(ways)
    for number in range(rounds):
        for way in order[number % len(order) :] + order[: number % len(order)]:
            start = time.perf_counter()
            for _ in range(repeats[way]):
                ways[way]()
            rates[way].append(batch * repeats[way] / (time.perf_counter() - start))
    return rates


def summary(rates: dict[str, list[float]], targets: dict[str, float]) -> dict[str, Any]:
    rows: dict[str, Any] = {}
    for way, values in rates.items():
        quartiles = statistics.quantiles(values, n=4) if len(values) > 1 else [values[0]] * 3
        rows[way] = {"images_per_s": statistics.median(values), "quartiles": [quartiles[0], quartiles[2]]}
        if way != "onnx":
            ratio = statistics.median(a / b for a, b in zip(rates["onnx"], values, strict=True))
            rows[way] |= {"onnx_is_times_faster": ratio}
            if way in targets:
                rows[way] |= {"target": targets[way], "met": ratio >= targets[way]}
    return rows


def measure(options: argparse.Namespace, threads: int) -> dict[str, Any]:
    found: dict[str, Any] = {"batches": {}, "skipped": {}}
    for batch in options.batches:
        ours = Ours(options.tokenizer, threads, options.provider, batch)
        side = max(LEAST_SIDE, ours.tokenizer.preprocessing.size)
        found |= {"side": ours.tokenizer.preprocessing.size, "words": ours.tokenizer.layout.cumulative[-1]}
        others: dict[str, dict[str, Way]] = {}
        if options.checkpoint is not None:
            torch_both = torch_ways(ours, options.checkpoint, threads, options.provider)
            agreement = {what: agreeing(ours, torch_both, what) for what in torch_both}
            found["torch_agreement"] = {**found.get("torch_agreement", {}), str(batch): agreement}
            if min(agreement.values()) >= LEAST_AGREEMENT:
                others["torch"] = torch_both
            else:
                found["skipped"]["torch"] = (
                    f"only {agreement['encode']:.2%} of its words and {agreement['decode']:.2%} of its pixels are the "
                    "graphs': not the checkpoint of this tokenizer?"
                )
        if not options.no_vqgan and ours.frames is None:
            try:
                others["vqgan"], found["vqgan"] = vqgan_ways(side, batch, threads, options.provider)
            except ImportError as error:
                found["skipped"]["vqgan"] = f"{error}; pip install --no-deps diffusers==0.42.1"
        rows = {}
        for what in ("encode", "decode") if ours.tokenizer.can_decode else ("encode",):
            ways: dict[str, Way] = {"onnx": getattr(ours, what)}
            ways |= {name: both[what] for name, both in others.items()}
            if what == "encode" and ours.frames is None:
                ways["encode files"] = ours.encode_files
            rows[what] = summary(time_ways(ways, batch, options.rounds, options.seconds), TARGETS[what])
        found["batches"][str(batch)] = rows
    return found


def agreeing(ours: Ours, torch: dict[str, Way], what: str) -> float:
    """The share of words that torch gives as the graph does, or of pixels that differ by 1 level of 255 at most."""
    theirs, other = np.asarray(torch[what]()), np.asarray(getattr(ours, what)())
    if what == "encode":
        return float((theirs == other).mean())
    return float((np.abs(theirs.astype(np.int16) - other.astype(np.int16)) <= 1).mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--tokenizer", default="spae-photo-128", help="name or folder (default: spae-photo-128)")
    parser.add_argument("--checkpoint", type=Path, help="training run or checkpoint of the same nets, for torch eager")
    parser.add_argument("--no-vqgan", action="store_true", help="leave the VQGAN out (it needs diffusers)")
    parser.add_argument("--provider", default="cpu", choices=("cpu", "cuda"), help="default: cpu")
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 8], help="batch sizes (default: 1 8)")
    parser.add_argument("--rounds", type=int, default=7, help="interleaved rounds (default: 7)")
    parser.add_argument(
        "--seconds", type=float, default=1.0, help="about how long one way runs in a round (default: 1)"
    )
    parser.add_argument("--threads", type=int, help="default: the cores this process may use")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "bench_encode.json")
    options = parser.parse_args()
    head = header(SEED)
    threads = options.threads or head["machine"]["cores"]
    found = measure(options, threads)
    setting = {"tokenizer": options.tokenizer, "provider": options.provider, "threads": threads}
    write(options.out, {**head, **setting, "rounds": options.rounds, **found})
    if "vqgan" in found:
        print(f"vqgan: {found['vqgan']['parameters'] / 1e6:.1f} M parameters at {found['vqgan']['side']} px")
    print(f"{'batch':>5} {'':7} {'way':13} {'images/s':>9} {'quartiles':>17} {'onnx is':>8} {'target':>7}")
    for batch, tasks in found["batches"].items():
        for what, rows in tasks.items():
            for way, row in rows.items():
                low, high = row["quartiles"]
                ratio = f"{row['onnx_is_times_faster']:.2f} x" if way != "onnx" else "-"
                target = f"{row['target']:.1f} {'ok' if row['met'] else 'NO'}" if "target" in row else ""
                rate = f"{row['images_per_s']:9.1f} {low:8.1f} {high:8.1f}"
                print(f"{batch:>5} {what:7} {way:13} {rate} {ratio:>8} {target:>7}")
    for batch, shares in found.get("torch_agreement", {}).items():
        print(f"batch {batch}: torch gives {shares['encode']:.3%} of the words, {shares['decode']:.3%} of the pixels")
    for way, why in found["skipped"].items():
        print(f"skipped {way}: {why}", file=sys.stderr)
    print(f"written: {options.out}")


if __name__ == "__main__":
    main()
