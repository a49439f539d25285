"""Options that `answer` and `caption` share, and the work between them and the library.

Knows: their names, defaults and reasons; which examples are shown; a run folder and its plan. Refuses to know: what is
asked, how results read.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from icl_vision.cli.options.common import (
    Sampling,
    json_option,
    kept,
    llm_option,
    print_json,
    progress_wanted,
    quiet_option,
    sampling_options,
    say,
    seed_option,
    taken_by_name,
    tell_of_first_frames,
    tokenizer_option,
    trust_option,
    try_out,
)
from icl_vision.cli.options.runs import Parts, RunOptions, print_plan, run_options
from icl_vision.errors import UsageError
from icl_vision.wording import counted

if TYPE_CHECKING:
    from icl_vision.asking.plan import Plan
    from icl_vision.contracts import Answer
    from icl_vision.tasks.answer.captioner import Captioner
    from icl_vision.tasks.answer.files import Entry, Kind
    from icl_vision.tasks.answer.visual_qa import VisualQA

F = TypeVar("F", bound=Callable[..., Any])

TOKENIZER = "describe-photo"
"""Its words are about what people ask: things, actions, colours, places, text."""

_OPTIONS: tuple[Callable[[Any], Any], ...] = (
    click.option(
        "--support",
        metavar="FILE.jsonl|DIR",
        type=click.Path(exists=True, path_type=Path),
        help="Examples that the LLM is shown: a file of JSON lines (DIR holds one), images relative to it. Default: "
        "sixteen photographs of ours, since a few examples of any kind are worth more than none.",
    ),
    click.option(
        "--zero-shot",
        is_flag=True,
        help="Show no examples at all. A small base model then often goes on in a form of its own.",
    ),
    click.option(
        "-k",
        "k",
        type=click.IntRange(min=1),
        help="Most words of an image (of each part, where the words have parts). Default: the tokenizer's own number; "
        "more words confuse a small LLM.",
    ),
    tokenizer_option(TOKENIZER),
    sampling_options,
    llm_option(),
    click.option(
        "--shots",
        type=click.IntRange(min=1),
        default=8,
        show_default=True,
        help="Examples shown with each image. More cost tokens, and from eight on change little with a small LLM.",
    ),
    click.option(
        "--repeats",
        type=click.IntRange(min=0),
        default=0,
        show_default=True,
        help="How many times more each example is shown; 0 keeps the prompt short.",
    ),
    click.option(
        "--selection",
        type=click.Choice(["nearest", "random"]),
        default="nearest",
        show_default=True,
        help="Which examples are shown, if --shots leaves some out: the nearest to what is asked, which are worth "
        "most; or one seeded draw for all, a prefix that an LLM's cache makes cheap.",
    ),
    click.option(
        "--prompts",
        type=click.IntRange(min=1),
        default=1,
        show_default=True,
        help="Ask with so many prompts of different examples and take the likeliest answer; each is paid for.",
    ),
    click.option(
        "--induction/--no-induction",
        default=True,
        show_default=True,
        help="Say in the prompt's first line what is wanted.",
    ),
    click.option(
        "--templates",
        metavar="DIR",
        type=click.Path(exists=True, file_okay=False, path_type=Path),
        help="Folder of your own templates, looked in first. Default: the packaged ones only.",
    ),
    click.option(
        "--concurrency",
        type=click.IntRange(min=1),
        default=8,
        show_default=True,
        help="Requests to the LLM at the same time; a provider that says 429 is asked less often all by itself.",
    ),
    click.option(
        "--report",
        metavar="FILE.html",
        type=click.Path(dir_okay=False, path_type=Path),
        help="Write a page with every picture, its words, the examples shown and what came back. Default: report.html "
        "in --out; without --out none.",
    ),
    run_options,
    trust_option,
    seed_option(),
    json_option,
    quiet_option,
)


def answering_options(function: F) -> F:
    """Adds the options; the command gets them as one argument ``options``."""
    names = [
        "support", "zero_shot", "k", "tokenizer", "sampling", "llm", "shots", "repeats", "selection", "prompts",
        "induction", "templates", "concurrency", "report", "run", "trust", "seed", "as_json", "quiet",
    ]  # fmt: skip

    @functools.wraps(function)
    def command(*args: Any, **kwargs: Any) -> Any:
        options = AnsweringOptions(**{name: kwargs.pop(name) for name in names})
        if options.zero_shot and options.support is not None:
            raise click.UsageError("--zero-shot shows no examples, and --support names some; leave one of them out")
        if options.report is not None and not options.run.dry_run:
            try_out(options.report, folder=False)
        return function(*args, options=options, **kwargs)

    for option in reversed(_OPTIONS):
        command = option(command)
    return command  # type: ignore[return-value]  # an option gives back the function it decorates


@dataclass(frozen=True, slots=True)
class Examples:
    """What the LLM is shown. entries: in order. named: where they come from, for people and for ``--json``. pictures:
    what stands for those of an entry."""

    entries: list[Entry]
    named: str
    pictures: Callable[[Entry], Any]

    @property
    def images(self) -> list[Any]:
        """As ``fit`` takes them: several pictures of one example in a list."""
        return [self.pictures(entry) for entry in self.entries]

    @property
    def questions(self) -> list[str | None]:
        """One an example."""
        return [entry.question for entry in self.entries]

    @property
    def truths(self) -> list[list[str]]:
        """The references of each."""
        return [list(entry.truths) for entry in self.entries]


@dataclass(frozen=True, slots=True)
class AnsweringOptions:
    """The options' values."""

    support: Path | None
    zero_shot: bool
    k: int | None
    tokenizer: str
    sampling: Sampling
    llm: str
    shots: int
    repeats: int
    selection: str
    prompts: int
    induction: bool
    templates: Path | None
    concurrency: int
    report: Path | None
    run: RunOptions
    trust: bool
    seed: int
    as_json: bool
    quiet: bool

    def read(self, source: Path, kind: Kind, *, truths: bool) -> list[Entry]:
        """The lines of a file that was given.

        Raises:
            UsageError: it cannot be read, or lines of it cannot be used; they are named by their numbers.
        """
        from icl_vision.tasks.answer.files import read_entries

        return read_entries(source, kind, truths=truths, trust=self.trust, how="--trust")

    def examples(self, kind: Kind) -> Examples:
        """What is shown, said on stderr.

        Raises:
            UsageError: the packaged examples, to a tokenizer of clips; a file as ``read`` refuses it.
        """
        from icl_vision.tasks.answer.files import packaged

        if self.zero_shot:
            return Examples([], "none", self.pictures)
        if self.support is None:
            if self.clips:
                raise UsageError(
                    f"the packaged examples are photographs, and the tokenizer {self.tokenizer!r} takes clips: show "
                    "your own with --support, or none with --zero-shot"
                )
            found = Examples(packaged(kind), "packaged", self.pictures)
            say(
                f"{len(found.entries)} packaged examples (photographs of Caltech 101, CC BY 4.0); --support shows your "
                "own, --zero-shot none",
                quiet=self.quiet,
            )
            return found
        found = Examples(self.read(self.support, kind, truths=True), str(self.support), self.pictures)
        say(f"{counted(len(found.entries), 'example')} in {self.support}", quiet=self.quiet)
        return found

    def parameters(self) -> dict[str, Any]:
        """Keyword arguments of ``VisualQA`` and ``Captioner`` alike; LLM and tokenizer come from ``parts``."""
        return {
            "shots": self.shots,
            "repeats": self.repeats,
            "selection": self.selection,
            "prompts": self.prompts,
            "induction": self.induction,
            "order_seed": self.seed,
            "templates": self.templates,
            "errors": "return",
            "concurrency": self.concurrency,
            "progress": progress_wanted(self.quiet),
        }

    def parts(self) -> Parts:
        """The LLM and the tokenizer, with what the run's options put around them."""
        return self.run.connect(self.llm, self.tokenizer, self.sampling.of(self.tokenizer) if self.clips else None)

    @property
    def clips(self) -> bool:
        """Whether the tokenizer takes clips."""
        return taken_by_name(self.tokenizer).one == "clip"

    def sources(self, path: Path) -> list[Any]:
        """What stands for a picture of a file: the file; with --frames or --rate, of one that moves and a tokenizer of
        images, so many of its frames, in order. Raises ImageError."""
        from icl_vision.clips import key_frames, moves
        from icl_vision.clips.opening import KEY_FRAMES

        if self.clips or not self.sampling or not moves(path):
            return [path]
        return [*key_frames(path, self.sampling.frames or KEY_FRAMES, rate=self.sampling.rate)]

    def pictures(self, entry: Entry) -> Any:
        """The picture of an entry, or the several in a list.

        Raises:
            UsageError: more than a question may have. ImageError: a clip whose frames cannot be read.
        """
        from icl_vision.tasks.answer.files import MOST_IMAGES

        found = [source for path in entry.images for source in self.sources(path)]
        if len(found) > MOST_IMAGES:
            raise UsageError(
                f"{' '.join(self.sampling.words)} would ask about {len(found)} pictures together, and a question may "
                f"have {MOST_IMAGES}: take fewer frames"
            )
        return found[0] if len(found) == 1 else found

    def work(
        self,
        task: VisualQA | Captioner,
        entries: Sequence[Entry],
        examples: Examples,
        parts: Parts,
        arguments: tuple[Any, ...],
        ask: Callable[..., list[Answer]],
    ) -> None:
        """Plan, or ask and print.

        arguments: what ``ask``, the task's own method, is called with.

        Raises:
            click.exceptions.Exit: something could not be answered; it was said what and why.
        """
        self._tell_leaks(entries, examples)
        if not self.clips and not self.sampling:
            from icl_vision.clips.opening import KEY_FRAMES

            asked = dict.fromkeys(path for entry in entries for path in entry.images)
            instead = f"--frames {KEY_FRAMES} takes so many of its frames, in order"
            tell_of_first_frames(list(asked), "seen", instead, quiet=self.quiet)
        from icl_vision.cli.options.answered import (
            how_found,
            lines_of,
            row_of,
            said_of,
            shown_name,
            summary,
            write_page,
        )

        if self.run.dry_run:
            self._show_plan(task, arguments)
            return
        if self.run.out is None:
            documents = [answer.to_dict() for answer in ask(*arguments)]
        else:
            documents = self._run(task, arguments)
        rows = [row_of(entry, document, examples.named) for entry, document in zip(entries, documents, strict=True)]
        parts.report(quiet=self.quiet)
        page = self.report or (None if self.run.out is None else self.run.out / "report.html")
        if page is not None:
            model = task.llm_.profile.name
            lines = task.fitted.lines
            shown = examples.entries, task.examples_, lines
            write_page(page, rows, entries, *shown, task.tokenizer_, model, sources=self.sources)
            say(f"see {page}", quiet=self.quiet)
        failed = [row for row in rows if "error" in row]
        if self.as_json:
            print_json(rows)
        elif len(rows) > 1:
            click.echo(lines_of(rows))
        elif not failed:
            say(how_found(rows[0]), quiet=self.quiet)
            click.echo(said_of(rows[0]))
        told = summary(rows)
        if told is not None:
            low, high = told["interval"]
            right = round(told["accuracy"] * told["n"])
            say(
                f"{right} of {told['n']} right, {100 * told['accuracy']:.1f}% [{100 * low:.1f}, {100 * high:.1f}] "
                f"({told['scorer']})",
                quiet=self.quiet,
            )
        for row in failed:
            # A failure is no remark: --quiet keeps it.
            say(f"{shown_name(row)}: {row['error']}")
        if failed:
            raise click.exceptions.Exit(1)

    def _tell_leaks(self, entries: Sequence[Entry], examples: Examples) -> None:
        """Say where a picture that is asked about is shown with its answer: such results say nothing."""
        from icl_vision.errors import ImageError
        from icl_vision.tokenizers.words_cache import digest_of

        def digests(some: Sequence[Entry]) -> dict[Path, str]:
            found = {}
            for path in dict.fromkeys(path for entry in some for path in entry.images):
                with contextlib.suppress(ImageError):
                    found[path] = digest_of(path)[0]
            return found

        shown = set(digests(examples.entries).values())
        known = digests(entries) if shown else {}
        leaking = sum(any(known.get(path) in shown for path in entry.images) for entry in entries)
        if leaking:
            say(
                f"LEAKING: {leaking:,} of {len(entries):,} ask about an image that is among the examples, where the "
                "LLM may read the answer; such results measure nothing",
                quiet=self.quiet,
            )

    def _run(self, task: VisualQA | Captioner, arguments: tuple[Any, ...]) -> list[dict[str, Any]]:
        """Ask into the run folder; where it stops, say how to go on."""
        from icl_vision.tasks.answer.many import answer_many

        assert self.run.out is not None
        with kept(self.run.out, quiet=self.quiet):
            outcome = answer_many(
                task, *arguments, out=self.run.out, resume=self.run.resume, progress=progress_wanted(self.quiet)
            )
        say(
            f"{outcome.answered:,} asked, {outcome.kept:,} known from before, {outcome.failed:,} failed; results in "
            f"{outcome.folder / 'results.json'}" + ("; --resume asks the failed ones again" if outcome.failed else ""),
            quiet=self.quiet,
        )
        return outcome.rows

    def _show_plan(self, task: VisualQA | Captioner, arguments: tuple[Any, ...]) -> None:
        """Print what asking would send; with --out and --resume only what is missing there."""
        known = 0
        if self.run.out is not None and self.run.resume:
            from icl_vision.tasks.answer.many import missing_in

            missing = missing_in(self.run.out, task, *arguments)
            known = len(arguments[0]) - len(missing)
            arguments = tuple([row[number] for number in missing] for row in arguments)
        plan: Callable[..., Plan] = task.plan
        print_plan(plan(*arguments, prices=self.run.price_table()), known, as_json=self.as_json)
