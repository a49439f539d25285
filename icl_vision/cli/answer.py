"""`icl-vision answer`: questions about images.

Knows: where questions come from. Refuses to know: how a question is answered, how answers read.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from icl_vision.cli.options.answering import AnsweringOptions, answering_options
from icl_vision.cli.options.common import expand

if TYPE_CHECKING:
    from icl_vision.tasks.answer.files import Entry


@click.command()
@click.argument("images", nargs=-1, metavar="[IMG...]", type=click.Path(path_type=Path))
@click.option(
    "--question",
    "asked",
    multiple=True,
    metavar="TEXT",
    help="What is asked of every IMG. Repeat it for several questions.",
)
@click.option(
    "--questions",
    "file",
    metavar="FILE.jsonl|DIR",
    type=click.Path(exists=True, path_type=Path),
    help='Instead of IMG: a line {"image": ..., "question": ...} for each question, images relative to the file. An '
    '"answer" in it, a text or a list of texts, is not shown to the LLM: it is the truth that results are held '
    "against.",
)
@click.option(
    "--choices",
    metavar="A,B,...",
    help="Answers to choose among, separated by commas. Only one of them is answered then. Default: any answer.",
)
@click.option(
    "--ways",
    type=click.IntRange(min=2),
    help="Show examples of so many different answers, --shots of each: the papers' 10-way 1-shot. Default: any "
    "answers, --shots examples in all.",
)
@click.option(
    "--scoring",
    type=click.Choice(["auto", "fused", "greedy", "direct", "constrained", "parse"]),
    default="auto",
    show_default=True,
    help="How an answer is found; auto takes the best that the LLM offers. fused: what the LLM and the image's words "
    "say of each candidate, weighed together; greedy: what it writes. With --choices: direct, constrained, parse.",
)
@click.option(
    "--focus/--no-focus",
    default=True,
    show_default=True,
    help="Of an image's words, take those that bear on the question, where the tokenizer can tell which; the others "
    "confuse a small LLM.",
)
@click.option("--template", default="answer", show_default=True, help="Prompt template, by name.")
@click.option(
    "--answer-tokens",
    "max_tokens",
    type=click.IntRange(min=1),
    default=8,
    show_default=True,
    help="Most tokens of a written answer; answers are a word or two.",
)
@answering_options
def command(
    images: tuple[Path, ...],
    asked: tuple[str, ...],
    file: Path | None,
    choices: str | None,
    ways: int | None,
    scoring: str,
    focus: bool,
    template: str,
    max_tokens: int,
    options: AnsweringOptions,
) -> None:
    """Answer questions about images with a text-only LLM.

    Each image becomes words; the LLM is shown a few answered questions about other images and answers from the words
    alone. Of a single question only the answer is printed, of several a line each; --json tells how each was found, how
    probable it is, and which words and examples there were. What cannot be answered is reported and the others go on;
    the exit status is then 1.

    With --out every answer is journalled in a run folder as soon as it is there; the same command with --resume goes on
    after a stop of any kind and asks only what is missing.
    """
    entries = _entries(images, asked, file, options)
    examples = options.examples("question")
    from icl_vision.tasks.answer.visual_qa import VisualQA

    parts = options.parts()
    task = VisualQA(
        parts.llm,
        parts.tokenizer,
        options.k,
        ways=ways,
        choices=None if choices is None else [text.strip() for text in choices.split(",")],
        scoring=scoring,  # type: ignore[arg-type]  # click.Choice saw to it
        focus=focus,
        template=template,
        max_tokens=max_tokens,
        **options.parameters(),
    )
    task.fit(examples.images, examples.questions, examples.truths)
    questions = [entry.question for entry in entries]
    arguments: tuple[Any, ...] = ([options.pictures(entry) for entry in entries], questions)
    options.work(task, entries, examples, parts, arguments, task.answers)


def _entries(
    images: tuple[Path, ...], asked: tuple[str, ...], file: Path | None, options: AnsweringOptions
) -> list[Entry]:
    """What is asked: every question about every image, or the lines of the file."""
    from icl_vision.tasks.answer.files import Entry

    if file is not None:
        if images or asked:
            raise click.UsageError("--questions names images and questions itself; leave IMG and --question out")
        return options.read(file, "question", truths=False)
    if not images:
        raise click.UsageError("name an image, and what to ask: icl-vision answer photo.jpg --question '...'")
    if not asked:
        raise click.UsageError("--question is missing: what do you want to know about the image?")
    return [Entry(number, (path,), text, ()) for number, path in enumerate(expand(images), 1) for text in asked]
