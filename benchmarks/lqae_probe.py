"""What a linear classifier reads out of an LQAE's parts: text encoder, words, encoder, and the latents before them all.

    python benchmarks/lqae_probe.py RUN --data CLASS-FOLDERS --out FILE.json [--images 60] [--test 20]
    python benchmarks/lqae_probe.py TOKENIZER --text-encoder FOLDER --pretrained TAEF2 --data ... --out FILE.json

RUN is a training run or one of its checkpoints, TOKENIZER the name or folder of an exported LQAE, which gives its words
and the mean of the encoder's vectors alone: the text encoder comes from the folder that it was trained with, the
latents from TAEF2's weights, and rows of the encoder's places are left out. CLASS-FOLDERS is a folder with a sub-folder
of photographs for each class, or a tar of one. Of every class the same number of photographs is drawn, some of them for
the test. The LQAE paper's figure 4 and table 4 do this with the 1,000 classes of ImageNet and features of RoBERTa;
nothing here is ImageNet-1k.

    latents                TAEF2's, which the encoder sees
    encoder                its vectors before the lookup
    words, bag             how often each of the T words stands in the picture
    words, table           the words' own rows of the text encoder's table, without any layer
    text encoder           its states before the first layer and after each, concatenated
    random text encoder    the same of the same words, with positions and layers drawn at random
    encoder + text encoder both, concatenated

"mean" is the mean over all places, "2x2" the means of the picture's four quarters (so that places count), "4x4" those
of its sixteenths. A probe is BatchNorm without affine, which with a whole set for its batch is the division by the
training pictures' spread, then a linear layer, fitted by L-BFGS to the cross-entropy and an L2 penalty. The penalty is
chosen on a quarter of the training photographs, then all are fitted: features of more numbers are not helped or harmed
by their number alone. The test photographs are looked at once a row.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

import numpy as np
import torch
from _common import header, write
from few_shot import images_of
from torch import Tensor, nn

from icl_vision.errors import UsageError
from icl_vision.evaluation.kit.compare import holm, mcnemar_exact, paired_interval
from icl_vision.evaluation.kit.metrics import Accuracy
from icl_vision.evaluation.kit.pictures import Picture, list_pictures
from icl_vision.images import load_image
from icl_vision.models.nets.taef2 import ENCODER_FILE, Taef2Encoder
from icl_vision.models.words.masked_lm import MaskedTextEncoder
from icl_vision.tokenizers import ImageTokenizer
from icl_vision.tokenizers.onnx import OnnxTokenizer
from icl_vision.tokenizers.pixels import Preprocessing
from icl_vision.training import load_model

PENALTIES = (10.0, 1.0, 0.1, 0.01, 0.001)
"""Weights of the L2 penalty that are tried, beside a mean cross-entropy; the heaviest first, each begins at the last's
result."""

STEPS = 60
"""Of L-BFGS."""
PAIRS = (
    ("text encoder, mean", "random text encoder, mean"),
    ("text encoder, mean", "words, table, mean"),
    ("text encoder, mean", "latents, mean and spread"),
    ("text encoder, 2x2", "random text encoder, 2x2"),
    ("text encoder, 2x2", "words, table, 2x2"),
    ("text encoder, 2x2", "latents, 4x4"),
)
"""Rows that are compared on the same test photographs."""


def drawn(pictures: Sequence[Picture], images: int, test: int, seed: int) -> tuple[list[Picture], list[Picture]]:
    """Training and test photographs, as many of each class.

    Raises:
        UsageError: a class has fewer, or nothing would be left to train on.
    """
    if not 0 < test < images:
        raise UsageError(f"--test must leave photographs to train on; got {test} of {images}")
    of_class: dict[str, list[Picture]] = {}
    for picture in pictures:
        of_class.setdefault(picture.label or "", []).append(picture)
    if len(of_class) < 2:
        raise UsageError(f"a probe needs two classes or more; got {sorted(of_class)}")
    train, held = [], []
    for number, label in enumerate(sorted(of_class)):
        own = sorted(of_class[label], key=lambda picture: picture.name)
        if len(own) < images:
            raise UsageError(f"the class {label!r} has {len(own)} photographs; --images asks for {images}")
        order = np.random.default_rng([seed, number]).permutation(len(own))[:images]
        held += [own[place] for place in order[:test]]
        train += [own[place] for place in order[test:]]
    return train, held


class Seen:
    """Features of pictures by a trained LQAE, in the rows of the table.

    Args:
        model: an LQAE in evaluation mode.
        seed: of the random text encoder.
    """

    def __init__(self, model: Any, seed: int) -> None:
        self.model = model
        self._latents: list[Tensor] = []
        taef2 = next((net for net in model.encoder.modules() if isinstance(net, Taef2Encoder)), None)
        if taef2 is not None:  # as the encoder computes them, so that they are computed once
            taef2.register_forward_hook(lambda net, given, found: self._latents.append(found))
        self.random = None if model.text is None else at_random(model.text, seed)

    @torch.inference_mode()
    def rows(self, pixels: Tensor) -> dict[str, Tensor]:
        """uint8 [B, S, S, 3] -> row of the table -> float32 [B, D]."""
        model = self.model
        self._latents.clear()
        images = pixels.permute(0, 3, 1, 2).float() / 255
        vectors = model.encode(images)
        ids = model.lookup(vectors)
        found = of_latents(self._latents[0]) if self._latents else {}
        found["encoder, mean"] = pooled(vectors, 1)
        found["encoder, 4x4"] = pooled(vectors, 4)
        found |= of_words(ids, model.codebook, model.text, self.random)
        if self.random is not None:
            found["encoder + text encoder"] = torch.cat([found["encoder, 4x4"], found["text encoder, 2x2"]], dim=1)
        return {name: value.float() for name, value in found.items()}


class Exported:
    """Features of pictures by an exported LQAE, in the rows of the table that can be had without its training run.

    Args:
        tokenizer: the artefact. text: the text encoder that it was trained with, its table the tokenizer's words.
        taef2: whose latents its encoder sees.
        seed: of the random text encoder.

    Raises:
        UsageError: the text encoder's table is not the tokenizer's codebook.
    """

    def __init__(self, tokenizer: OnnxTokenizer, text: MaskedTextEncoder, taef2: Taef2Encoder, seed: int) -> None:
        self.tokenizer, self.text, self.taef2 = tokenizer, text, taef2
        self.codebook = torch.from_numpy(np.array(tokenizer.codebook, np.float32))
        if text.table.shape != self.codebook.shape or not torch.allclose(text.table, self.codebook, atol=1e-3):
            raise UsageError(f"{tokenizer.name!r} was trained with another text encoder: its words' rows differ")
        self.random = at_random(text, seed)

    @torch.inference_mode()
    def rows(self, pixels: Tensor) -> dict[str, Tensor]:
        """uint8 [B, S, S, 3] -> row of the table -> float32 [B, D]."""
        images = list(pixels.numpy())
        ids = torch.from_numpy(np.stack([pyramid.ids[0] for pyramid in self.tokenizer.encode(images)])).long()
        found = of_latents(self.taef2(pixels.permute(0, 3, 1, 2).float() / 255))
        found["encoder, mean"] = torch.from_numpy(np.array(self.tokenizer.embed(images)))
        found |= of_words(ids, self.codebook, self.text, self.random)
        return {name: value.float() for name, value in found.items()}


def of_latents(latents: Tensor) -> dict[str, Tensor]:
    """The rows of latents [B, c, H, W]."""
    flat = latents.flatten(2)
    spread = torch.cat([flat.mean(2), flat.std(2)], dim=1)
    return {"latents, mean and spread": spread, "latents, 4x4": pooled(latents, 4)}


def of_words(
    ids: Tensor, codebook: Tensor, text: MaskedTextEncoder | None, random: MaskedTextEncoder | None
) -> dict[str, Tensor]:
    """The rows of words [B, H, W], and of what the two text encoders say of them, where there are any."""
    flat, grid = ids.flatten(1), tuple(ids.shape[1:])
    found = {"words, bag": torch.stack([torch.bincount(row, minlength=len(codebook)) for row in flat]).float()}
    table = nn.functional.embedding(flat, codebook.float())
    for side, name in ((1, "mean"), (2, "2x2")):
        found[f"words, table, {name}"] = pooled(on_grid(table, grid), side)
    for name, encoder in (("text encoder", text), ("random text encoder", random)):
        if encoder is not None:
            whole = on_grid(torch.cat(encoder(table), dim=2), grid)
            found[f"{name}, mean"], found[f"{name}, 2x2"] = pooled(whole, 1), pooled(whole, 2)
    return found


def on_grid(states: Tensor, grid: tuple[int, ...]) -> Tensor:
    """[B, P, c] -> [B, c, H, W]."""
    return states.transpose(1, 2).reshape(states.shape[0], -1, *grid)


def pooled(maps: Tensor, side: int) -> Tensor:
    """[B, c, H, W] -> the means of side x side parts, [B, c * side * side]."""
    return nn.functional.adaptive_avg_pool2d(maps.float(), side).flatten(1)


def exported(name: str, text_encoder: Path, pretrained: Path, seed: int) -> Exported:
    """The parts of an exported LQAE, by name or folder, with as many layers of its text encoder as it has.

    Raises:
        UsageError: it has no text encoder, or another one.
    """
    tokenizer = ImageTokenizer.from_pretrained(name)
    shape = getattr(tokenizer, "card", {}).get("model", {}).get("text")
    if not isinstance(tokenizer, OnnxTokenizer) or shape is None:
        raise UsageError(f"{name!r} is no exported LQAE with a text encoder")
    text = MaskedTextEncoder.load(text_encoder, layers=shape["layers"], words=tokenizer.vocabulary.words)
    return Exported(tokenizer, text.eval(), Taef2Encoder.load(pretrained / ENCODER_FILE).eval(), seed)


def at_random(text: MaskedTextEncoder, seed: int) -> MaskedTextEncoder:
    """One of the same shape and words, its positions and layers drawn as those of a fresh BERT."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return MaskedTextEncoder(text.shape, text.table).eval()


class Probe:
    """A linear classifier on features divided by their spread.

    Args:
        features: float [N, D]. labels: int64 [N].
        penalties: tried on the last quarter (of a seeded order), the best is kept; one is taken as it is.
        seed: of that order.
    """

    def __init__(self, features: Tensor, labels: Tensor, penalties: Sequence[float] = PENALTIES, seed: int = 0) -> None:
        self.mean, self.spread = features.mean(0), features.std(0, unbiased=False)
        # As BatchNorm does it; a feature that never changes says nothing, whatever it is divided by.
        scaled, classes = self._scaled(features), int(labels.max()) + 1
        self.penalty = penalties[0]
        if len(penalties) > 1:
            order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
            held, rest = order[: len(order) // 4], order[len(order) // 4 :]
            best, weights = -1.0, None
            for penalty in penalties:
                weights = fit(scaled[rest], labels[rest], classes, penalty, weights)
                right = (predicted(scaled[held], weights) == labels[held]).float().mean().item()
                if right > best:
                    best, self.penalty = right, penalty
        self.weights = fit(scaled, labels, classes, self.penalty)

    def _scaled(self, features: Tensor) -> Tensor:
        return (features - self.mean) / torch.sqrt(self.spread**2 + 1e-5)

    def __call__(self, features: Tensor) -> Tensor:
        """The likeliest class of each, int64 [N]."""
        return predicted(self._scaled(features), self.weights)


def predicted(scaled: Tensor, weights: tuple[Tensor, Tensor]) -> Tensor:
    """The class of the largest logit."""
    return (scaled @ weights[0] + weights[1]).argmax(1)


def fit(
    scaled: Tensor, labels: Tensor, classes: int, penalty: float, start: tuple[Tensor, Tensor] | None = None
) -> tuple[Tensor, Tensor]:
    """Weights [D, C] and intercepts [C] that minimise  mean cross-entropy + penalty / 2 |W|^2  (L-BFGS)."""
    first = (torch.zeros(scaled.shape[1], classes), torch.zeros(classes)) if start is None else start
    weight, intercept = (each.clone().requires_grad_() for each in first)
    optimiser = torch.optim.LBFGS([weight, intercept], max_iter=STEPS, history_size=8, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimiser.zero_grad()
        value = nn.functional.cross_entropy(scaled @ weight + intercept, labels)
        value = value + penalty / 2 * weight.square().sum()
        value.backward()
        return value

    optimiser.step(loss)  # type: ignore[no-untyped-call]  # torch's stubs
    return weight.detach(), intercept.detach()


def features_of(
    seen: Seen | Exported, pictures: Sequence[Picture], square: Preprocessing, batch: int
) -> dict[str, Tensor]:
    """Row -> float32 [N, D] of all pictures."""
    parts = list(_parts(seen, pictures, square, batch))
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def _parts(
    seen: Seen | Exported, pictures: Sequence[Picture], square: Preprocessing, batch: int
) -> Iterator[Mapping[str, Tensor]]:
    for start in range(0, len(pictures), batch):
        part = pictures[start : start + batch]
        yield seen.rows(torch.from_numpy(square.batch([load_image(picture.image) for picture in part])))
        print(f"{start + len(part)} of {len(pictures)} pictures seen", file=sys.stderr)


def compared(right: Mapping[str, Tensor], pairs: Sequence[tuple[str, str]] = PAIRS) -> list[dict[str, Any]]:
    """Differences of rows, by the same test photographs: McNemar's p, Tango's interval, Holm over all of them."""
    found: list[dict[str, Any]] = []
    for first, second in pairs:
        if first in right and second in right:
            only_a = int((right[first] & ~right[second]).sum())
            only_b = int((~right[first] & right[second]).sum())
            n = len(right[first])
            found.append({
                "rows": [first, second], "n": n, "only_first": only_a, "only_second": only_b,
                "difference": (only_a - only_b) / n, "interval": list(paired_interval(only_a, only_b, n)),
                "p": mcnemar_exact(only_a, only_b),
            })  # fmt: skip
    for entry, value in zip(found, holm([entry["p"] for entry in found]), strict=True):
        entry["p_holm"] = value
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "run",
        type=Path,
        help="training run of an LQAE, or one checkpoint of it; or the name or folder of an exported one",
    )
    parser.add_argument("--text-encoder", type=Path, help="of an exported one: folder of its masked language model")
    parser.add_argument("--pretrained", type=Path, help="of an exported one: the folder of TAEF2's weight files")
    parser.add_argument("--data", type=Path, required=True, help="folder of class folders, or a tar of one")
    parser.add_argument("--images", type=int, default=60, help="photographs of each class (default 60)")
    parser.add_argument("--test", type=int, default=20, help="so many of them for the test (default 20)")
    parser.add_argument("--codebook", type=Path, help="the run's codebook, where it is not packaged")
    parser.add_argument("--batch", type=int, default=32, help="pictures at once (default 32)")
    parser.add_argument("--seed", type=int, default=0, help="of the draw and the random text encoder (default 0)")
    parser.add_argument("--out", type=Path, required=True, help="result file")
    options = parser.parse_args()
    seen: Seen | Exported
    if options.text_encoder is None:
        model = load_model(options.run, codebook=options.codebook)
        square = Preprocessing(model.config.side, "squash", "bilinear")
        seen, config = Seen(model, options.seed), model.config.to_dict()
    else:
        if options.pretrained is None:
            raise UsageError("an exported LQAE needs --pretrained, the folder of TAEF2's weight files")
        seen = exported(str(options.run), options.text_encoder, options.pretrained, options.seed)
        square, config = seen.tokenizer.preprocessing, seen.tokenizer.card["model"]
    with images_of(options.data) as folder:
        train, test = drawn(list_pictures(folder.root), options.images, options.test, options.seed)
        labels = sorted({picture.label or "" for picture in train})
        of = [torch.tensor([labels.index(picture.label or "") for picture in part]) for part in (train, test)]
        found = features_of(seen, [*train, *test], square, options.batch)
    rows, right = [], {}
    print(f"{'row':28} {'numbers':>8} {'right, %':>22} {'penalty':>8}")
    for name, features in found.items():
        probe = Probe(features[: len(train)], of[0], seed=options.seed)
        right[name] = probe(features[len(train) :]) == of[1]
        accuracy = Accuracy.count(int(right[name].sum()), len(test), "linear probe")
        rows.append({"row": name, "numbers": features.shape[1], "penalty": probe.penalty, **accuracy.to_dict()})
        low, high = accuracy.interval
        shown = f"{100 * (accuracy.accuracy or 0):.1f} [{100 * low:.1f}, {100 * high:.1f}]"
        print(f"{name:28} {features.shape[1]:8} {shown:>22} {probe.penalty:8}")
    document = {
        **header(options.seed),
        "run": options.run.name,
        "model": config,
        "data": options.data.name,
        "classes": len(labels),
        "photographs": {"training": len(train), "test": len(test)},
        "chance": 1 / len(labels),
        "rows": rows,
        "pairs": compared(right),
    }
    write(options.out, document)
    return 0


if __name__ == "__main__":
    sys.exit(main())
