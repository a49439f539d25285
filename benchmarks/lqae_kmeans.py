"""What k-means makes of TAEF2's latents with as many codes as LQAE has words: no net is trained, no word says anything.

    python benchmarks/lqae_kmeans.py --data PHOTOS --pretrained TAEF2 --out FILE.json [--memory RUN/memory.safetensors]

Held out and fitted to are the very photographs of a run of ``lqae-photo-128`` with ``data.limit=3072``. A code stands
for 2 x 2 latents on a grid of 8 x 8 (64 codes an image), or for a single one on 16 x 16 (256). Nearest is by squared
error of the latents as they are, and by that of their coordinates weighted as pixels are (``PhotoDecoder.measure``),
which is what LQAE is trained on. An image comes back from its centres by TAEF2's decoder. Lloyd's iterations from
centres drawn among the points; one that has lost all its points is drawn anew. ``--memory``: what the run's frozen
encoder said of its photographs, in place of asking TAEF2 again.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

import _common
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from icl_vision.evaluation.kit.image_metrics import psnr
from icl_vision.models.nets.spae_photo import PhotoDecoder, PhotoEncoder
from icl_vision.models.quantizers.nearest import nearest_words
from icl_vision.training import load_config
from icl_vision.training.data.batches import Data, open_data
from icl_vision.training.memory import Memory

CODES, LIMIT, SEED, SIDE, MEASURED = 4096, 3072, 0, 128, 8


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="photographs: a folder or a .tar")
    parser.add_argument("--pretrained", type=Path, required=True, help="the folder of TAEF2's two weight files")
    parser.add_argument("--memory", type=Path, help="memory.safetensors of a run on the same photographs")
    parser.add_argument(
        "--points", type=int, default=98_304, help="points a k-means is fitted to (default %(default)s)"
    )
    parser.add_argument("--rounds", type=int, default=10, help="Lloyd's iterations (default %(default)s)")
    parser.add_argument("--out", type=Path, required=True, help="result file")
    options = parser.parse_args()
    run = load_config("lqae-photo-128", [f"data.limit={LIMIT}"], data=options.data)
    data = open_data(dataclasses.replace(run.data, workers=0), size=SIDE, channels=3, seed=SEED)
    encoder = PhotoEncoder(SIDE, 1, 8, 1, semantics=False)
    encoder.load_pretrained(options.pretrained)
    decoder = PhotoDecoder(SIDE, 1, 8, 1)
    decoder.load_pretrained(options.pretrained)
    latents, held_out = known(data, encoder, options.memory), encoder.features(data.held_out.images.float() / 255)
    decoder.measure(held_out[:MEASURED])
    truth = data.held_out.images.permute(0, 2, 3, 1).numpy()
    ceiling = psnr(truth, pictures(decoder, held_out))
    found: dict[str, Any] = {"TAEF2 alone": {"psnr": float(ceiling.mean())}}
    print(f"TAEF2 alone {ceiling.mean():.2f} dB", flush=True)
    for side in (2, 1):
        for weighted in (False, True):
            # Coordinates weighted as pixels are can be turned back where no direction counts for nothing.
            into = decoder.metric if weighted else torch.eye(len(decoder.metric))
            points = patches(latents, into, side)
            drawn = torch.randperm(len(points), generator=torch.Generator().manual_seed(SEED))[: options.points]
            centres, errors = k_means(points[drawn], CODES, options.rounds)
            ids = nearest_words(patches(held_out, into, side), centres, normalise=False)
            back = unpatched(centres[ids], torch.linalg.inv(into), side, held_out.shape[2])
            values = psnr(truth, pictures(decoder, back))
            shares = np.bincount(ids.numpy(), minlength=CODES) / len(ids)
            name = (
                f"{ids.numel() // len(held_out)} codes, {'weighted as pixels' if weighted else 'latents as they are'}"
            )
            found[name] = {
                "psnr": float(values.mean()),
                "psnr_interval": [float(values.mean() + sign * 1.96 * values.std(ddof=1) / len(values) ** 0.5)
                                  for sign in (-1, 1)],
                "used": int((shares > 0).sum()),
                "perplexity": float(np.exp(-np.sum(shares * np.log(np.where(shares > 0, shares, 1))))),
                "fitted_to": len(drawn),
                "error_of_each_round": errors,
            }  # fmt: skip
            print(name, {key: found[name][key] for key in ("psnr", "used", "perplexity")}, flush=True)
    facts = {"codes": CODES, "photographs": len(data.train), "held_out": len(held_out), "rows": found}
    _common.write(options.out, _common.header(SEED) | facts)
    return 0


def known(data: Data, encoder: PhotoEncoder, memory: Path | None) -> Tensor:
    """TAEF2's latents of the training photographs, [N, 32, h, w]; in half precision, as a run remembers them."""
    assert data.pixels is not None
    kept = Memory(len(data.pixels.values))
    if memory is not None:
        of = f"{data.fingerprint} {SEED} {data.config.validation} {data.config.limit} {SIDE}"
        if not kept.load(memory, of):
            raise SystemExit(f"{memory} is not the memory of a run on these photographs")
    parts: list[Tensor] = []
    for index in torch.split(data.train, 16):
        images = data.pixels.values[index].float() / 255
        parts += kept.recall(index, images, lambda images: (encoder.features(images),))
    return torch.cat(parts)


def patches(latents: Tensor, into: Tensor, side: int) -> Tensor:
    """Latents [N, 32, h, w] -> points [N h/side w/side, 32 side side], in other coordinates (into [32, 32])."""
    turned = torch.einsum("nchw,cd->ndhw", latents, into)
    return F.unfold(turned, side, stride=side).transpose(1, 2).flatten(0, 1)


def unpatched(points: Tensor, back: Tensor, side: int, height: int) -> Tensor:
    """The way back from ``patches``, for grids of ``height`` x ``height`` latents."""
    folded = points.reshape(-1, (height // side) ** 2, points.shape[1]).transpose(1, 2)
    return torch.einsum("ndhw,dc->nchw", F.fold(folded, (height, height), side, stride=side), back)


def k_means(points: Tensor, codes: int, rounds: int) -> tuple[Tensor, list[float]]:
    """Centres [codes, c] of points [N, c], and the mean squared error before each round."""
    source = torch.Generator().manual_seed(SEED)
    centres = points[torch.randperm(len(points), generator=source)[:codes]].clone()
    errors = []
    for _ in range(rounds):
        owner = torch.cat([nearest_words(part, centres, normalise=False) for part in torch.split(points, 16_384)])
        errors.append(float((points - centres[owner]).square().sum(1).mean()))
        counts = torch.bincount(owner, minlength=codes)
        sums = torch.zeros_like(centres).index_add_(0, owner, points)
        centres = sums / counts.clamp(min=1)[:, None]
        empty = counts == 0
        centres[empty] = points[torch.randint(len(points), (int(empty.sum()),), generator=source)]
    return centres, errors


def pictures(decoder: PhotoDecoder, latents: Tensor) -> Any:
    """Latents -> uint8 [N, S, S, 3]."""
    with torch.inference_mode():
        made = torch.cat([decoder.pixels(part) for part in torch.split(latents, 16)]).clamp(0, 1)
    return (made * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()


if __name__ == "__main__":
    sys.exit(main())
