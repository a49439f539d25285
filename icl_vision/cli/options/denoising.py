"""Options that `denoise` and `eval denoising` share.

Knows: their names, defaults and reasons. Refuses to know: either command.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from icl_vision.cli.options.common import llm_option, tokenizer_option

F = TypeVar("F", bound=Callable[..., Any])

PHOTO = "spae-photo-128"
"""The packaged tokenizer of photographs that can decode."""

TASK_NAMES = ("outpainting", "inpainting", "deblurring", "translation", "rotation", "reconstruction")
CLIP_TASK_NAMES = ("prediction", "filling", "outpainting", "inpainting", "deblurring", "reconstruction")
EVERY_TASK = tuple(dict.fromkeys((*TASK_NAMES, *CLIP_TASK_NAMES)))

_OPTIONS: tuple[Callable[[Any], Any], ...] = (
    tokenizer_option(PHOTO),
    llm_option(),
    click.option(
        "--protocol",
        type=click.Choice(["leak-free", "paper"]),
        default="leak-free",
        show_default=True,
        help="leak-free: the prompt shows other pictures. paper: it shows corrupted copies of the answer itself, as "
        "the papers do; results are labelled as leaking.",
    ),
    click.option(
        "--layers",
        type=click.IntRange(min=1),
        help="Layers that the LLM decides with the condition in view; deeper ones are refined (--refine). Default: "
        "those of the first 85 words, four of a photograph, since prompts of 597 words fit no small window.",
    ),
    click.option(
        "--window",
        type=click.Choice(["near", "all"]),
        default="near",
        show_default=True,
        help="What those prompts show. near: the condition's words at the same places, the coarser words over them and "
        "the row before, which is cheaper and does better with the embedded LLM; all: the whole condition and every "
        "word before.",
    ),
    click.option(
        "--refine",
        type=click.Choice(["agnostic", "task", "none"]),
        help="The deeper layers. agnostic: from the words near by, as in the paper; task: with the condition's words "
        "at the same places too; none: left out, and the picture is decoded from the upper layers. Default: agnostic; "
        "task for pictures of a large vocabulary (1,000 words or more) of which no part is intact (leak-free, --window "
        "near).",
    ),
    click.option(
        "--examples",
        type=click.IntRange(min=1),
        default=10,
        show_default=True,
        help="Examples in each prompt, drawn from the context pictures by --seed; ten as in the paper.",
    ),
    click.option(
        "--corruption",
        type=click.FloatRange(0, 1),
        nargs=2,
        default=(0.5, 0.2),
        show_default=True,
        help="Share of random words in the first and the last example, as in the paper; '0 0' for none.",
    ),
    click.option(
        "--allowed",
        type=click.Choice(["shown", "own", "place", "layer", "context", "vocabulary"]),
        help="Words that may be answered. shown: the condition's, of the same row; own: the picture's own on that "
        "layer, its known ones where some are; place, layer, context: those and what the examples have at that place, "
        "on that layer, anywhere; vocabulary: all. The narrower, the more the choice helps the LLM: compare with the "
        "baseline 'random allowed'. Default: place; leak-free with a large vocabulary own where a part is intact, else "
        "shown.",
    ),
    click.option(
        "--most-uses",
        type=click.IntRange(min=1),
        help="So often the LLM may write one word on a layer, in a row and those it is shown. Default: any number; 1 "
        "leak-free with a large vocabulary, where a small LLM else repeats one word for ever.",
    ),
    click.option(
        "--guidance",
        type=click.FloatRange(min=0),
        help="Weight of what the condition changes in the LLM's probabilities; 1 takes them as they are, the cheapest; "
        "more heeds the condition more. Default: 1; with a small vocabulary 3 for deblurring and reconstruction where "
        "the LLM gives log-probabilities.",
    ),
    click.option(
        "--max-tokens",
        type=click.IntRange(min=1),
        metavar="N",
        help="Stop before more tokens than this, prompts and answers together. Default: no limit; the plan printed "
        "first says how many are expected.",
    ),
)


def denoising_options(function: F) -> F:
    """Adds the options, among them tokenizer and LLM."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function
