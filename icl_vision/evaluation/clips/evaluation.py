"""How much of clips their words keep: a clip tokenizer at every depth, beside what the same words give otherwise.

Knows: rows, run folders, means over groups of clips, paired differences. Refuses to know: torch, command lines, pages.

A row is one way to make a clip again (``clips.baselines`` has those without a clip tokenizer). Every row is measured on
the same clips, as the tokenizer takes them: at its frames and its size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from icl_vision.errors import UsageError
from icl_vision.evaluation.clips import distance
from icl_vision.evaluation.clips.baselines import (
    Frames,
    KeyFrames,
    Row,
    by_file,
    bytes_of_words,
    image_uses,
    mean_frame,
    middle_frame,
)
from icl_vision.evaluation.clips.distance import ClipFeatures
from icl_vision.evaluation.clips.measures import METRICS, clip_measures
from icl_vision.evaluation.clips.sets import NamedClip
from icl_vision.evaluation.kit.bootstrap import METHOD
from icl_vision.evaluation.kit.metrics import RunningMean
from icl_vision.evaluation.kit.paired_means import paired_mean
from icl_vision.evaluation.reconstruction import checked_counts, word_usage

if TYPE_CHECKING:
    from icl_vision.files.runs import Run
    from icl_vision.pyramid import TokenPyramid

ALL: Final = "all"
MIDDLE, MEAN, BEST_IMAGE = "middle frame", "mean frame", "best image use"
FILES: Final = {"webp": "WebP", "gif": "GIF"}


@dataclass(slots=True)
class ClipEvaluation:
    """Measures clips made again.

    Args:
        clips: as the tokenizer takes them (``sets.squared``), names of their own.
        tokenizer: a clip tokenizer that decodes; None measures what needs none.
        words: without a tokenizer, the number of words that the other rows may spend, and of their vocabulary.
        ks: numbers of words to decode from; None for every number that fills whole layers.
        image: an image tokenizer that decodes, for the rows of key frames; None leaves them out.
        files: whether animated files of as many bytes are measured.
        perceptual: LPIPS, or None. features: for a distance of sets, or None.
        groups: clips by name that are summed up apart.
        batch: clips in memory at once.

    Raises:
        UsageError: no clips, names twice, a tokenizer that cannot decode, neither a tokenizer nor ``words``.
        PyramidError: a ``k`` that does not fill whole layers.
    """

    clips: Sequence[NamedClip]
    tokenizer: Any = None
    words: tuple[int, int] | None = None
    ks: Sequence[int] | None = None
    image: Any = None
    files: bool = True
    perceptual: Callable[[Frames, Frames], Any] | None = None
    features: ClipFeatures | None = None
    groups: Mapping[str, set[str]] = field(default_factory=dict)
    batch: int = 8
    _encoded: tuple[tuple[str, ...], list[TokenPyramid]] | None = None
    _keys: KeyFrames | None = None

    def __post_init__(self) -> None:
        names = [clip.name for clip in self.clips]
        if not names or len(set(names)) != len(names):
            raise UsageError(f"give clips with a name of its own each; got {len(names)} of {len(set(names))} names")
        if self.tokenizer is None:
            if self.words is None:
                raise UsageError("without a clip tokenizer say how many words the others may spend: words=(k, V)")
            self.ks = ()
            return
        self.ks = checked_counts(self.tokenizer, self.ks)
        self.words = self.ks[-1], len(self.tokenizer.vocabulary)

    @property
    def most(self) -> int:
        """Words of the deepest row, which the others may spend."""
        assert self.words is not None
        return self.words[0]

    def rows(self) -> list[Row]:
        """All rows, in order."""
        rows = [Row(f"{k} words", f"the tokenizer, from {k} words", self._decoder(k), k) for k in self.ks or ()]
        rows.append(Row(MIDDLE, "the middle frame repeated, its own pixels", _each(middle_frame)))
        rows.append(Row(MEAN, "the mean of all frames repeated: of all stills the nearest", _each(mean_frame)))
        rows += self._image_rows()
        if self.files:
            assert self.words is not None
            most = bytes_of_words(*self.words)
            for kind, said in FILES.items():
                what = f"{said} of as many bytes as {self.most} words ({most:,}), the best of many settings"
                rows.append(Row(f"{said}, {most:,} bytes", what, by_file(kind, most), self.most))
        return rows

    def measure(self, run: Run, *, done: Callable[[int], object] | None = None) -> None:
        """Journal every clip that the run does not hold yet. done: called with how many were finished."""
        left, rows = [clip for clip in self.clips if clip.name not in run.done], self.rows()
        for start in range(0, len(left), self.batch):
            part = left[start : start + self.batch]
            results: list[dict[str, Any]] = [{"rows": {}} for _ in part]
            for row in rows:
                made = row.make([clip.frames for clip in part])
                for clip, again, result in zip(part, made, results, strict=True):
                    result["rows"][row.name] = clip_measures(clip.frames, again, self.perceptual)
            if self.tokenizer is not None:
                for result, pyramid in zip(results, self._words([clip.frames for clip in part]), strict=True):
                    result["ids"] = [layer.ravel().tolist() for layer in pyramid.ids]
            for clip, result in zip(part, results, strict=True):
                run.record(clip.name, result)
            if done is not None:
                done(len(part))

    def summary(self, run: Run) -> dict[str, Any]:
        """{n, groups, rows, best_image, pairs, words, methods} of a finished run."""
        results = dict(run.results())
        groups = {ALL: {clip.name for clip in self.clips}, **self.groups}
        rows = [self._summed(row, results, groups) for row in self.rows()]
        best = self._best_image(rows)
        return {
            "n": len(results),
            "groups": {name: len(members & set(results)) for name, members in groups.items()},
            "rows": rows,
            "best_image": best,
            "pairs": list(self._pairs(results, groups, best)),
            "words": self._usage(results),
            "methods": {"interval": METHOD},
        }

    def frechet(self, rows: Sequence[str] | None = None) -> dict[str, Any] | None:
        """The distance of the set of originals and of every row's (of these, by name); None without ``features``."""
        tool = self.features
        if tool is None:
            return None
        parts = [self.clips[start : start + self.batch] for start in range(0, len(self.clips), self.batch)]
        frames = [[clip.frames for clip in part] for part in parts]
        real = distance.gather(frames, tool)
        return {
            "name": tool.name,
            "n": len(self.clips),
            "at": {
                row.name: distance.frechet(real, distance.gather((row.make(part) for part in frames), tool))
                for row in self.rows()
                if rows is None or row.name in rows
            },
        }

    # Rows.

    def _decoder(self, k: int) -> Callable[[Sequence[Frames]], list[Frames]]:
        layers = self.tokenizer.layout.layers_for(k)

        def make(clips: Sequence[Frames]) -> list[Frames]:
            decoded = self.tokenizer.decode([pyramid.truncate(layers) for pyramid in self._words(clips)])
            return [np.stack([np.asarray(image) for image in clip]) for clip in decoded]

        return make

    def _words(self, clips: Sequence[Frames]) -> list[TokenPyramid]:
        """The words of these clips; those of the last clips asked for are kept, for the rows of all depths."""
        key = tuple(str(hash(clip.tobytes())) for clip in clips)
        if self._encoded is None or self._encoded[0] != key:
            self._encoded = key, self.tokenizer.encode(list(clips))
        return self._encoded[1]

    def _image_rows(self) -> list[Row]:
        if self.image is None:
            return []
        frames, layout = len(self.clips[0].frames), self.image.layout
        # For the deepest row every way to spend its words, for the others the finest pyramid that fits.
        uses = {use for k in self.ks or () for use in image_uses(layout, k, frames)[-1:]}
        uses |= set(image_uses(layout, self.most, frames))
        # Frame by frame: the finest pyramid of which every frame can have one.
        by_frame = [words for words in layout.cumulative if frames * words <= self.most]
        uses |= {(frames, words) for words in by_frame[-1:]}
        self._keys = self._keys or KeyFrames(self.image)
        return [
            Row(_use(*use), _use_said(self.image.name, *use), self._keys.by(*use), use[0] * use[1])
            for use in sorted(uses, key=lambda use: (use[0] * use[1], use))
        ]

    # Sums.

    def _summed(self, row: Row, results: Mapping[str, Any], groups: Mapping[str, set[str]]) -> dict[str, Any]:
        summed: dict[str, Any] = {"row": row.name, "what": row.what, "k": row.k, "groups": {}}
        for name, members in groups.items():
            means = {metric: RunningMean() for metric in (*METRICS, "movement")}
            for clip, result in results.items():
                if clip in members:
                    for metric, mean in means.items():
                        if (value := result["rows"][row.name].get(metric)) is not None:
                            mean.add(value)
            summed["groups"][name] = {metric: mean.to_dict() for metric, mean in means.items()}
        over = [result["rows"][row.name]["over_time"] for result in results.values()]
        summed["over_time"] = {
            metric: np.mean([each[metric] for each in over], axis=0).tolist() for metric in (over[0] if over else ())
        }
        return summed

    def _best_image(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, str]:
        """For every k the row of the image tokenizer with the highest PSNR that spends no more."""
        best = {}
        names = {row.name for row in self._image_rows()}
        for k in {*(self.ks or ()), self.most}:
            fitting = [row for row in rows if row["row"] in names and row["k"] <= k]
            if fitting:
                best[str(k)] = max(fitting, key=lambda row: row["groups"][ALL]["psnr"]["mean"])["row"]
        return dict(sorted(best.items(), key=lambda pair: int(pair[0])))

    def _pairs(
        self, results: Mapping[str, Any], groups: Mapping[str, set[str]], best: Mapping[str, str]
    ) -> Iterator[dict[str, Any]]:
        """The tokenizer at each depth against the depth before and every row of no more words, clip by clip."""
        others = [row for row in self.rows() if not row.name.endswith(" words") or row.k is None]
        files = [row.name for row in others if row.name.startswith(tuple(FILES.values()))]
        for number, k in enumerate(self.ks or ()):
            against = {MIDDLE: MIDDLE, MEAN: MEAN}
            if str(k) in best:
                against[BEST_IMAGE] = best[str(k)]
            if k == self.most:
                against |= {name: name for name in files}
            if number:
                before = f"{(self.ks or ())[number - 1]} words"
                against[before] = before
            for said, other in against.items():
                for group, members in groups.items():
                    for metric, higher in METRICS.items():
                        pair = _compared(results, members, f"{k} words", other, metric, higher)
                        if pair is not None:
                            yield {"k": k, "second": said, "row": other, "group": group, "metric": metric, **pair}

    def _usage(self, results: Mapping[str, Any]) -> list[dict[str, Any]]:
        if self.tokenizer is None:
            return []
        counts = [np.zeros(len(self.tokenizer.vocabulary), dtype=np.int64) for _ in self.tokenizer.layout.counts]
        for result in results.values():
            for count, ids in zip(counts, result["ids"], strict=True):
                np.add.at(count, np.asarray(ids), 1)
        return [word_usage(number, count) for number, count in enumerate(counts, start=1)]


def _each(make: Callable[[Frames], Frames]) -> Callable[[Sequence[Frames]], list[Frames]]:
    return lambda clips: [make(clip) for clip in clips]


def _use(keys: int, words: int) -> str:
    return f"{keys} x {words} image words"


def _use_said(name: str, keys: int, words: int) -> str:
    frames = "the middle frame, repeated" if keys == 1 else f"{keys} key frames, blended between"
    return f"{name}, {words} words a frame: {frames}"


def _compared(
    results: Mapping[str, Any], members: set[str], first: str, second: str, metric: str, higher: bool
) -> dict[str, Any] | None:
    pairs = [
        (result["rows"][first].get(metric), result["rows"][second].get(metric))
        for clip, result in results.items()
        if clip in members
    ]
    both = [(a, b) for a, b in pairs if a is not None and b is not None]
    if not both:
        return None
    return paired_mean([a for a, _ in both], [b for _, b in both], higher_is_better=higher).to_dict()
