"""The colours of describe-photo: fits how probable each name is, and counts how often the names are right.

    python benchmarks/describe_colours.py --coco COCO_FOLDER --flickr FLICKR_FOLDER [--out FILE.json]

Knows: captions, what the fit is, what is counted. Refuses to know: how pixels get their names (tokenizers/describe).

Only tuning data is read: flickr8k-800, the COCO pictures with captions and without questions, and, for the questions,
those with questions and without captions. Figures on captions are of five folds, each predicted by the fit of the four
others; figures on questions are of the fit on all captions. It prints the weights as colours.py has them.

A colour counts as said of a picture if one of its five captions holds the word ("grey" counts as gray).
"""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
from _common import header, write

FOLDS = 5
SPREAD = 0.3  # inverse strength of the pull of weights to 0


def captioned(coco: Path, flickr: Path) -> list[tuple[Path, list[str]]]:
    lines = (flickr / "captions.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [(flickr / row["file"], row["captions"]) for row in map(json.loads, lines)]
    index = json.loads((coco / "index.json").read_text(encoding="utf-8"))
    return rows + [(coco / row["file"], row["captions"]) for row in index if row["captions"] and not row["cocoqa"]]


def asked(coco: Path) -> list[tuple[Path, str, str]]:
    index = json.loads((coco / "index.json").read_text(encoding="utf-8"))
    return [
        (coco / row["file"], question["question"], question["answer"])
        for row in index
        if not row["captions"]
        for question in row["cocoqa"]
        if question["type"] == "color"
    ]


def pictures(paths: list[Path]) -> list[Any]:
    """As the tokenizer looks at them."""
    from icl_vision.images import load_image
    from icl_vision.tokenizers.pixels import Preprocessing

    return [Preprocessing(224).apply(load_image(path)) for path in paths]


def said(captions: list[str], names: tuple[str, ...]) -> list[bool]:
    words = set(re.findall("[a-z]+", " ".join(captions).lower().replace("grey", "gray")))
    return [name in words for name in names]


def fit(features: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Bias and weights of one name, for features [n, d] and truth [n]."""
    from sklearn.linear_model import LogisticRegression

    mean, spread = features.mean(0), features.std(0) + 1e-6
    model = LogisticRegression(C=SPREAD).fit((features - mean) / spread, truth)
    weights = model.coef_[0] / spread
    return np.concatenate([[model.intercept_[0] - (weights * mean).sum()], weights])


def probabilities(features: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """[n, names] of features [n, names, d] and weights [names, 1 + d]."""
    return 1 / (1 + np.exp(-(weights[:, 0] + (features * weights[:, 1:]).sum(2))))


def crossed(features: np.ndarray, truth: np.ndarray) -> np.ndarray:
    fold = np.arange(len(features)) * 7919 % FOLDS
    chances = np.zeros(truth.shape)
    for held in range(FOLDS):
        kept = fold != held
        weights = np.stack([fit(features[kept, name], truth[kept, name]) for name in range(truth.shape[1])])
        chances[~kept] = probabilities(features[~kept], weights)
    return chances


def counted(chances: np.ndarray, truth: np.ndarray) -> dict[str, Any]:
    """How the first three names do in pictures of which a colour was said, and what probabilities are worth."""
    some = truth.any(1)
    first = np.argsort(-chances, axis=1, kind="stable")[:, :3]
    hits = np.take_along_axis(truth, first, 1)[some]
    clipped = chances.clip(1e-6, 1 - 1e-6)
    loss = -(truth * np.log(clipped) + (~truth) * np.log(1 - clipped)).sum(1).mean()
    edges = np.quantile(chances, np.linspace(0, 1, 11))
    bins = np.clip(np.searchsorted(edges, chances.ravel(), side="right") - 1, 0, 9)
    error = sum(
        abs(chances.ravel()[bins == one].mean() - truth.ravel()[bins == one].mean()) * (bins == one).mean()
        for one in range(10)
        if (bins == one).any()
    )
    return {
        "pictures": int(some.sum()),
        "a_said_colour_among_first_3": round(float(hits.any(1).mean()), 3),
        "said_colours_among_first_3": round(float((hits.sum(1) / np.minimum(3, truth[some].sum(1))).mean()), 3),
        "first_is_said": round(float(hits[:, 0].mean()), 3),
        "log_loss_a_picture": round(float(loss), 3),
        "calibration_error": round(float(error), 4),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--coco", type=Path, required=True)
    parser.add_argument("--flickr", type=Path, required=True)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    from icl_vision.tokenizers.describe import colours

    rows = captioned(arguments.coco, arguments.flickr)
    images = pictures([path for path, _ in rows])
    truth = np.array([said(captions, colours.NAMES) for _, captions in rows])
    means = colours.mean_shares(images)
    features = colours.picture_features(means)
    regions = np.log(colours.region_shares(means) + colours._LEAST)
    document: dict[str, Any] = {**header(), "captioned_pictures": len(rows)}
    document["captions"] = {
        "ours": counted(crossed(features, truth), truth),
        "most_said_names_always": counted(np.tile(truth.mean(0), (len(truth), 1)), truth),
        "share_of_the_whole": counted(crossed(features[:, :, 1:2], truth), truth),
    }
    weights = np.stack([fit(features[:, name], truth[:, name]) for name in range(len(colours.NAMES))])
    lines = []
    for name, colour in enumerate(colours.COLOURS):
        flat = regions[:, :, name].reshape(-1, 1)
        region = fit(flat, np.repeat(truth[:, name], len(colours.REGIONS)))
        row = (f"({', '.join(f'{value:.2f}' for value in values)})" for values in (weights[name], region))
        lines.append(f'    Colour("{colour.name}", "{colour.samples}", {", ".join(row)}),')
    print("\n".join(lines))
    questions = asked(arguments.coco)
    answers = [colours.NAMES.index(answer.replace("grey", "gray")) for _, _, answer in questions]
    chances = probabilities(
        colours.picture_features(colours.mean_shares(pictures([path for path, *_ in questions]))), weights
    )
    ranks = {"ours": chances, "most_said_names_always": np.tile(truth.mean(0), (len(answers), 1))}
    document["questions"] = {"n": len(answers)} | {
        way: {
            f"answer_among_first_{most}": int(
                sum(
                    answer in np.argsort(-row, kind="stable")[:most] for answer, row in zip(answers, rows_, strict=True)
                )
            )
            for most in (1, 3, 5)
        }
        for way, rows_ in ranks.items()
    }
    print(json.dumps({key: document[key] for key in ("captioned_pictures", "captions", "questions")}, indent=2))
    if arguments.out:
        write(arguments.out, document)


if __name__ == "__main__":
    main()
