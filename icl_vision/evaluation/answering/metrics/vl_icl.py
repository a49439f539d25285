"""How VL-ICL Bench judges answers, as its own code does, so that its published figures can be compared with.

Knows: its three rules (Zong et al. 2024, arXiv 2403.13164; repository ys-zong/VL-ICL, evals/eval.py) and their traps.
Refuses to know: better rules (``answers.py`` has those: figures of ours use them).

Traps, which is why these are for comparison only:

- yes/no: whatever has no "yes" in it counts as "no". An empty answer, a refusal and "maybe" are right wherever the
  truth is "no"; "eyes" and "not yes" are right wherever it is "yes".
- number: the first digits anywhere in the answer count, so a sign is lost: "-3" is read as "3" and can never match
  "-3", while "it is 3 or 5" is right for "3".
- exact: cut at the first line end, or else at the first full stop, then compared in lower case: "3.5" is cut to "3".
"""

from __future__ import annotations

import re
from typing import Literal

from icl_vision import checks

Rule = Literal["exact", "number", "yes/no"]


def vl_icl_right(answer: str, truth: str, *, rule: Rule = "exact") -> bool:
    """Whether VL-ICL's own code counts an answer as right.

    Args:
        answer: as the LLM wrote it.
        truth: the right one; "yes" or "no" for the rule "yes/no".
        rule: "exact" (textocr, open_mi, clevr), "number" (the operator inductions and clevr's simple form), "yes/no"
            (matching_mi).

    Raises:
        UsageError: an unknown rule.
    """
    checks.choice("rule", rule, ("exact", "number", "yes/no"))
    text = answer.strip()
    cut = text.find("\n")
    if cut <= 0:
        cut = text.find(".")
    text = (text[:cut] if cut > 0 else text).lower()
    truth = truth.lower()
    if rule == "yes/no":
        return truth in ("yes", "no") and ("yes" in text) == (truth == "yes")
    if rule == "number":
        digits = re.search(r"\d+", text)
        text = digits[0] if digits else ""
    return text == truth
