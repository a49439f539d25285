"""Options that `generate` and `eval generation` share.

Knows: their names, defaults and reasons. Refuses to know: either command.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from icl_vision.cli.options.common import llm_option, seed_option, tokenizer_option
from icl_vision.cli.options.runs import LIMITS, check_limits
from icl_vision.cli.reconstruct import DECODER

F = TypeVar("F", bound=Callable[..., Any])


class Guidance(click.ParamType[Any]):
    """auto, or a number of 0 or more."""

    name = "guidance"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if value == "auto":
            return value
        try:
            number = float(value)
        except ValueError:
            number = -1.0
        if not 0 <= number < float("inf"):
            self.fail(f"{value!r} is neither 'auto' nor a number of 0 or more", param, ctx)
        return number


_DRAWING: tuple[Callable[[Any], Any], ...] = (
    tokenizer_option(DECODER),
    llm_option(),
    click.option(
        "--passes",
        type=click.Choice(["par", "near", "pnar", "two-stage", "single"]),
        default="pnar",
        show_default=True,
        help="What each segment is shown. pnar: the text alone; best with the embedded LLM, which the words of other "
        "segments distract. near: the coarser words over it too. par: all words before it. two-stage: par for the "
        "first layers, the others from those without the text. single: everything at once, the papers' failing "
        "baseline.",
    ),
    click.option(
        "--stride",
        type=click.IntRange(min=1),
        default=1,
        show_default=True,
        help="Words asked for at a time. More are quicker with a hosted LLM; a small LLM follows the text best word "
        "by word.",
    ),
    click.option(
        "--upper",
        type=click.IntRange(min=1),
        default=1,
        show_default=True,
        help="With --passes two-stage: layers of the first stage. The first layer names what is drawn.",
    ),
    click.option(
        "--shots",
        type=click.IntRange(min=1),
        default=4,
        show_default=True,
        help="Examples shown of each text, drawn by --seed whatever is asked for. More take longer, and from four on "
        "draw no better digits.",
    ),
    click.option(
        "--allowed",
        type=click.Choice(["place", "layer", "context", "vocabulary"]),
        default="place",
        show_default=True,
        help="Words that may be answered: those that the examples, of whatever text, have at that place; on that "
        "layer; anywhere; or all. The narrower, the more the choice helps the LLM.",
    ),
    click.option(
        "--temperature",
        type=click.FloatRange(min=0),
        default=0.0,
        show_default=True,
        help="0 takes the likeliest words: the same picture every time. More draws other ones, and more failures.",
    ),
    click.option(
        "--guidance",
        type=Guidance(),
        default="auto",
        show_default=True,
        metavar="auto|NUMBER",
        help="Weight of what the text changes in the LLM's probabilities; 1 takes them as they are. auto: 2 with an "
        "LLM that scores text (local does), which draws more readable digits, else 1.",
    ),
    click.option(
        "--best-of",
        type=click.IntRange(min=1),
        default=1,
        show_default=True,
        help="Answers sampled for each segment, of which the likeliest is kept; needs a temperature above 0.",
    ),
    seed_option(),
)


def drawing_options(function: F) -> F:
    """Adds the options; the command gets them as one argument ``drawing``, keyword arguments of ``ImageGenerator``."""
    names = (
        "tokenizer", "llm", "passes", "stride", "upper", "shots", "allowed", "temperature", "guidance", "best_of",
        "seed",
    )  # fmt: skip

    @functools.wraps(function)
    def command(*args: Any, **kwargs: Any) -> Any:
        drawing = {name: kwargs.pop(name) for name in names}
        return function(*args, drawing=drawing, **kwargs)

    for option in reversed(_DRAWING):
        command = option(command)
    return command  # type: ignore[return-value]  # an option gives back the function it decorates


def budget_options(function: F) -> F:
    """Adds limits; the command gets them as one argument ``budget``, keyword arguments of ``ImageGenerator``."""

    @functools.wraps(function)
    def command(
        *args: Any,
        prices: Path | None,
        budget_requests: int | None,
        budget_tokens: int | None,
        budget_cost: float | None,
        **kwargs: Any,
    ) -> Any:
        check_limits(budget_cost, prices)
        from icl_vision.llms import Budget, PriceTable

        limits = (budget_requests, budget_tokens, budget_cost)
        budget = {
            "budget": None if limits == (None, None, None) else Budget(*limits),
            "prices": None if prices is None else PriceTable.load(prices),
        }
        return function(*args, budget=budget, **kwargs)

    for option in reversed(LIMITS):
        command = option(command)
    return command  # type: ignore[return-value]  # an option gives back the function it decorates
