"""Many questions, or captions, into a run folder: every answer is on disk before the next inquiry takes its place.

    outcome = answer_many(qa, paths, questions, out="runs/kitchen", resume=True)

Knows: what a question about pictures is known by, and how its result reads. Refuses to know: how it is answered, how
lots are asked about and kept (``icl_vision.asking.many``).
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from icl_vision.asking.jobs import progress_bar
from icl_vision.asking.many import Outcome, Work
from icl_vision.contracts import Answer
from icl_vision.errors import ImageError, PromptError, UsageError
from icl_vision.files.reading import loads
from icl_vision.files.runs import Run, check_config, read_info, read_results, read_usage
from icl_vision.files.storage import json_text
from icl_vision.pyramid import TokenPyramid
from icl_vision.tasks.answer.answered import Asked, Wording, as_queries
from icl_vision.tasks.answer.captioner import Captioner
from icl_vision.tasks.answer.fitted import Lot
from icl_vision.tasks.answer.pictures import Described, to_dict
from icl_vision.tasks.answer.visual_qa import VisualQA
from icl_vision.tokenizers.words_cache import digest_of

AnsweringTask = VisualQA | Captioner

COMMANDS: Mapping[type, str] = {VisualQA: "answer", Captioner: "caption"}
"""What a run of each task is called in its run.json."""


def answer_many(
    task: AnsweringTask,
    images: Any,
    questions: Iterable[str | None] | str | None = None,
    *,
    out: str | os.PathLike[str],
    choices: Sequence[str] | Sequence[Sequence[str]] | None = None,
    resume: bool = False,
    progress: bool | None = None,
) -> Outcome:
    """Answer questions, or caption pictures, into a run folder; see ``icl_vision.files.runs`` for what is in it.

    A row of the outcome has image (its name, a list of names where there are several), question, text, words,
    probability, calibrated, probabilities, method, examples, raw, note, and error where it failed.

    Args:
        task: fitted. Its ``errors`` is taken as "return": a bad image or question costs only itself.
        images, questions, choices: as for ``VisualQA.answers``; for a ``Captioner`` images alone. A path's name is the
            path, another image's is its place in the sequence. What a question is known by on resume is its text, its
            choices, and its images' names with their content.
        out: the folder; made if missing.
        resume: go on with the run that is there, if one is. The task must be the same: LLM, tokenizer, examples,
            template and options are part of the run's configuration.
        progress: a bar on stderr; None only at a terminal.

    Raises:
        NotFittedError: before ``fit``. UsageError, PromptError: images, questions and choices that do not fit together.
        RunMismatchError, RunLockedError, RunError: the folder cannot be used; see ``Run.open``.
        BudgetExceededError: the budget does not allow the next inquiry. Everything answered is kept.
        LLMError: the LLM refuses for good (a wrong key, an account without money, no such model), or failed
            ``asking.jobs.FAILURES_IN_A_ROW`` times in a row. Everything answered is kept.
    """
    config = task.run_config()
    sources = _named(task, images, questions, choices)
    with (
        Run.open(out, COMMANDS[type(task)], config, seed=config.get("order_seed"), resume=resume) as run,
        progress_bar(len(sources), "answers", progress) as done,
    ):
        quiet = task.quietly().sharing_budget(read_usage(run.folder))
        work: Work[Asked, Lot] = Work(
            run,
            _identified,
            quiet.read,
            quiet.ask,
            done,
            own=(ImageError, PromptError, UsageError),
            known=dict(run.results()),
        )
        work.all(sources, quiet.at_once)
        rows = [
            _row(name, asked.question, work.known.get(item), work.errors.get(item))
            for (name, asked), item in zip(sources, work.items, strict=True)
        ]
        failed = sum("error" in row for row in rows)
        usage = work.usage
        run.finish({"questions": len(rows), "failed": failed, "usage": usage.to_dict(), "results": rows})
        return Outcome(run.folder, rows, work.answered, work.kept, failed, usage)


async def aanswer_many(
    task: AnsweringTask,
    images: Any,
    questions: Iterable[str | None] | str | None = None,
    *,
    out: str | os.PathLike[str],
    choices: Sequence[str] | Sequence[Sequence[str]] | None = None,
    resume: bool = False,
    progress: bool | None = None,
) -> Outcome:
    """``answer_many`` as a coroutine, for any event loop. A cancelled wait leaves it running to its end."""
    return await asyncio.to_thread(
        answer_many, task, images, questions, out=out, choices=choices, resume=resume, progress=progress
    )


def missing_in(
    folder: str | os.PathLike[str],
    task: AnsweringTask,
    images: Any,
    questions: Iterable[str | None] | str | None = None,
    *,
    choices: Sequence[str] | Sequence[Sequence[str]] | None = None,
) -> list[int]:
    """Which questions, by their number from 0, ``answer_many`` with ``resume=True`` would still ask; all where there is
    no run.

    Raises:
        RunMismatchError: the run there has another configuration. RunError: it cannot be read.
    """
    sources = _named(task, images, questions, choices)
    if not (Path(folder) / "run.json").exists():
        return list(range(len(sources)))
    check_config(read_info(folder), COMMANDS[type(task)], task.run_config(), Path(folder))
    known = {item for item, _ in read_results(folder)}
    missing: dict[str, int] = {}
    for number, (name, asked) in enumerate(sources):
        item, _ = _identified(name, asked)
        if item not in known:
            missing.setdefault(item, number)
    return list(missing.values())


def _named(task: AnsweringTask, images: Any, questions: Any, choices: Any) -> list[tuple[str, Asked]]:
    """The queries, each with the names of its pictures, as one text."""
    wording = Wording(*task.wording, task.fitted.builder.template.literals)
    asked = as_queries(images, questions, choices, wording, keep_errors=True)
    return [(json_text([_name(source, number) for source in one.pictures]), one) for number, one in enumerate(asked)]


def _name(source: object, number: int) -> str:
    return os.fsdecode(source) if isinstance(source, str | os.PathLike) else f"image-{number}"


def _identified(name: str, asked: Asked) -> tuple[str, Asked]:
    """What a question is known by in the journal, and it with its pictures in a form that can be read again."""
    known: list[Any] = []
    pictures: list[Any] = []
    for own, source in zip(loads(name), asked.pictures, strict=True):
        if isinstance(source, TokenPyramid | Described):
            digest = f"words:{hashlib.sha256(json_text(to_dict(source)).encode()).hexdigest()}"
        else:
            try:
                digest, source = digest_of(source)
            except ImageError:
                digest = ":unreadable"  # why, is found out when it becomes words
        known.append(f"{own}#{digest.partition(':')[2][:16]}")
        pictures.append(source)
    choices = [] if asked.choices is None else [list(asked.choices)]
    return json_text([*known, asked.question, *choices]), asked._replace(pictures=tuple(pictures))


def _row(name: str, question: str | None, result: Any, error: str | None) -> dict[str, Any]:
    """One question's result."""
    if result is None:
        result = Answer("", (), None, None).to_dict() | {"error": error}
    names = loads(name)
    told = {key: value for key, value in result.items() if key not in ("usage", "error")}
    failed = {"error": result["error"]} if result.get("error") else {}
    return {"image": names[0] if len(names) == 1 else names, "question": question, **told, **failed}
