"""`icl-vision caption`: a sentence about each image.

Knows: where images come from. Refuses to know: how a caption is written, how it reads.
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
    "--images",
    "file",
    metavar="FILE.jsonl|DIR",
    type=click.Path(exists=True, path_type=Path),
    help='Instead of IMG: a line {"image": ...} for each image, relative to the file. A "caption" in it, a text or a '
    "list of texts, is not shown to the LLM; it stands beside the result.",
)
@click.option("--template", default="caption", show_default=True, help="Prompt template, by name.")
@click.option(
    "--caption-tokens",
    "max_tokens",
    type=click.IntRange(min=1),
    default=20,
    show_default=True,
    help="Most tokens of a caption, as in the SPAE paper.",
)
@answering_options
def command(
    images: tuple[Path, ...], file: Path | None, template: str, max_tokens: int, options: AnsweringOptions
) -> None:
    """Caption images with a text-only LLM.

    Each image becomes words; the LLM is shown a few captioned images, as words too, and writes a caption from the words
    alone. Of a single IMG only the caption is printed, of several (or of a folder) a line each. What cannot be
    captioned is reported and the others go on; the exit status is then 1.

    With --out every caption is journalled in a run folder as soon as it is there; the same command with --resume goes
    on after a stop of any kind and asks only what is missing.
    """
    entries = _entries(images, file, options)
    examples = options.examples("caption")
    from icl_vision.tasks.answer.captioner import Captioner

    parts = options.parts()
    task = Captioner(
        parts.llm, parts.tokenizer, options.k, template=template, max_tokens=max_tokens, **options.parameters()
    )
    task.fit(examples.images, examples.truths)
    arguments: tuple[Any, ...] = ([options.pictures(entry) for entry in entries],)
    options.work(task, entries, examples, parts, arguments, task.caption)


def _entries(images: tuple[Path, ...], file: Path | None, options: AnsweringOptions) -> list[Entry]:
    """The images, or the lines of the file."""
    from icl_vision.tasks.answer.files import Entry

    if file is not None:
        if images:
            raise click.UsageError("--images names the images itself; leave IMG out")
        return options.read(file, "caption", truths=False)
    if not images:
        raise click.UsageError("name an image: icl-vision caption photo.jpg")
    return [Entry(number, (path,), None, ()) for number, path in enumerate(expand(images), 1)]
