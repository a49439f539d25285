"""The few-shot page: support sets, queries, words and probabilities, to be looked at rather than read.

Knows: how to lay out episodes that somebody else ran. Refuses to know: how they were run or scored;
it is handed plain values.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from icl_vision.viz.page import accuracy_bars, chips, document, escape, percent, picture, thumbnail

if TYPE_CHECKING:
    from icl_vision.images import ImageSource

SUPPORT_SIDE = 112
QUERY_SIDE = 208
# Far apart on the wheel, and in an order that keeps neighbours different; reused after eight classes.
HUES = (214, 28, 140, 330, 268, 52, 182, 4)


@dataclass(frozen=True, slots=True)
class SupportTile:
    """One labelled example: where its image is, its words and its label."""

    image: ImageSource
    words: Sequence[str]
    label: str


@dataclass(frozen=True, slots=True)
class QueryTile:
    """One question: the image, its words, the true label, the answer (None = abstained) and its probabilities."""

    image: ImageSource
    words: Sequence[str]
    truth: str
    answer: str | None
    probabilities: Mapping[str, float] | None = None

    @property
    def right(self) -> bool:
        return self.answer == self.truth


@dataclass(frozen=True, slots=True)
class EpisodeView:
    """A support set and its queries. labels: the ways, in order."""

    labels: Sequence[str]
    support: Sequence[SupportTile]
    queries: Sequence[QueryTile]


@dataclass(frozen=True, slots=True)
class PromptView:
    """The prompt of the first rightly answered query (else of the first), as sent.

    shared: the part that is the same for every query.
    asked: (text after the shared part, its share of the probability or None).
    note: one sentence on how the asked lines decide.
    """

    shared: str
    asked: Sequence[tuple[str, float | None]]
    note: str


@dataclass(frozen=True, slots=True)
class FewShotPage:
    """Everything on the page.

    result: accuracy object of the LLM. baselines: name -> accuracy object, shown in this order.
    legend: baseline name -> one line on what it is. facts: name -> value for the foot of the page.
    attribution: whose pictures these are, plain text.
    """

    title: str
    llm: str
    result: Mapping[str, Any]
    baselines: Mapping[str, Mapping[str, Any]]
    legend: Mapping[str, str]
    episodes: Sequence[EpisodeView]
    prompt: PromptView | None = None
    facts: Mapping[str, object] = field(default_factory=dict)
    attribution: str = ""


STYLE = """
.top { display: grid; grid-template-columns: minmax(0, 5fr) minmax(0, 6fr); gap: 18px; margin: 20px 0; }
.headline { display: flex; flex-direction: column; justify-content: center; }
.headline .number { font-size: clamp(3.2rem, 9vw, 5rem); font-weight: 750; line-height: 1; letter-spacing: -.03em;
  color: var(--accent); }
.line { display: flex; flex-wrap: wrap; gap: 12px 18px; align-items: center; margin-bottom: 14px; }
.hop { display: flex; gap: 16px; align-items: center; min-width: 0; }
.hop.said .chips { margin-bottom: 4px; }
.hop.answer { font-size: 1.25rem; line-height: 1.3; }
.arrow { color: var(--soft); font-size: 1.4rem; }
.hop.answer, .hop.model { font-weight: 650; }
.caption { display: block; font-size: .78rem; color: var(--soft); font-weight: 400; }
.episode { margin-top: 34px; }
.episode > header { display: flex; flex-wrap: wrap; gap: 4px 14px; align-items: baseline; margin-bottom: 10px; }
.marks { letter-spacing: .15em; font-weight: 700; }
.good { color: var(--good); } .bad { color: var(--bad); }
.step { max-width: none; font-size: .84rem; color: var(--soft); margin: 14px 0 6px; }
.support { display: grid; grid-auto-flow: column; grid-auto-columns: minmax(190px, 1fr); gap: 10px; overflow-x: auto;
  scroll-snap-type: x proximity; padding-bottom: 6px; }
.class { background: var(--card); border: 1px solid var(--line); border-top: 4px solid hsl(var(--h) 60% 52%);
  border-radius: 12px;
  padding: 9px 11px 11px; scroll-snap-align: start; }
.class h3 { margin: 0 0 7px; font-size: .95rem; }
.shot { display: grid; grid-template-columns: 56px minmax(0, 1fr); gap: 9px; align-items: start; margin-top: 8px; }
.shot .chips li { font-size: .73rem; padding: 0 .45em; } .shot .chips { gap: 3px; }
.queries { display: grid; grid-template-columns: repeat(auto-fill, minmax(206px, 1fr)); gap: 10px; }
.query { background: var(--card); border: 1px solid var(--line); border-radius: 12px; padding: 11px; display: flex;
  flex-direction: column; gap: 9px; }
.query.wrong { border-color: var(--bad); }
.query img { width: 100%; height: 148px; }
.query .verdict { font-weight: 650; line-height: 1.3; }
.query .verdict small { display: block; font-weight: 400; color: var(--soft); }
.guess { display: grid; grid-template-columns: minmax(0, 6.6em) minmax(0, 1fr) 3.1em; gap: 3px 8px;
  align-items: center; font-size: .8rem; margin-top: auto; }
.guess .track { height: 9px; background: var(--track); border-radius: 4px; overflow: hidden; }
.guess .fill { display: block; height: 100%; background: hsl(var(--h) 60% 52%); }
.guess .name { overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
.guess .true { font-weight: 700; }
.guess .value { text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums; color: var(--soft); }
.asked { border-collapse: collapse; font-size: .84rem; margin: .6em 0; } .asked td { padding: 2px 14px 2px 0;
  vertical-align: top; }
.asked td:last-child { text-align: right; font-variant-numeric: tabular-nums; }
.asked .best td { font-weight: 700; }
code { font-family: ui-monospace, "DejaVu Sans Mono", Menlo, Consolas, monospace; white-space: pre-wrap; }
dl.facts { display: grid; grid-template-columns: max-content 1fr; gap: 0 14px; } dl.facts dd { margin: 0; }
@media (max-width: 760px) {
  .top { grid-template-columns: minmax(0, 1fr); }
  .line { gap: 10px 12px; } .hop { gap: 10px; } .hop.said { flex: 1 1 150px; }
  .support { grid-auto-columns: 76%; }
  .queries { grid-template-columns: minmax(0, 1fr); }
  .query { display: grid; grid-template: auto 1fr auto / 104px minmax(0, 1fr); gap: 7px 12px; align-items: start; }
  .query img { height: 104px; grid-row: span 2; }
  .guess { grid-column: 1 / -1; }
}
"""


def render_few_shot_page(page: FewShotPage) -> str:
    """The page as one self-contained HTML string (images inline, nothing loaded from anywhere)."""
    parts = [f"<h1>{escape(page.title)}</h1>", _how_it_works(page), _top(page)]
    parts += [_episode(number, view) for number, view in enumerate(page.episodes, start=1)]
    parts.append(_foot(page))
    return document(page.title, "\n".join(part for part in parts if part), STYLE)


def _how_it_works(page: FewShotPage) -> str:
    """The line with a real query in it: image -> words -> LLM -> label."""
    queries = [query for view in page.episodes for query in view.queries]
    example = next((query for query in queries if query.right), queries[0] if queries else None)
    if example is None:
        return ""
    arrow = '<span class="arrow" aria-hidden="true">&rarr;</span>'
    hops = "".join(
        f'<div class="hop {kind}">{arrow}<div>{content}<span class="caption">{caption}</span></div></div>'
        for kind, content, caption in (
            ("said", chips(example.words), "the photograph as ordinary words: all the model gets"),
            ("model", escape(page.llm), "frozen, text only"),
            ("answer", escape(example.answer or "no answer"), "its likeliest label"),
        )
    )
    prompt = "" if page.prompt is None else _prompt(page.prompt)
    return (
        f'<section class="card" aria-label="How it works"><div class="line">'
        f"{picture(thumbnail(example.image, QUERY_SIDE), 'a photograph', 84)}{hops}</div>{prompt}</section>"
    )


def _prompt(prompt: PromptView) -> str:
    scores = [score for _, score in prompt.asked if score is not None]
    rows = "".join(
        f"<tr{' class=best' if score is not None and score == max(scores) else ''}><td><code>{escape(text)}</code></td>"
        f"<td>{'' if score is None else percent(score)}</td></tr>"
        for text, score in prompt.asked
    )
    return (
        "<details><summary>The prompt of this question, as sent</summary>"
        f'<pre>{escape(prompt.shared)}</pre><p class="small soft">{escape(prompt.note)}</p>'
        f'<table class="asked">{rows}</table></details>'
    )


def _top(page: FewShotPage) -> str:
    result = page.result
    low, high = result["interval"]
    right = round((result["accuracy"] or 0) * result["n"])
    rows = [(page.llm, result), *((name.replace("_", " "), row) for name, row in page.baselines.items())]
    legend = "".join(
        f"<br><b>{escape(name.replace('_', ' '))}</b>: {escape(page.legend[name])}"
        for name in page.baselines
        if name in page.legend
    )
    return (
        '<section class="top"><div class="card headline">'
        f'<div class="number">{percent(result["accuracy"])}</div>'
        f"<p><b>{right} of {result['n']}</b> photographs named right"
        f'<br><span class="soft">95% interval {percent(low, 1)} to {percent(high, 1)}, '
        f"scored by {escape(result['scorer'])}</span></p></div>"
        f'<div class="card">{accuracy_bars(rows)}<p class="small soft">Bars: share of right answers on the same '
        f"questions; whiskers: 95% Wilson interval.{legend}</p></div></section>"
    )


def _episode(number: int, view: EpisodeView) -> str:
    hues = {label: HUES[index % len(HUES)] for index, label in enumerate(view.labels)}
    owners: dict[str, set[str]] = {}
    for tile in view.support:
        for word in tile.words:
            owners.setdefault(word, set()).add(tile.label)

    def hue(word: str) -> int | None:
        labels = owners.get(word, set())
        return hues[next(iter(labels))] if len(labels) == 1 else None

    right = sum(query.right for query in view.queries)
    marks = "".join(_mark(query) for query in view.queries)
    classes = "".join(
        f'<div class="class" style="--h:{hues[label]}"><h3>{escape(label)}</h3>'
        + "".join(
            f'<div class="shot">{picture(thumbnail(tile.image, SUPPORT_SIDE), f"example of {label}", 56)}'
            f"{chips(tile.words, hue)}</div>"
            for tile in view.support
            if tile.label == label
        )
        + "</div>"
        for label in view.labels
    )
    queries = "".join(_query(query, view.labels, hues, hue) for query in view.queries)
    return (
        f'<section class="episode"><header><h2>Episode {number}</h2>'
        f'<span class="marks" role="img" aria-label="{right} of {len(view.queries)} right">{marks}</span>'
        f'<span class="soft">{right} of {len(view.queries)} right</span></header>'
        '<p class="step">Shown: the examples, as their words. A coloured word occurs in one class only.</p>'
        f'<div class="support" tabindex="0" aria-label="support set">{classes}</div>'
        '<p class="step">Asked: photographs it was not shown. '
        "A word takes the colour of the class whose examples hold it.</p>"
        f'<div class="queries">{queries}</div></section>'
    )


def _mark(query: QueryTile) -> str:
    kind, sign = ("good", "&#10003;") if query.right else ("bad", "&#10007;")
    return f'<span class="{kind}">{sign}</span>'


def _query(query: QueryTile, labels: Sequence[str], hues: Mapping[str, int], hue: Any) -> str:
    says = escape(query.answer if query.answer is not None else "no answer")
    remark = "right" if query.right else f"wrong: it is {query.truth}"
    bars = ""
    if query.probabilities is not None:
        rows = []
        for label in labels:
            share = min(1.0, max(0.0, query.probabilities.get(label, 0.0)))
            strong = " true" if label == query.truth else ""
            rows.append(
                f'<span class="name{strong}" title="{escape(label)}">{escape(label)}</span>'
                f'<span class="track" style="--h:{hues[label]}">'
                f'<span class="fill" style="width:{share:.1%}"></span></span>'
                f'<span class="value">{percent(share)}</span>'
            )
        bars = f'<div class="guess" aria-label="probabilities">{"".join(rows)}</div>'
    photograph = picture(thumbnail(query.image, QUERY_SIDE), f"photograph of {query.truth}", 184, 148)
    outline = "" if query.right else " wrong"
    return (
        f'<article class="query{outline}">{photograph}'
        f'<div class="verdict">{_mark(query)} {says}<small>{escape(remark)}</small></div>'
        f"{chips(query.words, hue)}{bars}</article>"
    )


def _foot(page: FewShotPage) -> str:
    facts = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in page.facts.items())
    return f'<footer><dl class="facts">{facts}</dl><p>{escape(page.attribution)}</p></footer>'
