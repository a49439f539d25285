"""Allowed strings in the form that every LLM is shown, and answers back in the form in which they were given.

An accent may be a character of its own or one with its letter (NFD, NFC); for an LLM, a grammar and a cache's key these
are two texts, for whoever allows them one.

Knows: spellings of a constraint. Refuses to know: how it is kept.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from icl_vision.contracts import Completion, Constraint
from icl_vision.spelling import composed


def composed_constraint(constraint: Constraint) -> Constraint:
    """The constraint with every string in composed characters, each once."""
    if all(one.isascii() for one in constraint.allowed):
        return constraint
    allowed, *places = (
        tuple(dict.fromkeys(map(composed, strings))) for strings in (constraint.allowed, *constraint.places)
    )
    return Constraint(allowed, constraint.count, tuple(places))


def respelled(answer: Completion, constraint: Constraint) -> Completion:
    """An answer whose strings are spelled as the constraint has them; any other answer as it is."""
    if answer.text.isascii():
        return answer
    text = answer.text.strip()
    before, _, after = answer.text.partition(text)
    allowed = constraint.places or (constraint.allowed,) * constraint.count
    spelled = [{composed(one): one for one in reversed(strings)} for strings in allowed]
    found = _words(composed(text).split(" "), spelled)
    return answer if found is None else replace(answer, text=before + " ".join(found) + after)


def _words(pieces: Sequence[str], spelled: Sequence[Mapping[str, str]]) -> list[str] | None:
    """The strings that some pieces between spaces make up, one of each mapping in turn; fewer where they end early."""
    if len(pieces) == len(spelled) and all(piece in one for piece, one in zip(pieces, spelled, strict=True)):
        return [one[piece] for piece, one in zip(pieces, spelled, strict=True)]
    words: list[str] = []
    at = 0
    for one in spelled:
        # An allowed string may hold spaces itself: the longest counts.
        end = next((end for end in range(len(pieces), at, -1) if " ".join(pieces[at:end]) in one), None)
        if end is None:
            break
        words.append(one[" ".join(pieces[at:end])])
        at = end
    return words if words and at == len(pieces) else None
