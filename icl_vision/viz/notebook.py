"""Small pieces of HTML for notebooks: a classifier, one answer.

Knows: what a person wants to see of each, escaping, styles that touch nothing else on a notebook's page.
Refuses to know: how an answer is made; nothing is asked or encoded for it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from icl_vision.viz.page import escape, percent
from icl_vision.wording import counted

if TYPE_CHECKING:
    from icl_vision.contracts import Classification
    from icl_vision.tasks.classify.classifier import FewShotClassifier

MOST_LABELS = 12
"""Labels, or classes, that are written out."""
MOST_WORDS = 40
"""Words of an image or an example that are written out."""

# Colours come from the notebook (currentColor), so both its light and its dark theme work.
_STYLE = """.icl-card{font:13px/1.4 system-ui,sans-serif}
.icl-card table{border-collapse:collapse;margin:.3em 0;font-size:13px}
.icl-card td,.icl-card th{border:0;padding:.1em .8em .1em 0;text-align:left;vertical-align:top;background:none}
.icl-card .bar{display:inline-block;height:.7em;background:currentColor;opacity:.45;border-radius:.2em}
.icl-card .soft{opacity:.7}"""


def classification_html(classification: Classification) -> str:
    """An answer: its label, the probabilities as bars (the likeliest first), the words that were all the LLM saw."""
    if classification.error is not None:
        head = f"<b>failed</b>: {escape(type(classification.error).__name__)}: {escape(classification.error)}"
    elif classification.label is None:
        head = f"<b>no known label</b>; the answer was {escape(repr(classification.text))}"
    else:
        head = f"<b>{escape(classification.label)}</b>"
    table = ""
    if classification.probabilities:
        ranked = sorted(classification.probabilities.items(), key=lambda item: -item[1])
        rows = [
            f'<tr><td>{escape(label)}</td><td>{percent(share)}</td><td style="width:9em">'
            f'<span class="bar" style="width:{100 * share:.1f}%"></span></td></tr>'
            for label, share in ranked[:MOST_LABELS]
        ]
        if len(ranked) > MOST_LABELS:
            rows.append(f'<tr><td class="soft">and {len(ranked) - MOST_LABELS} more</td></tr>')
        sure = "calibrated" if classification.calibrated else "raw: mostly too sure"
        table = f'<table>{"".join(rows)}</table><div class="soft">probabilities: {sure}</div>'
    words = " / ".join(_words(list(layer)) for layer in classification.words)
    return _card(f'<div>{head}</div>{table}<div class="soft">words: {words}</div>')


def classifier_html(clf: FewShotClassifier) -> str:
    """A classifier: what it is made of and, once fitted, its classes with an example's words of each."""
    head = f"<div>{escape(clf)}</div>"
    if not hasattr(clf, "classes_"):
        return _card(head)
    rows = []
    for number, label in enumerate(clf.classes_[:MOST_LABELS]):
        own = [example for example in clf.examples_ if example.label == number]
        shown = _words(own[0].text.split()) if own else ""
        rows.append(
            f"<tr><th>{escape(label)}</th><td>{counted(len(own), 'example')}</td><td class='soft'>{shown}</td></tr>"
        )
    if len(clf.classes_) > MOST_LABELS:
        rows.append(f'<tr><td class="soft">and {len(clf.classes_) - MOST_LABELS} more</td></tr>')
    return _card(f"{head}<table>{''.join(rows)}</table>")


def _words(words: list[str]) -> str:
    shown = escape(" ".join(words[:MOST_WORDS]))
    return shown + (f" ... ({len(words):,} in all)" if len(words) > MOST_WORDS else "")


def _card(body: str) -> str:
    return f'<style>{_STYLE}</style><div class="icl-card">{body}</div>'
