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
    if len(constraint.allowed) > MAX_GRAMMAR_STRINGS:
        raise CapabilityError(
            f"a constraint of {len(constraint.allowed)} strings is too slow for llama.cpp's grammars, which bear "
            f"{MAX_GRAMMAR_STRINGS}; allow fewer, or leave the constraint out and repair the answer"
        )
    words = " | ".join(_literal(one) for one in constraint.allowed)
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
