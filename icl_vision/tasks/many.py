"""Many images into a run folder: every answer is on disk before the next inquiry takes its place.

    outcome = classify_many(clf, paths, "runs/birds", resume=True)

Knows: what an image is known by, and how its result reads. Refuses to know: how an image is classified, how lots are
asked about and kept (``icl_vision.asking.many``).
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from icl_vision.asking.jobs import progress_bar
from icl_vision.asking.many import Outcome, Work
from icl_vision.contracts import Classification
from icl_vision.errors import ImageError, UsageError
from icl_vision.files.runs import Run, check_config, read_info, read_results
from icl_vision.images import ImageSource
from icl_vision.spelling import composed
from icl_vision.tokenizers.taking import Taking, taken_by
from icl_vision.tokenizers.words_cache import digest_of

if TYPE_CHECKING:
    from icl_vision.tasks.classify.classifier import FewShotClassifier
    from icl_vision.tasks.classify.fitted import Lot

COMMAND = "classify"


def classify_many(
    classifier: FewShotClassifier,
    images: Sequence[ImageSource] | Mapping[str, ImageSource],
    out: str | os.PathLike[str],
    *,
    resume: bool = False,
    progress: bool | None = None,
) -> Outcome:
    """Classify images into a run folder; see ``icl_vision.files.runs`` for what is in it.

    A row of the outcome has image (its name), label, probabilities, calibrated (whether these are), words, method,
    text, and error where it failed.

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
        BudgetExceededError: the budget does not allow the next inquiry. Everything answered is kept.
        LLMError: the LLM refuses for good (a wrong key, an account without money, no such model), or failed
            ``asking.jobs.FAILURES_IN_A_ROW`` times in a row. Everything answered is kept.
    """
    config = classifier.run_config()
    sources, quiet = _named(images), classifier.quietly()
    takes = taken_by(classifier.fitted.tokenizer)
    with (
        Run.open(out, COMMAND, config, seed=config["order_seed"], resume=resume) as run,
        progress_bar(len(sources), "images", progress) as done,
    ):
        identified = partial(_identified, takes=takes)
        work: Work[ImageSource, Lot] = Work(
            run,
            identified,
            quiet.read,
            quiet.ask,
            done,
            own=(ImageError,),
            known=_answers(run.results()),
        )
        work.all(sources, quiet.at_once)
        own = {composed(str(label)): str(label) for label in classifier.classes_}
        rows = [
            _row(name, work.known.get(item), work.errors.get(item), own)
            for (name, _), item in zip(sources, work.items, strict=True)
        ]
        failed = sum("error" in row for row in rows)
        usage = work.usage
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
    check_config(read_info(folder), COMMAND, classifier.run_config(), Path(folder))
    known = _answers(read_results(folder))
    missing: dict[str, ImageSource] = {}
    takes = taken_by(classifier.fitted.tokenizer)
    for name, source in sources:
        item, source = _identified(name, source, takes)
        if item not in known:
            missing[item] = source
    return list(missing.values())


def _answers(results: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """The results that answer their inquiry, by item.

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


def _identified(name: str, source: ImageSource, takes: Taking) -> tuple[str, ImageSource]:
    """What an image is known by in the journal, and the image."""
    try:
        digest, source = digest_of(source, takes)
    except ImageError:
        return f"{name}#unreadable", source  # why, is found out when it becomes words
    return f"{name}#{digest.partition(':')[2][:16]}", source


def _row(name: str, result: Any, error: str | None, own: Mapping[str, str]) -> dict[str, Any]:
    """One image's result. own: labels as this classifier spells them, by how they are composed: a journal may be of one
    fitted with the same in other characters."""
    if result is None:
        result = Classification(None, None, (), None).to_dict() | {"error": error}
    keys = ("label", "probabilities", "words", "method", "text", *(("error",) if result.get("error") else ()))
    row = {"image": name, **{key: result[key] for key in keys}}
    label, shares = row["label"], row["probabilities"]
    if isinstance(label, str):
        row["label"] = own.get(composed(label), label)
    if isinstance(shares, Mapping):
        row["probabilities"] = {own.get(composed(label), label): share for label, share in shares.items()}
    # (runs of version 0.1.0 say nothing of it: they were raw)
    return row | {"calibrated": bool(result.get("calibrated", False))}


def _named(images: Sequence[ImageSource] | Mapping[str, ImageSource]) -> list[tuple[str, ImageSource]]:
    if isinstance(images, Mapping):
        wrong = [name for name in images if not isinstance(name, str)]
        if wrong:
            raise UsageError(f"an image's name must be a str; got {wrong[0]!r}")
        return list(images.items())
    if isinstance(images, str | bytes | os.PathLike) or not isinstance(images, Sequence):
        raise UsageError(f"images must be a sequence of images or a mapping of names to images; got {type(images)}")
    return [
        (os.fsdecode(source) if isinstance(source, str | os.PathLike) else f"image-{number}", source)
        for number, source in enumerate(images)
    ]
