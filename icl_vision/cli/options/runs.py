"""Options of commands that may take long or cost money: run folders, plans, budgets, caches.

Knows: option names, and what stands between a command and its LLM because of them. Refuses to know: any one command.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from icl_vision.cli.options.common import kept, print_json, progress_wanted, say, try_out
from icl_vision.wording import counted

if TYPE_CHECKING:
    from icl_vision.asking.plan import Plan
    from icl_vision.contracts import TextLLM, Tokenizer
    from icl_vision.images import ImageSource
    from icl_vision.llms.cost import Meter, PriceTable
    from icl_vision.tasks import FewShotClassifier, Outcome

F = TypeVar("F", bound=Callable[..., Any])

LIMITS = (
    click.option(
        "--prices",
        metavar="FILE",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        help="YAML file of prices per million tokens: MODEL: {input, output, cache_read, cache_write}. Default: none, "
        "and costs are unknown; no price is built in, since prices change.",
    ),
    click.option(
        "--budget-requests",
        type=click.IntRange(min=1),
        metavar="N",
        help="Stop before more requests than this. Default: no limit.",
    ),
    click.option(
        "--budget-tokens",
        type=click.IntRange(min=1),
        metavar="N",
        help="Stop before more tokens than this, prompts and answers together. Default: no limit.",
    ),
    click.option(
        "--budget-cost",
        type=click.FloatRange(min=0, min_open=True),
        metavar="AMOUNT",
        help="Stop before it costs more than this, in the currency of --prices. Default: no limit.",
    ),
)
"""Prices and budgets, for any command that asks an LLM."""

_OPTIONS = (
    click.option(
        "--out",
        metavar="RUN",
        type=click.Path(file_okay=False, path_type=Path),
        help="Keep every answer in this run folder as soon as it is there. Default: none, results are only printed.",
    ),
    click.option(
        "--resume",
        is_flag=True,
        help="Go on with the run in --out: what has an answer is not asked again. Same images, same options.",
    ),
    click.option(
        "--cache/--no-cache",
        default=True,
        show_default=True,
        help="With --out: keep answers and words of images in the user's cache too, so that nothing is paid for twice. "
        "Without: what the local LLM says of the examples, either.",
    ),
    click.option(
        "--dry-run",
        is_flag=True,
        help="Print requests, tokens and cost instead of asking. The LLM is not needed for it, nor a key.",
    ),
    *LIMITS,
)


SLOTS = 4
"""Prefix caches of an LLM on this machine. Few-shot settings need one for direct prompts with and without task
induction, one for the channel's and one more; answers one for prompts without words, which most rows share, and
others."""


def slotted(spec: str, api: str = "auto") -> TextLLM:
    """The LLM; an embedded one with a prefix cache for each kind of prompt. api: as for ``connect``."""
    from icl_vision.llms import connect

    options: dict[str, Any] = {} if api == "auto" else {"api": api}
    llm = connect(spec, **options)  # starts nothing yet
    return connect(spec, slots=SLOTS, **options) if llm.profile.embedded else llm


def print_plan(plan: Plan, known: int, *, as_json: bool) -> None:
    """Print what asking would send. known: queries that have an answer already."""
    if as_json:
        print_json(plan.to_dict() | {"already_answered": known})
        return
    if known:
        click.echo(f"already answered    {known:,}")
    click.echo(str(plan))


def check_limits(budget_cost: float | None, prices: Path | None) -> None:
    """Raises click.UsageError for a limit that could not be kept."""
    if budget_cost is not None and prices is None:
        raise click.UsageError("--budget-cost needs --prices FILE: without a price no cost is known")


def run_options(function: F) -> F:
    """Adds the options; the command gets them as one argument ``run``."""

    @functools.wraps(function)
    def command(
        *args: Any,
        out: Path | None,
        resume: bool,
        cache: bool,
        dry_run: bool,
        prices: Path | None,
        budget_requests: int | None,
        budget_tokens: int | None,
        budget_cost: float | None,
        **kwargs: Any,
    ) -> Any:
        if resume and out is None:
            raise click.UsageError("--resume needs --out RUN, the folder of the run to go on with")
        check_limits(budget_cost, prices)
        run = RunOptions(out, resume, cache, dry_run, prices, budget_requests, budget_tokens, budget_cost)
        if out is not None and not dry_run:
            try_out(out, folder=True)
        return function(*args, run=run, **kwargs)

    for option in reversed(_OPTIONS):
        command = option(command)
    return command  # type: ignore[return-value]  # an option gives back the function it decorates


@dataclass(frozen=True, slots=True)
class Parts:
    """What a task is made with. tokenizer: "" where none was asked for.

    meter: where usage is summed, None where nobody asked. before: requests that it holds from before this command.
    """

    llm: str | TextLLM
    tokenizer: str | Tokenizer
    meter: Meter | None
    before: int = 0

    def report(self, *, quiet: bool) -> None:
        """Say what was spent by this command, or by the whole run where its budget counts that."""
        if self.meter is None:
            return
        usage, cost = self.meter.total()
        which = "the whole run: " if self.before else ""
        say(
            f"{which}{counted(usage.requests, 'request')}, {counted(usage.prompt_tokens, 'prompt token')} "
            f"({usage.cached_tokens:,} of them from the provider's cache), {usage.completion_tokens:,} written; "
            f"cost {cost}",
            quiet=quiet,
        )


@dataclass(frozen=True, slots=True)
class RunOptions:
    """The options' values."""

    out: Path | None
    resume: bool
    cache: bool
    dry_run: bool
    prices: Path | None
    budget_requests: int | None
    budget_tokens: int | None
    budget_cost: float | None

    def needs_out(self) -> None:
        """Raises click.UsageError where nothing says where answers are kept."""
        if self.out is None and not self.dry_run:
            raise click.UsageError("--out RUN is needed, the folder that keeps every answer (or --dry-run)")

    def inside(self, name: str) -> RunOptions:
        """The same for a run of its own in a folder of that name in --out, one of several."""
        return self if self.out is None else replace(self, out=self.out / name)

    def load(self, name: str) -> Tokenizer:
        """A tokenizer by its name, with what the options put around it."""
        from icl_vision.tokenizers import ImageTokenizer

        found = self._tokenizer(name)
        return ImageTokenizer.from_pretrained(found) if isinstance(found, str) else found

    def connect(self, llm: str | TextLLM, tokenizer: str | None, sampling: Mapping[str, Any] | None = None) -> Parts:
        """The LLM and the tokenizer with what the options put around them; names as they are where they put nothing.

        tokenizer: None for none. sampling: options of it, where there are any.

        Raises:
            LLMSpecError, ArtefactNotFoundError ...: as ``connect`` and ``ImageTokenizer.from_pretrained``.
        """
        limits = (self.budget_requests, self.budget_tokens, self.budget_cost)
        if self.dry_run:
            from icl_vision.llms import connect
            from icl_vision.llms.wrappers.dry import DryLLM

            return Parts(DryLLM(connect(llm)), self._named(tokenizer, sampling), None)
        if self.out is None and self.prices is None and limits == (None, None, None):
            return Parts(llm, self._named(tokenizer, sampling), None)
        from icl_vision.contracts import Usage
        from icl_vision.files.runs import read_usage
        from icl_vision.llms import Budget, Meter, connect

        meter = Meter(self.price_table(), Budget(*limits))
        connected = connect(llm, meter=meter, cache=self.out is not None and self.cache)
        before = Usage()
        if self.out is not None and self.resume and limits != (None, None, None):
            # A budget is the run's, not that of each attempt at it.
            before = read_usage(self.out)
            meter.settle(connected.profile.name, Usage(), before)
        return Parts(connected, self._named(tokenizer, sampling), meter, before.requests)

    def price_table(self) -> PriceTable:
        """The prices of --prices; none without it."""
        from icl_vision.llms import PriceTable

        return PriceTable() if self.prices is None else PriceTable.load(self.prices)

    def _named(self, name: str | None, sampling: Mapping[str, Any] | None) -> str | Tokenizer:
        return "" if name is None else self._tokenizer(name, sampling)

    def _tokenizer(self, name: str, sampling: Mapping[str, Any] | None = None) -> str | Tokenizer:
        cached = self.out is not None and self.cache
        if not cached and not sampling:
            return name
        from icl_vision.tokenizers import ImageTokenizer
        from icl_vision.tokenizers.words_cache import CachedTokenizer, can_be_cached

        loaded = ImageTokenizer.from_pretrained(name, **(sampling or {}))
        return CachedTokenizer(loaded) if cached and can_be_cached(loaded) else loaded

    def show_plan(self, classifier: FewShotClassifier, images: Sequence[Path], *, as_json: bool) -> None:
        """Print what classifying would send; with --out and --resume only what is missing there."""
        from icl_vision.tasks.many import missing_in

        known = 0
        missing: list[ImageSource] = [*images]
        if self.out is not None and self.resume:
            missing = missing_in(self.out, classifier, missing)
            known = len(images) - len(missing)
        print_plan(classifier.plan(missing, self.price_table()), known, as_json=as_json)

    def classify(self, classifier: FewShotClassifier, images: Sequence[Path], *, quiet: bool) -> Outcome:
        """Classify into the run folder; where it stops, say how to go on."""
        from icl_vision.tasks import classify_many

        assert self.out is not None
        with kept(self.out, quiet=quiet):
            outcome = classify_many(classifier, images, self.out, resume=self.resume, progress=progress_wanted(quiet))
        say(
            f"{counted(outcome.answered, 'image')} asked about, {outcome.kept:,} known from before, "
            f"{outcome.failed:,} failed; results in {outcome.folder / 'results.json'}"
            + ("; --resume asks the failed ones again" if outcome.failed else ""),
            quiet=quiet,
        )
        return outcome
