"""What LQAE's words are worth without an LLM: word prototypes, words in use, beside an untrained encoder and no words.

    python benchmarks/lqae_words.py --data CLASS-FOLDERS --pretrained TAEF2 --out FILE.json [--tokenizer lqae-photo-128]
        [--photos PHOTOS] [--each N]

5-way episodes of one query each: is the vector of its words nearest to the mean of its class? The same for every row.
A picture's vector is the mean of its words' rows of the table, or what a row is named after:

    mean and spread        the standard deviations beside the mean, as of the latents
    in 2x2, 4x4 places     the means of the words in regions of the grid, side by side, not one of all
    directions             of where the words lie along the whitened directions that the lookup sees, not in the table
    bag; idf               how often each word stands there; weighed by in how few of all these pictures it stands
    latents                TAEF2's instead of words

Words in use and perplexity are those of ``--counted`` pictures, drawn over all classes; with ``--photos``, the
photographs of the packaged training, also those of the 64 that it held out.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import _common
import numpy as np
import numpy.typing as npt
import torch

from icl_vision.codebook import Codebook
from icl_vision.evaluation.few_shot.baselines import nearest_prototype, unit
from icl_vision.evaluation.kit.metrics import wilson_interval
from icl_vision.evaluation.kit.pictures import Picture, list_pictures
from icl_vision.images import load_image
from icl_vision.models.lqae import LQAE, LqaeConfig
from icl_vision.models.nets.taef2 import ENCODER_FILE, Taef2Encoder
from icl_vision.models.quantizers.lookup import WordLookup
from icl_vision.tokenizers import ImageTokenizer
from icl_vision.tokenizers.onnx import OnnxTokenizer
from icl_vision.training import load_config
from icl_vision.training.data.batches import open_data

WAYS, SHOTS, PLACES, LIMIT = 5, (1, 5), (2, 4), 3072


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="photographs, one folder a class, 6 or more each")
    parser.add_argument("--pretrained", type=Path, required=True, help="the folder of TAEF2's two weight files")
    parser.add_argument("--tokenizer", default="lqae-photo-128", help="an LQAE, by name or folder (%(default)s)")
    parser.add_argument("--episodes", type=int, default=1500, help="of each row and number of shots (default 1500)")
    parser.add_argument("--counted", type=int, default=64, help="pictures whose words are counted (default 64)")
    parser.add_argument("--each", type=int, help="the first so many photographs of each class (default all)")
    parser.add_argument("--photos", type=Path, help="photographs of the training, for the words of its held-out ones")
    parser.add_argument("--out", type=Path, required=True, help="result file")
    options = parser.parse_args()
    tokenizer = ImageTokenizer.from_pretrained(options.tokenizer)
    assert isinstance(tokenizer, OnnxTokenizer)
    pictures = first_of_each(list_pictures(options.data), options.each)
    pixels = np.stack(tokenizer.preprocessing.batch([load_image(picture.image) for picture in pictures]))
    taef2 = Taef2Encoder.load(options.pretrained / ENCODER_FILE)
    random_ids, latents = untrained_words(tokenizer, taef2, pixels)
    trained = Path(options.tokenizer).name
    words = {trained: words_of(tokenizer, pixels), "untrained encoder": random_ids}
    table = Codebook.load(tokenizer.card["codebook"]["name"]).vectors
    vectors = {name: value for each, ids in words.items() for name, value in readings(each, ids, tokenizer, table)}
    spread = torch.cat([latents.mean((2, 3)), latents.std((2, 3))], 1)
    vectors["latents: mean"] = latents.mean((2, 3)).numpy()
    vectors["latents: mean and spread"] = spread.numpy()
    vectors["latents: 2x2 regions"] = torch.nn.functional.adaptive_avg_pool2d(latents, 2).flatten(1).numpy()
    vectors["latents: 4x4 regions"] = torch.nn.functional.avg_pool2d(latents, 4).flatten(1).numpy()
    labels = [picture.label or "" for picture in pictures]
    chosen = np.random.default_rng(0).permutation(len(pictures))[: options.counted]
    rows: dict[str, dict[str, object]] = {}
    for name, values in vectors.items():
        rows[name] = {f"{WAYS}-way {shots}-shot": accuracy(values, labels, shots, options.episodes) for shots in SHOTS}
        if name in words:
            rows[name] |= usage(words[name][chosen], len(table))
        print(f"{name:45} {rows[name]}", flush=True)
    if options.photos is not None:
        held_out = held_out_of(options.photos)
        for name, ids in (
            (trained, words_of(tokenizer, held_out)),
            ("untrained encoder", untrained_words(tokenizer, taef2, held_out)[0]),
        ):
            rows[name]["held out"] = {"photographs": len(held_out), **usage(ids, len(table))}
            print(f"{name:28} held out: {rows[name]['held out']}", flush=True)
    document = {"n": options.episodes, "pictures": len(pictures), "counted": len(chosen), "words": len(table)}
    _common.write(options.out, _common.header(0) | document | {"rows": rows})
    return 0


def first_of_each(pictures: Sequence[Picture], each: int | None) -> list[Picture]:
    """The first so many pictures of each class, or all."""
    seen: Counter[str | None] = Counter()
    kept = []
    for picture in pictures:
        seen[picture.label] += 1
        if each is None or seen[picture.label] <= each:
            kept.append(picture)
    return kept


def readings(
    name: str, ids: npt.NDArray[np.integer], tokenizer: OnnxTokenizer, table: npt.NDArray[np.float32]
) -> Iterator[tuple[str, npt.NDArray[np.float32]]]:
    """Row -> vectors of pictures [N, D], for every way in which their words [N, P] are read."""
    side = tokenizer.layout.finest[0]
    lookup = WordLookup(
        torch.from_numpy(np.array(tokenizer.codebook)), directions=tokenizer.card["model"]["directions"]
    )
    for of, vectors in (("", unit(table)), (" directions,", unit(lookup.seen(lookup.codebook).numpy()))):
        rows = vectors[ids]
        mean = rows.mean(axis=1)
        yield f"{name},{of} mean" if of else name, mean
        yield f"{name},{of} mean and spread", np.concatenate([mean, rows.std(axis=1)], axis=1)
        for places in PLACES:
            yield f"{name},{of} in {places}x{places} places", placed(rows, side, places)
    bags = np.stack([np.bincount(row, minlength=len(table)) for row in ids]).astype(np.float32)
    yield f"{name}, bag", bags
    yield f"{name}, bag, idf", bags * np.log((len(ids) + 1) / ((bags > 0).sum(axis=0) + 1)).astype(np.float32)


def held_out_of(photos: Path) -> npt.NDArray[np.uint8]:
    """The photographs that the packaged training held out, [64, S, S, 3]."""
    run = load_config("lqae-photo-128", [f"data.limit={LIMIT}"], data=photos)
    data = open_data(dataclasses.replace(run.data, workers=0), size=run.model.side, channels=3, seed=run.seed)
    return data.held_out.images.permute(0, 2, 3, 1).numpy()


def words_of(tokenizer: OnnxTokenizer, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.int32]:
    """Pictures [N, S, S, 3] -> ids of their words, in reading order."""
    return np.stack([pyramid.ids[0].ravel() for pyramid in tokenizer.encode(list(pixels))])


def untrained_words(
    tokenizer: OnnxTokenizer, taef2: Taef2Encoder, pixels: npt.NDArray[np.uint8]
) -> tuple[npt.NDArray[np.int64], torch.Tensor]:
    """The words that the same model says of the pictures with fresh weights, and TAEF2's latents of them."""
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255
    torch.manual_seed(0)
    untrained = LQAE(LqaeConfig.from_dict(tokenizer.card["model"]), torch.from_numpy(np.array(tokenizer.codebook)))
    untrained.train()  # BatchNorm takes the statistics of these pictures, for it has no others
    with torch.inference_mode():
        latents = torch.cat([taef2(part) for part in torch.split(images, 16)])
        return untrained.lookup(untrained.encode(images, (latents,))).flatten(1).numpy(), latents


def usage(ids: npt.NDArray[np.integer], words: int) -> dict[str, object]:
    """How many of the words stand in the pictures, and their perplexity."""
    shares = np.bincount(ids.ravel(), minlength=words) / ids.size
    perplexity = float(np.exp(-np.sum(shares * np.log(np.where(shares > 0, shares, 1)))))
    return {"words_used": int((shares > 0).sum()), "perplexity": perplexity}


def placed(rows: npt.NDArray[np.float32], side: int, places: int) -> npt.NDArray[np.float32]:
    """Words' vectors in reading order [N, side * side, c] -> their means in regions of the grid, [N, places^2 c]."""
    cell = side // places
    regions: npt.NDArray[np.float32] = rows.reshape(len(rows), places, cell, places, cell, -1).mean((2, 4))
    return regions.reshape(len(rows), -1)


def accuracy(values: npt.NDArray[np.float32], labels: list[str], shots: int, episodes: int) -> dict[str, object]:
    """The share of right answers, with its 95% Wilson interval."""
    random = np.random.default_rng(shots)
    of_class = {name: [place for place, label in enumerate(labels) if label == name] for name in sorted(set(labels))}
    right = 0
    for _ in range(episodes):
        classes = [str(name) for name in random.choice(list(of_class), WAYS, replace=False)]
        drawn = {name: random.choice(of_class[name], shots + 1, replace=False) for name in classes}
        support = [place for name in classes for place in drawn[name][:shots]]
        asked = classes[int(random.integers(WAYS))]
        said = nearest_prototype(values[support], np.repeat(classes, shots).tolist(), values[[drawn[asked][shots]]])
        right += said[0] == asked
    return {"accuracy": right / episodes, "interval": list(wilson_interval(right, episodes))}


if __name__ == "__main__":
    sys.exit(main())
