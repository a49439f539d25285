"""Many images into a run folder: every answer is on disk before the next question takes its place.

    outcome = classify_many(clf, paths, "runs/birds", resume=True)

Killed at any moment and called again with ``resume=True``, it goes on: images with an answer in the journal are not
asked about again, so at most those in flight are. An error is journalled as an error and asked again on resume.

Images are taken a few hundred at a time: while one lot is asked about, the next becomes words.

Knows: items, their order, when to stop. Refuses to know: how an image is classified, the journal's format (``runs``).
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import hashlib
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from icl_vision.contracts import Classification, Usage
from icl_vision.errors import (
    BudgetExceededError,
    ImageError,
    LLMStatusError,
    PromptError,
    UnknownAnswerError,
    UsageError,
)
from icl_vision.files.runs import Run, check_config, read_info, read_results
from icl_vision.images import ImageSource
from icl_vision.llms.loop import run_sync
from icl_vision.llms.remote.resilience import QUOTA_CODES
from icl_vision.spelling import composed
from icl_vision.tasks.classify.selection import first_of_each
from icl_vision.tasks.progress import progress_bar
from icl_vision.tokenizers.words_cache import digest_of
from icl_vision.tokenizers.wrapping import fingerprint

if TYPE_CHECKING:
    from icl_vision.pyramid import TokenPyramid
    from icl_vision.tasks.classify.classifier import FewShotClassifier, Group

COMMAND = "classify"

LOT = 256
"""Images that become words together: enough to keep the LLM busy meanwhile, few enough for a small memory."""

FAILURES_IN_A_ROW = 20
"""So many questions in a row that the LLM could not answer, each after all its retries, and the run stops."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended.

    folder: the run's. rows: one per image, in the order given: image (its name), label, probabilities, calibrated
    (whether these are), words, method, text, and error where it failed. answered: images asked about in this call;
    kept: known from before; failed: with an error. usage: of all answers in the run.
    """

    folder: Path
    rows: list[dict[str, Any]]
    answered: int
    kept: int
    failed: int
    usage: Usage


def classify_many(
    classifier: FewShotClassifier,
    images: Sequence[ImageSource] | Mapping[str, ImageSource],
    out: str | os.PathLike[str],
    *,
    resume: bool = False,
    progress: bool | None = None,
) -> Outcome:
    """Classify images into a run folder; see ``icl_vision.files.runs`` for what is in it.

    Args:
        classifier: fitted. Its ``errors`` is taken as "return": a bad image costs only itself.
        images: paths or other images; a mapping gives them names. A path's name is the path, another image's is its
            place in the sequence. What an image is known by on resume is its name with its content.
        out: the folder; made if missing.
        resume: go on with the run that is there, if one is. The classifier must be the same: LLM, tokenizer, examples,
            template and options are part of the run's configuration.
        progress: a bar on stderr; None only at a terminal.

    Raises:
        NotFittedError: before ``fit``.
        RunMismatchError, RunLockedError, RunError: the folder cannot be used; see ``Run.open``.
        BudgetExceededError: the budget does not allow the next question. Everything answered is kept.
        LLMError: the LLM refuses for good (a wrong key, an account without money, no such model), or failed
            ``FAILURES_IN_A_ROW`` times in a row. Everything answered is kept.
    """
    classifier._check_fitted()
    sources = _named(images)
    with (
        Run.open(out, COMMAND, run_config(classifier), seed=classifier._fitted["order_seed"], resume=resume) as run,
        # One thread writes the journal, in order, so that its fsync does not hold up the event loop.
        concurrent.futures.ThreadPoolExecutor(1, "icl-vision-journal") as writer,
        concurrent.futures.ThreadPoolExecutor(1, "icl-vision-words") as reader,
        progress_bar(len(sources), "images", progress) as done,
    ):
        work = _Work(classifier.quietly(), run, writer, done, _answers(run.results()))
        # With a batch API thousands are in flight at once: a lot must not be smaller than that.
        size = max(LOT, classifier._fitted["concurrency"])
        lots = [sources[start : start + size] for start in range(0, len(sources), size)]
        upcoming = reader.submit(work.read, lots[0]) if lots else None
        for number, _ in enumerate(lots):
            assert upcoming is not None
            lot = upcoming.result()
            upcoming = reader.submit(work.read, lots[number + 1]) if number + 1 < len(lots) else None
            try:
                run_sync(work.ask(lot))
                if work.stopped is not None:
                    raise work.stopped
            except BaseException:
                if upcoming is not None:
                    upcoming.cancel()
                raise
        rows = [work.row(name, item) for name, item in work.items]
        failed = sum("error" in row for row in rows)
        usage = sum((_usage(work.known.get(item)) for item in dict.fromkeys(i for _, i in work.items)), Usage())
        run.finish({"images": len(rows), "failed": failed, "usage": usage.to_dict(), "results": rows})
        return Outcome(run.folder, rows, work.answered, work.kept, failed, usage)


async def aclassify_many(
    classifier: FewShotClassifier,
    images: Sequence[ImageSource] | Mapping[str, ImageSource],
    out: str | os.PathLike[str],
    *,
    resume: bool = False,
    progress: bool | None = None,
) -> Outcome:
    """``classify_many`` as a coroutine, for any event loop. A cancelled wait leaves it running to its end."""
    return await asyncio.to_thread(classify_many, classifier, images, out, resume=resume, progress=progress)


def run_config(classifier: FewShotClassifier) -> dict[str, Any]:
    """What decides a fitted classifier's answers, as plain JSON: a run goes on only with the same."""
    options, asker, calibration = classifier._fitted, classifier._asker, classifier._calibration()
    prepared = classifier._prepared_of(first_of_each(classifier.examples_, options["shots"]))
    examples = [[one.label, one.text] for one in classifier.examples_]
    # A prompt with everything in it: template, induction, order, repeats.
    prompt = str(asker.question(asker.shared or prepared, classifier.examples_[0].text))
    return {
        "llm": str(getattr(classifier.llm_, "identity", classifier.llm_.profile.name)),
        "tokenizer": {"name": classifier.tokenizer_.name, "hash": fingerprint(classifier.tokenizer_)},
        "k": options["k"],
        "method": asker.method,
        "calibration": options["calibration"],
        "selection": options["selection"],
        "shots": options["shots"],
        "on_unknown": classifier.on_unknown,
        "order_seed": options["order_seed"],
        "labels": list(asker.labels),
        "examples": hashlib.sha256(repr(examples).encode()).hexdigest(),
        "prompt": hashlib.sha256(prompt.encode()).hexdigest(),
        # Only where a map is in use: raw answers are those of version 0.1.0, whose runs can be gone on with.
        **({} if calibration is None else {"probabilities": f"calibrated, temperature {calibration.temperature:.6g}"}),
    }


def missing_in(
    folder: str | os.PathLike[str],
    classifier: FewShotClassifier,
    images: Sequence[ImageSource] | Mapping[str, ImageSource],
) -> list[ImageSource]:
    """The images that ``classify_many`` with ``resume=True`` would still ask about; all of them where there is no run.

    Raises:
        RunMismatchError: the run there has another configuration. RunError: it cannot be read.
    """
    sources = _named(images)
    if not (Path(folder) / "run.json").exists():
        return [source for _, source in sources]
    check_config(read_info(folder), COMMAND, run_config(classifier), Path(folder))
    known = _answers(read_results(folder))
    missing: dict[str, ImageSource] = {}
    for name, source in sources:
        item, source = _identified(name, source)
        if item not in known:
            missing[item] = source
    return list(missing.values())


def _answers(results: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """The results that answer their question, by item.

    Version 0.1.0 journalled refused and empty answers as results without a label or a text: such are asked again.
    """
    return {
        item: result
        for item, result in results
        if not isinstance(result, Mapping)
        or result.get("label") is not None
        or result.get("probabilities") is not None
        or str(result.get("text") or "").strip()
    }


def _identified(name: str, source: ImageSource) -> tuple[str, ImageSource]:
    """What an image is known by in the journal, and the image."""
    try:
        digest, source = digest_of(source)
    except ImageError:
        return f"{name}#unreadable", source  # why, is found out when it becomes words
    return f"{name}#{digest.partition(':')[2][:16]}", source


@dataclass(slots=True)
class _Lot:
    """Images that are asked about together: the items' ids, in the order of their words."""

    ids: list[str]
    words: list[TokenPyramid | Exception]
    groups: list[Group]


@dataclass(slots=True)
class _Work:
    """One call of ``classify_many``.

    known: results by item; errors: of this call, by item; items: (name, item) of every image; seen: asked in this call.
    """

    classifier: FewShotClassifier
    run: Run
    writer: concurrent.futures.Executor
    done: Callable[[int], None]
    known: dict[str, Any]
    errors: dict[str, str] = field(default_factory=dict)
    items: list[tuple[str, str]] = field(default_factory=list)
    seen: set[str] = field(default_factory=set)
    answered: int = 0
    kept: int = 0
    failures: int = 0
    stopped: Exception | None = None

    def read(self, sources: Sequence[tuple[str, ImageSource]]) -> _Lot:
        """Words of the images that have no answer yet."""
        new: dict[str, ImageSource] = {}
        for name, source in sources:
            item, source = _identified(name, source)
            self.items.append((name, item))
            if item in self.seen:
                self.done(1)  # given twice: asked once
            elif item in self.known:
                self.kept += 1
                self.done(1)
            else:
                self.seen.add(item)
                new[item] = source
        words, groups = self.classifier._read(list(new.values()))
        return _Lot(list(new), words, groups)

    async def ask(self, lot: _Lot) -> None:
        async def found(place: int, result: Classification) -> None:
            await self._keep(lot.ids[place], result)

        await self.classifier._answer(lot.words, lot.groups, found=found)

    def row(self, name: str, item: str) -> dict[str, Any]:
        result = self.known.get(item)
        if result is None:
            empty = Classification(None, None, (), None).to_dict()
            result = empty | {"error": self.errors[item]}
        keys = ("label", "probabilities", "words", "method", "text", *(("error",) if result.get("error") else ()))
        row = {"image": name, **{key: result[key] for key in keys}}
        row |= self._spelled(row)
        # (runs of version 0.1.0 say nothing of it: they were raw)
        return row | {"calibrated": bool(result.get("calibrated", False))}

    def _spelled(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """Labels as this classifier spells them: a journal may be of one fitted with the same in other characters."""
        own = {composed(str(label)): str(label) for label in self.classifier.classes_}
        label, shares = row["label"], row["probabilities"]
        return {
            "label": own.get(composed(label), label) if isinstance(label, str) else label,
            "probabilities": {own.get(composed(one), one): share for one, share in shares.items()}
            if isinstance(shares, Mapping)
            else shares,
        }

    async def _keep(self, item: str, result: Classification) -> None:
        """Journal one result; returns when it is on disk."""
        error = result.error
        if error is None:
            document = result.to_dict()
            del document["error"]
            await self._write(self.run.record, item, document)
            self.known[item] = document
            self.failures = 0
            self.answered += 1
        elif isinstance(error, BudgetExceededError):
            # Nothing was asked, so there is nothing to journal; what is in flight may still be answered.
            self.stopped = error
            return
        else:
            await self._write(partial(self.run.record_error, usage=result.usage), item, error)
            self.errors[item] = f"{type(error).__name__}: {error}"
            if not isinstance(error, ImageError | PromptError | UnknownAnswerError):
                self.failures += 1
            if is_final(error) or self.failures >= FAILURES_IN_A_ROW:
                raise error
        self.done(1)

    async def _write(self, write: Callable[[str, Any], None], item: str, what: Any) -> None:
        # Shielded: an answer that was paid for is written down even if another question ends the run right now.
        await asyncio.shield(asyncio.get_running_loop().run_in_executor(self.writer, write, item, what))


def is_final(error: BaseException) -> bool:
    """Whether every other question would fail the same way: a wrong key, no money, no such model."""
    return isinstance(error, LLMStatusError) and (error.status in (401, 402, 403, 404) or error.code in QUOTA_CODES)


def _named(images: Sequence[ImageSource] | Mapping[str, ImageSource]) -> list[tuple[str, ImageSource]]:
    if isinstance(images, Mapping):
        wrong = [name for name in images if not isinstance(name, str)]
        if wrong:
            raise UsageError(f"an image's name must be a str; got {wrong[0]!r}")
        return list(images.items())
    if isinstance(images, str | bytes | os.PathLike) or not isinstance(images, Sequence):
        raise UsageError(f"images must be a sequence of images or a mapping of names to images; got {type(images)}")
    return [
        (os.fsdecode(source) if isinstance(source, str | os.PathLike) else f"image-{place}", source)
        for place, source in enumerate(images)
    ]


def _usage(result: Any) -> Usage:
    found = result.get("usage") if isinstance(result, Mapping) else None
    known = Usage().to_dict()
    if not isinstance(found, Mapping) or not all(isinstance(found.get(key), int) for key in known):
        return Usage()
    return Usage(**{key: found[key] for key in known})
