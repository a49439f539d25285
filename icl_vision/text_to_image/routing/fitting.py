"""Fits a router: counts by scikit-learn's naive Bayes, its probabilities calibrated on templates that it did not see.

Knows: instructions, folds, thresholds. Refuses to know: files, LLMs.

Templates, not lines, go into folds: a template filled with other things is no new instruction. What fills them goes
into folds too, so that a line left out names a thing that was left out, as a user's lines will. On every fold's
templates the log-odds of counts that did not see them are kept; a logistic curve through all of these (Platt 1999)
makes them probabilities, and the thresholds are set by them: drawn is what is so probable that of the lines that want
text no more than ``FALSE_DRAWS`` are drawn; answered in text is what is so improbable that no more than ``WRONG_TEXTS``
of it want a picture. Every template counts once, into however many lines it was filled.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from icl_vision.errors import MissingExtraError, UsageError
from icl_vision.probabilities.measuring import reliability
from icl_vision.text_to_image.router import LENGTH_POWER, MOST_FEATURES, Calibration, Router
from icl_vision.text_to_image.routing.features import features
from icl_vision.text_to_image.routing.lines import MOST_FILLED, Instruction

SMOOTHING = 2.0
"""Added to every count; a word on one line of one template counts 4 to 16."""
FOLDS = 10
THING_FOLDS = 5
LEAST = 20
"""Templates of each route."""
FALSE_DRAWS = 0.015
"""Of the packaged instructions half of those that want text are hard ones, which speak of pictures; of users' lines few
are, so that fewer of them are drawn (docs/text-to-image.md)."""
WRONG_TEXTS = 0.015

Floats = npt.NDArray[np.float64]


def fit_router(instructions: Sequence[Instruction], *, seed: int = 0) -> Router:
    """A router for these instructions.

    Args:
        instructions: at least ``LEAST`` of each route.
        seed: of the folds.

    Raises:
        UsageError: too few instructions of a route, or more features than a router may have.
        MissingExtraError: without scikit-learn.
    """
    try:
        from scipy.sparse import csr_matrix
        from sklearn.feature_extraction import DictVectorizer
        from sklearn.linear_model import LogisticRegression
    except ImportError as error:
        raise MissingExtraError("fitting a router (scikit-learn)", "t2i") from error
    met = Counter(one.route for one in instructions)
    if min(met["draw"], met["text"]) < LEAST:
        raise UsageError(
            f"a router is fitted to {LEAST} or more instructions of each route; got {met['draw']} of 'draw' and "
            f"{met['text']} of 'text' (the packaged ones can be learnt along)"
        )
    lines = [(place, text) for place, one in enumerate(instructions) for text in one.texts]
    owner = np.array([place for place, _ in lines])
    draw = np.array([one.route == "draw" for one in instructions])[owner]
    # A whole number, so that counts stay whole: a template's lines weigh together what a line alone weighs.
    weight = np.array([MOST_FILLED // len(one.texts) for one in instructions])[owner]
    vectors = DictVectorizer(dtype=np.float64)
    table = csr_matrix(vectors.fit_transform([features(text) for _, text in lines]))
    if table.shape[1] > MOST_FEATURES:
        raise UsageError(f"these instructions have {table.shape[1]:,} features; a router may have {MOST_FEATURES:,}")
    folds = np.random.default_rng(seed).permutation(len(instructions))[owner] % FOLDS
    things = np.array([place for one in instructions for place in one.things])
    odds = np.full(len(lines), np.nan)
    for fold in range(FOLDS):
        thing = np.where(things < 0, -1, things % THING_FOLDS)
        met_there = thing == fold % THING_FOLDS
        inside, outside = (folds != fold) & ~met_there, (folds == fold) & (met_there | (thing < 0))
        if len(set(draw[inside])) < 2:  # few things fill all there is of a route: they cannot be left out as well
            inside, outside = folds != fold, folds == fold
        if outside.any():
            odds[outside] = _log_odds(_counts(table[inside], draw[inside], weight[inside]), table[outside])
    tried = np.isfinite(odds)  # a template's lines need not name a thing that was left out with it
    _, owner_of = np.unique(owner[tried], return_inverse=True)
    share = (1.0 / np.bincount(owner_of))[owner_of]
    platt = LogisticRegression(C=100.0).fit(odds[tried, None], draw[tried], sample_weight=share)
    slope, offset = float(platt.coef_[0, 0]), float(platt.intercept_[0])
    if slope <= 0:
        raise UsageError("nothing in these instructions tells one route from the other on templates left out")
    held_out = 1.0 / (1.0 + np.exp(-(slope * odds[tried] + offset)))
    calibration = Calibration(round(slope, 6), round(offset, 6), *_thresholds(held_out, draw[tried], share))
    counts = _counts(table, draw, weight)
    facts = {
        "templates": len(instructions),
        "routes": {"draw": met["draw"], "text": met["text"]},
        "languages": dict(sorted(Counter(one.language for one in instructions).items())),
        "lines": len(lines),
        "seed": seed,
        "held_out": _measured(held_out, draw[tried], share, owner_of, calibration),
    }
    names = [str(name) for name in vectors.get_feature_names_out()]
    return Router(names, counts.astype(np.int64), smoothing=SMOOTHING, calibration=calibration, facts=facts)


def _counts(table: Any, draw: npt.NDArray[np.bool_], weight: npt.NDArray[np.int64]) -> Floats:
    """[2, features]: weighted features on lines of each route, as scikit-learn counts them."""
    from sklearn.naive_bayes import MultinomialNB

    model = MultinomialNB(alpha=SMOOTHING, fit_prior=False).fit(table, ~draw, sample_weight=weight)
    return np.asarray(model.feature_count_)  # of False (draw), then of True (text)


def _log_odds(counts: Floats, table: Any) -> Floats:
    """As ``Router.log_odds``, of every row; features that the counts have not met count for nothing."""
    seen = counts.sum(axis=0) > 0
    smoothed = counts[:, seen] + SMOOTHING
    logs = np.log(smoothed) - np.log(smoothed.sum(axis=1, keepdims=True))
    known = table[:, seen]
    total = np.maximum(1.0, np.asarray(known.sum(axis=1)).ravel())
    odds: Floats = np.asarray(known @ (logs[0] - logs[1])) / total**LENGTH_POWER
    return odds


def _thresholds(probability: Floats, draw: npt.NDArray[np.bool_], weight: Floats) -> tuple[float, float]:
    """draw_from and text_below, in hundredths."""
    steps = np.arange(0, 101) / 100
    text = weight[~draw].sum()
    false = np.array([weight[~draw & (probability >= step)].sum() / text for step in steps])
    draw_from = float(steps[max(50, int(np.argmax(false <= FALSE_DRAWS)))]) if (false <= FALSE_DRAWS).any() else 1.0
    below = [weight[probability < step].sum() for step in steps]
    wrong = [weight[draw & (probability < step)].sum() for step in steps]
    good = [
        step
        for step, all_of_it, wrongly in zip(steps, below, wrong, strict=True)
        if step <= 0.5 and wrongly <= WRONG_TEXTS * all_of_it
    ]
    return draw_from, float(max(good))


def _measured(
    probability: Floats,
    draw: npt.NDArray[np.bool_],
    weight: Floats,
    owner: npt.NDArray[np.intp],
    calibration: Calibration,
) -> dict[str, Any]:
    """What the router does on templates that its counts did not see (its curve and thresholds were set on them)."""
    drawn, texted = probability >= calibration.draw_from, probability < calibration.text_below
    sure = drawn | texted
    share = weight / weight.sum()
    right = (drawn & draw) | (texted & ~draw)
    first = np.unique(owner, return_index=True)[1]  # a line of each template, for bins that count templates
    guess = probability[first] >= 0.5
    fit = reliability(np.maximum(probability, 1 - probability)[first], guess == draw[first])
    document = fit.to_dict()
    del document["bins"]
    return {
        "abstained": float(share[~sure].sum()),
        "accuracy_where_sure": float(share[right].sum() / share[sure].sum()) if sure.any() else math.nan,
        "text_drawn": float(share[drawn & ~draw].sum() / share[~draw].sum()),
        "reliability": document,
    }
