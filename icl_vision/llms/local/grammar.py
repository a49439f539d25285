"""A Constraint as a GBNF grammar for llama.cpp.

Knows: GBNF's notation. Refuses to know: what the allowed strings mean.
"""

from __future__ import annotations

from icl_vision.contracts import Constraint
from icl_vision.errors import CapabilityError

MAX_GRAMMAR_STRINGS = 256
"""llama.cpp tries a grammar on its whole vocabulary at each token: with 256 alternatives it writes 1.5 tokens/s."""


def constraint_grammar(constraint: Constraint, *, leading_space: bool) -> str:
    """The grammar that writes ``constraint.count`` of the allowed strings, one space between them, and nothing else.

    Args:
        leading_space: the answer continues a prompt that ends without a space, so it begins with one.

    Raises:
        CapabilityError: too many strings for a grammar.
    """
    # llama.cpp weighs the alternatives of one place at a time, so it is the largest that counts.
    most = max(map(len, constraint.places)) if constraint.places else len(constraint.allowed)
    if most > MAX_GRAMMAR_STRINGS:
        raise CapabilityError(
            f"a constraint of {most} strings is too slow for llama.cpp's grammars, which bear "
            f"{MAX_GRAMMAR_STRINGS}; allow fewer, or leave the constraint out and repair the answer"
        )
    if constraint.places:
        rules = {place: f"p{number}" for number, place in enumerate(dict.fromkeys(constraint.places), start=1)}
        text = ' " " '.join(rules[place] for place in constraint.places)
        lines = [f"{name} ::= " + " | ".join(_literal(string) for string in place) for place, name in rules.items()]
        start = '" " ' if leading_space else ""
        return "\n".join([f"root ::= {start}{text}", *lines]) + "\n"
    words = " | ".join(_literal(string) for string in constraint.allowed)
    first = '" " word' if leading_space else "word"
    more = f' (" " word){{{constraint.count - 1}}}' if constraint.count > 1 else ""
    return f"root ::= {first}{more}\nword ::= {words}\n"


def _literal(text: str) -> str:
    """A GBNF string literal; anything but printable ASCII is written as an escape."""
    out = []
    for character in text:
        code = ord(character)
        if character in '"\\':
            out.append("\\" + character)
        elif 32 <= code < 127:
            out.append(character)
        elif code <= 0xFF:
            out.append(f"\\x{code:02X}")
        elif code <= 0xFFFF:
            out.append(f"\\u{code:04X}")
        else:
            out.append(f"\\U{code:08X}")
    return '"' + "".join(out) + '"'
