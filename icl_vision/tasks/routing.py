"""Asking an LLM whether a line wants a picture: the template's variables, its examples, how its answer is read.

Knows: the two routes, the template ``route`` and what it gets. Refuses to know: when an LLM is asked (the router of
``text_to_image`` does, where it is not sure), and what is done with a line afterwards.
"""

from __future__ import annotations

import os
import re
from typing import Literal

from icl_vision.contracts import Constraint, Prompt, TextLLM
from icl_vision.errors import LLMNoAnswerError
from icl_vision.prompting.declarations import Declaration, Sample
from icl_vision.prompting.labels import fold
from icl_vision.prompting.templates import MAX_RENDERED_CHARS, FixedPart, find_template, load_template, render_fixed

RouteName = Literal["draw", "text"]
"""What a line wants: a picture, or an answer in words."""
ROUTES: tuple[RouteName, ...] = ("draw", "text")
"""Both, in the order of their counts."""

EXAMPLES: tuple[tuple[str, RouteName], ...] = (
    ("Paint a windmill at dusk.", "draw"),
    ("What does this drawing of a windmill mean?", "text"),
    ("Zeichne mir bitte eine Windmühle", "draw"),
    ("Draw a conclusion from the report.", "text"),
    ("a windmill, watercolour", "draw"),
    ("¿Cómo funciona un molino?", "text"),
)
"""Shown before every line: three of each kind, in several languages, none of the evaluation's."""

MOST_TOKENS = 8
"""Tokens that an LLM may write; the answer is one word."""
_REFUSES = frozenset({"not", "no", "don", "never", "neither"})


def route_prompt(
    line: str,
    *,
    template: str = "route",
    folder: str | os.PathLike[str] | None = None,
    induction: bool = True,
    repeats: int = 0,
) -> Prompt:
    """The prompt that asks about a line.

    Args:
        line: on one line, without control characters (``routing.features.readable`` of ``text_to_image`` makes it so).
        template: name of a template of this task.
        folder: a folder of your own ``*.jinja`` files, which override packaged ones of the same name.
        induction: whether the template's instruction is given.
        repeats: how many times more each example is shown.

    Raises:
        TemplateError: no such template, or one with faults.
    """
    loaded = load_template(find_template(template, folder), (ROUTING,))
    variables = {"induction": bool(induction), "repeats": int(repeats)}
    shown = [{"line": text, "route": route} for text, route in EXAMPLES * (int(repeats) + 1)]
    fixed = render_fixed(loaded, variables, {"examples": shown}, max_chars=MAX_RENDERED_CHARS)
    return FixedPart(*fixed, loaded, variables, MAX_RENDERED_CHARS).prompt({"line": line})


def ask_route(llm: TextLLM, prompt: Prompt) -> tuple[RouteName | None, str]:
    """What an LLM says of a line, and its words; None where that is neither route, or it says nothing.

    Raises:
        LLMError: it cannot be reached, or answers with an error.
    """
    constraint = Constraint(ROUTES) if llm.profile.constraint is not None else None
    try:
        answer = llm.complete_sync(prompt, max_tokens=MOST_TOKENS, stop=("\n",), constraint=constraint)
    except LLMNoAnswerError:
        return None, ""
    return read_route(answer.text), answer.text


def read_route(answer: str) -> RouteName | None:
    """The route that an answer names; None where it names none, both, or one only to deny it."""
    words = re.findall(r"\w+", fold(answer))
    named = [route for route in ROUTES if route in words]
    return named[0] if len(named) == 1 and not _REFUSES.intersection(words) else None


def sample(name: str, folder: str | os.PathLike[str] | None, *, induction: bool = True, repeats: int = 0) -> Sample:
    """The prompt that a template makes of a built-in line.

    Raises:
        TemplateError: as ``route_prompt``, or a block fails.
    """
    line = "a lighthouse for my notebook's cover, something cheerful"
    return Sample(route_prompt(line, template=name, folder=folder, induction=induction, repeats=repeats), " draw")


ROUTING = Declaration(
    task="routing",
    purpose="asks whether a line wants a picture",
    fixed=("induction", "repeats"),
    asks={"route": "line"},
    sample=sample,
)
