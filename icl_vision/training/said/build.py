"""From caption archives to trained, calibrated heads with their figures: the whole recipe of ``build describe``.

Knows: the order of the steps, what is told about them, the folder that holds the heads.
Refuses to know: how any step works, the graph.

Every figure of the recipe is of pictures that the fit in question did not see (five folds, drawn within each set);
words are then chosen from the captions of the other folds alone. Pictures of the part "test" of a set (those of COCO
that have questions as well) are left out altogether, from every set that has them. The same file twice, in one set or
in two, is one picture with the captions of both: else a fold would see what another one is measured on.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from icl_vision import checks
from icl_vision.codebook import Codebook
from icl_vision.errors import UsageError
from icl_vision.evaluation.answering.readers.items import QASet, Question
from icl_vision.evaluation.answering.readers.reading import read_captions
from icl_vision.files.storage import sha256_file, write_json, write_text, written
from icl_vision.models.nets.efficientnet import WEIGHTS_SHA256, EfficientNetLite0, load_published
from icl_vision.models.words.describe import DescribeHeads, SaidHead, word_chances
from icl_vision.models.words.photo import class_vectors, imagenet_names
from icl_vision.training.said import calibrating, fitting, measures
from icl_vision.training.said.seen import SeenPictures, logs, look_at
from icl_vision.training.said.words import LEAST_PICTURES, Tokens, holds, said_words, targets, tokens

logger = logging.getLogger(__name__)

WEIGHTS_FILE, SAID_FILE, FACTS_FILE = "heads.safetensors", "said.txt", "recipe.json"
FOLDS = 5
_TEST = "test"


@dataclass(frozen=True, slots=True)
class Captioned:
    """Captioned pictures of one or several sets. sets: the set's number of each picture [N]; names: of the sets."""

    pictures: tuple[Any, ...]
    captions: tuple[Tokens, ...]
    sets: Tensor
    names: tuple[str, ...]
    facts: tuple[Mapping[str, Any], ...]

    def __len__(self) -> int:
        return len(self.pictures)


@dataclass(frozen=True, slots=True)
class Trained:
    """heads: trained and calibrated. said: their words. facts: for the card: data, recipe and figures.

    held_out: probabilities of the words for every picture, from a fit and a calibration that did not see it [N, S]; NaN
    where that fit did not know the word.
    """

    heads: DescribeHeads
    said: tuple[str, ...]
    facts: Mapping[str, Any]
    held_out: Tensor

    def save(self, folder: Path) -> None:
        """Write ``heads.safetensors``, ``said.txt`` and ``recipe.json``. Raises UnwritableError."""
        from safetensors.torch import save_file

        with written(folder):
            folder.mkdir(parents=True, exist_ok=True)
            save_file({name: value.contiguous() for name, value in self.heads.state_dict().items()},
                      str(folder / WEIGHTS_FILE))  # fmt: skip
            write_text(folder / SAID_FILE, "\n".join(self.said) + "\n")
            write_json(folder / FACTS_FILE, self.facts)


def read(sources: Sequence[Path], terms: Sequence[str] = ()) -> Captioned:
    """The captioned pictures of archives or folders, in their order, each once, without those of a part "test".

    Args:
        sources: one or more, in a layout that ``evaluation.answering.readers`` knows.
        terms: under which each may be used, for the card; as many as sources, or none.

    Raises:
        UsageError: no source, another number of terms, an unknown layout, a caption of several pictures, or a source
            with nothing but test pictures and pictures of earlier sources.
    """
    if not sources:
        raise UsageError("give at least one archive or folder of captioned pictures")
    if terms and len(terms) != len(sources):
        raise UsageError(f"give the terms of every set of captions ({len(sources)}) or of none; got {len(terms)}")
    found: list[QASet] = [read_captions(source) for source in sources]
    keyed = [[(_content(entry, source), entry) for entry in each] for each, source in zip(found, sources, strict=True)]
    tested = {content for entries in keyed for content, entry in entries if entry.split == _TEST}
    names = _told_apart([each.name for each in found])
    pictures: list[Any] = []
    captions: list[list[str]] = []
    sets: list[int] = []
    facts: list[dict[str, Any]] = []
    places: dict[str, int] = {}
    for number, (each, entries) in enumerate(zip(found, keyed, strict=True)):
        kept = [(content, entry) for content, entry in entries if content not in tested]
        before = len(pictures)
        for content, entry in kept:
            if content not in places:
                places[content] = len(pictures)
                pictures.append(entry.pictures[0].source)
                captions.append([])
                sets.append(number)
            captions[places[content]] += entry.answers
        if len(pictures) == before:
            why = "all of them are in the sources before it" if kept else "test pictures only"
            raise UsageError(f"{str(sources[number])!r} holds no captioned pictures to learn from ({why})")
        facts.append({
            "name": names[number], "pictures": len(pictures) - before, "left_out": len(each) - len(kept),
            "sha256": each.digest(), "terms": terms[number] if terms else "unknown: see where the set comes from",
        })  # fmt: skip
    return Captioned(tuple(pictures), tuple(map(tokens, captions)), torch.tensor(sets), names, tuple(facts))


def _content(entry: Question, source: Path) -> str:
    """The sha256 of the one picture of an entry."""
    if len(entry.pictures) != 1:
        raise UsageError(
            f"{str(source)!r}: the captions of {entry.id!r} are of {len(entry.pictures)} pictures; words are learnt "
            "from captions of one picture each"
        )
    picture = entry.pictures[0].source
    if isinstance(picture, bytes):
        return hashlib.sha256(picture).hexdigest()
    try:
        return sha256_file(Path(str(picture)))
    except OSError as error:
        raise UsageError(f"{str(source)!r}: the picture {str(picture)!r} cannot be read ({error.strerror})") from error


def _told_apart(names: Sequence[str]) -> tuple[str, ...]:
    """Names of sets, each another one: the second "captions" is "captions (2)"."""
    told: dict[str, None] = {}
    for name in names:
        number = 1
        while (other := name if number == 1 else f"{name} ({number})") in told:
            number += 1
        told[other] = None
    return tuple(told)


def train_photo(
    captioned: Captioned,
    *,
    seed: int = 0,
    least: int = LEAST_PICTURES,
    told: Callable[[int], object] = lambda done: None,
) -> Trained:
    """``train`` on the trunk, class names and codebook of ``words-photo``, which have to be installed.

    Raises: as ``train``; MissingExtraError where a package of the extra "train" is missing, ArtefactNotFoundError the
    sentence model.
    """
    from icl_vision.models.words.text_embedding import SentenceEmbedder

    codebook = Codebook.load()
    vectors = torch.from_numpy(class_vectors(imagenet_names(), SentenceEmbedder(), codebook))
    trunk = load_published().fold()
    return train(captioned, trunk, vectors, codebook, seed=seed, least=least, told=told)


def train(
    captioned: Captioned,
    trunk: EfficientNetLite0,
    vectors: Tensor,
    codebook: Codebook,
    *,
    seed: int = 0,
    least: int = LEAST_PICTURES,
    recipe: fitting.Recipe | None = None,
    told: Callable[[int], object] = lambda done: None,
    seen: SeenPictures | None = None,
) -> Trained:
    """Train and calibrate the heads, and measure them.

    Args:
        captioned: at least ten pictures.
        trunk: frozen, in evaluation mode.
        vectors: of the classes [C, c], in the codebook's space.
        codebook: the words that can be said.
        seed: of the folds.
        least: pictures whose captions must hold a word.
        recipe: None for the one that the packaged heads were made with.
        told: called after some pictures were seen, with how many there were.
        seen: what the trunk sees of these very pictures, where it is known.

    Raises:
        UsageError: too few pictures, or no word is left of the captions.
        ImageError: a picture that cannot be opened.
    """
    if len(captioned) < 2 * FOLDS:
        raise UsageError(f"heads need at least {2 * FOLDS} captioned pictures; got {len(captioned)}")
    checks.count("least", least)
    chosen = fitting.Recipe() if recipe is None else recipe
    seen = look_at(captioned.pictures, trunk, told=told) if seen is None else seen
    unsaid = SaidHead(seen.features.shape[1], len(vectors), 1, 1)
    heads = DescribeHeads(trunk.classifier.weight, vectors, unsaid)
    heads.fit_regions(trunk.classifier.weight, seen.differences.flatten(0, 1))
    book = torch.from_numpy(np.array(codebook.vectors))
    shares = seen.shares(heads, book)
    weights = fitting.picture_weights(captioned.sets, chosen.most)
    ids = {word: place for place, word in enumerate(codebook.vocabulary.words)}
    views = seen.views()

    def fitted(rows: Tensor) -> tuple[list[str], Tensor, fitting.Linear]:
        """A head for these pictures: its words, their ids, its map."""
        listed = said_words([captioned.captions[row] for row in rows.tolist()], ids, least=least)
        places = torch.tensor([ids[word] for word in listed])
        said = torch.from_numpy(targets([captioned.captions[row] for row in rows.tolist()], listed)).float()
        head = fitting.fit(views[rows], logs(shares[rows], places), said, weights[rows], book[places], chosen)
        return list(listed), places, head

    everything = torch.arange(len(captioned))
    said, places, whole = fitted(everything)
    truth = torch.from_numpy(targets(captioned.captions, said_words(captioned.captions, ids, least=least)))
    folds = _folds(captioned.sets, seed)
    logits = torch.full((len(captioned), len(said)), torch.nan)
    column = {word: place for place, word in enumerate(said)}
    for fold in range(FOLDS):
        rows, others = everything[folds == fold], everything[folds != fold]
        known, known_ids, head = fitted(others)
        made = head.logits(views[rows], logs(shares[rows], known_ids))
        both = [(place, column[word]) for place, word in enumerate(known) if word in column]
        logits[rows.unsqueeze(1), torch.tensor([at for _, at in both])] = made[:, [place for place, _ in both]]
        logger.info("fold %d of %d: %d words", fold + 1, FOLDS, len(known))
    groups = calibrating.group_of(truth)
    chances = torch.full_like(logits, torch.nan)
    for fold in range(FOLDS):  # what calibrates a picture was not fitted on it (the others' heads, on it, were)
        rows, others = folds == fold, folds != fold
        scale, shift = calibrating.by_group(logits[others], truth[others], weights[others], groups)
        chances[rows] = torch.sigmoid(scale * logits[rows] + shift)
    scale, shift = calibrating.by_group(logits, truth, weights, groups)
    heads.said = whole.scaled(scale, shift).head(places, seen.features.shape[1])
    figures = {"said": _said_figures(chances, truth, said, captioned)}
    figures |= _calibrate_words(heads, seen, shares, book, codebook, captioned, weights, folds)
    return Trained(
        heads,
        tuple(said),
        {
            "data": "ImageNet-1k (ILSVRC 2012) by way of the frozen trunk, and captions: "
            + "; ".join(f"{fact['name']} ({fact['pictures']} pictures, {fact['terms']})" for fact in captioned.facts),
            "captions": [dict(fact) for fact in captioned.facts],
            "recipe": {
                "command": "icl-vision build describe",
                "seed": seed,
                "least_pictures": least,
                "folds": FOLDS,
                "fit": asdict(chosen),
                "trunk_sha256": WEIGHTS_SHA256,
            },
            "metrics": {"words": len(said), **figures},
        },
        chances,
    )


def _folds(sets: Tensor, seed: int) -> Tensor:
    """The fold of each picture [N]: every set is dealt out evenly, each from where the one before it ended."""
    generator = torch.Generator().manual_seed(seed)
    folds = torch.zeros_like(sets)
    dealt = 0
    for number in range(int(sets.max()) + 1):
        rows = torch.nonzero(sets == number).squeeze(1)
        order = rows[torch.randperm(len(rows), generator=generator)]
        folds[order] = torch.arange(dealt, dealt + len(rows)) % FOLDS
        dealt += len(rows)
    return folds


def _said_figures(chances: Tensor, truth: Tensor, said: Sequence[str], captioned: Captioned) -> dict[str, Any]:
    """Precision by set, reliability of all words and of those that are said first."""
    scores = chances.nan_to_num(nan=-1.0).numpy()
    best = measures.ranked(scores, said, max(measures.FIRST))
    figures: dict[str, Any] = {"precision": {}}
    for number, name in enumerate(captioned.names):
        rows = torch.nonzero(captioned.sets == number).squeeze(1).tolist()
        figures["precision"][name] = {
            f"first {first}": measures.precision(
                [best[row] for row in rows], [captioned.captions[row] for row in rows], first
            )
            for first in measures.FIRST
        }
    known = ~chances.isnan()
    figures["reliability"] = measures.reliability(chances[known].numpy(), truth[known].numpy())
    order = torch.from_numpy(np.argsort(-scores, axis=1, kind="stable")[:, : max(measures.FIRST)].copy())
    first = chances.gather(1, order)
    heard = truth.gather(1, order)[~first.isnan()]
    figures["reliability_of_first_10"] = measures.reliability(first[~first.isnan()].numpy(), heard.numpy())
    return figures


def _calibrate_words(
    heads: DescribeHeads,
    seen: SeenPictures,
    shares: Tensor,
    vectors: Tensor,
    codebook: Codebook,
    captioned: Captioned,
    weights: Tensor,
    folds: Tensor,
) -> dict[str, Any]:
    """Calibrate *what* and the regions in place; returns their reliability on folds that were left out."""
    best, ids = shares.topk(min(heads.k, shares.shape[1]), dim=1)
    none = torch.zeros(seen.logits.shape[1])
    parts = [
        heads.region_scores(difference, logits, vectors, none)
        for difference, logits in zip(torch.split(seen.differences, 16), torch.split(seen.logits, 16), strict=True)
    ]
    names = codebook.vocabulary.words
    what = calibrating.Words(best, ids, _right(ids, names, captioned.captions))
    region_ids = torch.cat([ids for _, ids in parts])
    regions = calibrating.Words(
        torch.cat([part for part, _ in parts]), region_ids, _right(region_ids, names, captioned.captions)
    )
    chances = (torch.zeros(what.shares.shape), torch.zeros(regions.shares.shape))
    for fold in range(FOLDS):
        rows, others = folds == fold, folds != fold
        *pair, sayable = calibrating.by_words(what.of(others), regions.of(others), weights[others], vectors)
        for place, (words, three) in enumerate(zip((what, regions), pair, strict=True)):
            says = (vectors @ sayable)[words.ids[rows]]
            chances[place][rows] = word_chances(words.shares[rows], says, three)
    of_what, of_regions, sayable = calibrating.by_words(what, regions, weights, vectors)
    heads.calibration.copy_(of_what)
    heads.region_calibration.copy_(of_regions)
    heads.sayable.copy_(sayable)
    return {
        "what": {"reliability": measures.reliability(chances[0].numpy(), what.right.numpy())},
        "where": {"reliability": measures.reliability(chances[1].numpy(), regions.right.numpy())},
    }


def _right(ids: Tensor, names: Sequence[str], captions: Sequence[Tokens]) -> Tensor:
    """Whether captions hold words, in singular or plural, of the shape of ``ids`` [N, ...]."""
    flat = [
        [holds(picture, names[place]) for place in row]
        for row, picture in zip(ids.flatten(1).tolist(), captions, strict=True)
    ]
    return torch.tensor(flat).reshape(ids.shape)
