"""The fixed part of a benchmark page: headline, table, what each row saw, plots, cost. Readable without any script.

Knows: HTML of a results.json. Refuses to know: single items, and how anything was measured.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import PureWindowsPath
from typing import Any
from urllib.parse import quote

from icl_vision.viz.benchmark.data import Results
from icl_vision.viz.page import accuracy_bars, escape, percent
from icl_vision.viz.plots import Point, Series, legend, line_chart
from icl_vision.viz.reliability import reliability_section
from icl_vision.wording import counted

KINDS = {
    "llm": "The LLM",
    "baseline": "Baselines",
    "control": "Controls",
    "quoted": "Quoted from publications, not measured here",
}
SHOWN = ("likelihood", "exact", "words_prototype", "image_prototype", "constrained", "blind")
"""Rows that are drawn in the plots and the headline where a run has them, most telling first."""


def title_row(results: Results) -> str | None:
    """The row of the headline: likelihood, else the first of the LLM's that was measured, else any."""
    measured = [name for name in _names(results) if any(results.accuracy(name, s["id"]) for s in results.settings)]
    own = [row["name"] for row in results.rows if row["kind"] == "llm" and row["name"] in measured]
    return next((name for name in ("likelihood", *own, *measured) if name in measured), None)


def title_setting(results: Results, row: str) -> Mapping[str, Any] | None:
    """The setting of the headline: most ways, one shot, with task induction, else the first that was measured."""
    able = [setting for setting in results.settings if results.accuracy(row, setting["id"])]
    plain = [s for s in able if (s["shots"], s["repeats"], bool(s["induction"])) == (1, 0, True)]
    return max(plain, key=lambda setting: setting["ways"]) if plain else next(iter(able), None)


def headline(results: Results) -> str:
    """One number with everything that belongs to it, beside its baselines on the same questions."""
    row = title_row(results)
    setting = None if row is None else title_setting(results, row)
    if row is None or setting is None:
        return '<section class="card"><p>Nothing was measured in this run.</p></section>'
    accuracy = results.accuracy(row, setting["id"]) or {}
    low, high = accuracy["interval"]
    others = [
        name
        for name in dict.fromkeys((*SHOWN, *_names(results, "baseline")))
        if name != row and name in _names(results)
    ]
    bars = [(_plain(row), accuracy)]
    bars += [(_plain(name), share) for name in others if (share := results.accuracy(name, setting["id"]))][:8]
    means = "".join(
        f"<p><b>{percent(mean, 2)}</b> mean of the seven {ways}-way columns</p>"
        for (name, ways), mean in results.means.items()
        if name == row and mean is not None
    )
    missing = results.document.get("missing")
    failed = counted(missing, "question") if missing else ""
    unfinished = f'<p class="bad"><b>{failed} failed and not counted.</b></p>' if missing else ""
    return (
        '<section class="top"><div class="card headline">'
        f'<div class="number">{percent(accuracy["accuracy"], 1)}</div>'
        f"<p><b>{escape(_plain(row))}</b>, {escape(_setting_words(setting))}<br>"
        f'<span class="soft">95% interval {percent(low, 1)} to {percent(high, 1)}, n = {accuracy["n"]:,}; '
        f"{escape(_labels(_row(results, row)))}</span></p>{means}{unfinished}</div>"
        f'<div class="card">{accuracy_bars(bars)}<p class="small soft">The same questions for every bar but those with '
        "fewer episodes; whiskers: 95% Wilson interval.</p></div></section>"
    )


def table(results: Results) -> str:
    """The table: one block a number of ways, the papers' columns in it, every cell with interval and n."""
    blocks = []
    for ways in dict.fromkeys(setting["ways"] for setting in results.settings):
        settings = [setting for setting in results.settings if setting["ways"] == ways]
        blocks.append(_block(results, ways, settings))
    return (
        '<section id="table"><h2>The table</h2><p class="small soft">Per cent right, 95% Wilson interval, number of '
        "questions. Click a cell to see its questions.</p>" + "".join(blocks) + _what_rows_saw(results) + "</section>"
    )


def _block(results: Results, ways: int, settings: Sequence[Mapping[str, Any]]) -> str:
    def header(name: str, values: Iterable[object], last: str = "") -> str:
        cells = "".join(f"<th scope=col>{escape(value)}</th>" for value in values)
        return f'<tr><th scope="row" class="name">{name}</th>{cells}<th>{last}</th></tr>'

    head = (
        header("task induction", ("yes" if setting["induction"] else "no" for setting in settings), "mean of")
        + header("inner shots", (setting["shots"] for setting in settings), "seven")
        + header("repeats", (setting["repeats"] for setting in settings))
    )
    body = []
    for kind, called in KINDS.items():
        rows = [row for row in results.rows if row["kind"] == kind]
        rows = [
            row
            for row in rows
            if any((row["name"], setting["id"]) in results.cells for setting in settings)
            or results.means.get((row["name"], ways)) is not None
        ]
        if not rows:
            continue
        body.append(f'<tr class="group"><th colspan="{len(settings) + 2}"><span>{escape(called)}</span></th></tr>')
        for row in rows:
            cells = _absent(results, row["name"], settings) or "".join(
                f"<td>{_cell(results, row, setting['id'])}</td>" for setting in settings
            )
            mean = results.means.get((row["name"], ways))
            body.append(
                f'<tr class="{escape(kind)}"><th scope="row" class="name">{escape(_plain(row["name"]))}'
                f'<small class="soft">{escape(_labels(row))}</small></th>{cells}'
                f"<td><b>{'' if mean is None else f'{100 * mean:.2f}'}</b></td></tr>"
            )
    return (
        f'<h3>{ways}-way <span class="soft small">chance {100 / ways:.3g}</span></h3>'
        f'<div class="scroll" tabindex="0" role="region" aria-label="{ways}-way table"><table class="grid">'
        f"<thead>{head}</thead><tbody>{''.join(body)}</tbody></table></div>"
    )


def _absent(results: Results, row: str, settings: Sequence[Mapping[str, Any]]) -> str:
    """One wide cell where a row has no figure at all and every cell would give the same reason, else nothing."""
    notes = {str(results.cells.get((row, setting["id"]), {}).get("note") or "") for setting in settings}
    if len(notes) != 1 or "" in notes or any(results.accuracy(row, setting["id"]) for setting in settings):
        return ""
    return f'<td colspan="{len(settings)}"><small class="note">{escape(notes.pop())}</small></td>'


def _cell(results: Results, row: Mapping[str, Any], setting: str) -> str:
    cell = results.cells.get((row["name"], setting))
    if cell is None:
        return '<span class="soft">-</span>'
    accuracy = results.accuracy(row["name"], setting)
    note = str(cell.get("note") or "")
    if accuracy is None:
        return f'<small class="note">{escape(note or "-")}</small>'
    share, interval, n = accuracy["accuracy"], accuracy.get("interval"), accuracy.get("n")
    small = []
    if interval and row["kind"] != "quoted":
        small.append(f"{100 * interval[0]:.1f}\N{EN DASH}{100 * interval[1]:.1f}")
    if n:
        small.append(f"n {n:,}")
    inner = f"<b>{100 * share:.1f}</b>" + "".join(f"<small>{escape(text)}</small>" for text in small)
    if note and note != row["kind"]:
        # A sentence: it breaks into lines, or it would make every column as wide as itself.
        inner += f'<small class="note">{escape(note)}</small>'
    if row["kind"] == "quoted":
        return inner
    href = escape(f"#s={_quoted(setting)}&r={_quoted(row['name'])}")
    return f'<a href="{href}"><span class="level" style="width:{share:.1%}"></span>{inner}</a>'


def _what_rows_saw(results: Results) -> str:
    rows = "".join(
        f'<tr><th scope="row">{escape(_plain(row["name"]))}</th><td>{escape(row.get("meaning", ""))}'
        f"{_source(row)}</td><td>{_yes(row, 'constrained')}</td><td>{_yes(row, 'transductive')}</td>"
        f"<td>{_calls(row)}</td></tr>"
        for row in results.rows
    )
    return (
        "<details open><summary>What each row is, and what it was allowed to see</summary>"
        '<div class="scroll" tabindex="0" role="region" aria-label="rows"><table class="plain"><thead><tr>'
        "<th scope=col>row</th><th scope=col>what it is</th><th scope=col>output constrained to the labels</th>"
        "<th scope=col>transductive (sees other queries)</th><th scope=col>LLM calls a query</th></tr></thead>"
        f"<tbody>{rows}</tbody></table></div></details>"
    )


def _source(row: Mapping[str, Any]) -> str:
    source = row.get("source") or ""
    kind = "Quoted from" if row["kind"] == "quoted" else "Source:"
    return f' <span class="soft">{kind} {escape(source)}</span>' if source else ""


def _yes(row: Mapping[str, Any], name: str) -> str:
    return "not stated" if row["kind"] == "quoted" and not row.get(name) else ("yes" if row.get(name) else "no")


def _calls(row: Mapping[str, Any]) -> str:
    calls = row.get("llm_calls")
    return "not stated" if calls is None else f"{calls:g}"


def _labels(row: Mapping[str, Any]) -> str:
    """What must stand beside a row's name so that its figures are not taken for something else."""
    said = []
    if row["kind"] == "quoted":
        return "quoted"
    if row["kind"] == "llm":
        said.append("constrained output" if row.get("constrained") else "open-ended")
    if row.get("transductive"):
        said.append("transductive")
    calls = row.get("llm_calls")
    if calls is not None and (calls or row["kind"] == "llm"):
        said.append(f"{calls:g} LLM call{'' if calls == 1 else 's'}")
    return ", ".join(said)


def plots(results: Results, others: Sequence[Results] = ()) -> str:
    """Accuracy against shots and repeats, for each number of ways; against words where other runs have other k."""
    settings = [setting["id"] for setting in results.settings]
    measured = [name for name in _names(results) if any(results.accuracy(name, setting) for setting in settings)]
    names = [name for name in SHOWN if name in measured] or measured[: len(SHOWN)]
    charts = []
    for ways in dict.fromkeys(setting["ways"] for setting in results.settings):
        own = [setting for setting in results.settings if setting["ways"] == ways and setting["induction"]]
        for axis, field, fixed in (("inner shots", "shots", ("repeats", 0)), ("repeats", "repeats", ("shots", 1))):
            ticks = [(setting[field], results, setting["id"]) for setting in own if setting[fixed[0]] == fixed[1]]
            charts.append(_chart(f"{ways}-way, accuracy against {axis}", axis, names, _sorted(ticks), 1 / ways))
        if others:
            plain = next((s["id"] for s in own if (s["shots"], s["repeats"]) == (1, 0)), None)
            runs = [run for run in (results, *others) if isinstance(run.config.get("k"), int)]
            ticks = [(run.config["k"], run, plain) for run in runs if plain is not None]
            charts.append(
                _chart(f"{ways}-way 1 shot, accuracy against words", "words", names, _sorted(ticks), 1 / ways)
            )
    drawn = "".join(charts)
    if not drawn:
        return ""
    heading = "Shots, repeats and words" if others else "Shots and repeats"
    return (
        f'<section id="plots"><h2>{heading}</h2><p class="small soft">With task induction; per cent right, 95% '
        f'Wilson intervals; dotted: chance.</p><div class="plots">{drawn}</div>'
        f"{legend([_plain(name) for name in names])}</section>"
    )


def probabilities(results: Results) -> str:
    """How well the probabilities of each row fit what was true, the headline's row and plain settings first."""
    first = title_row(results)
    fits = [
        (name, setting, cell["reliability"])
        for (name, setting), cell in results.cells.items()
        if isinstance(cell.get("reliability"), Mapping)
    ]
    plain = {chosen["id"]: (-chosen["ways"], chosen["shots"]) for chosen in results.settings if _is_plain(chosen)}

    def telling(cell: tuple[str, str, Mapping[str, Any]]) -> tuple[bool, bool, tuple[int, int]]:
        return cell[0] != first, cell[1] not in plain, plain.get(cell[1], (0, 0))

    return reliability_section([(_plain(row), setting, fit) for row, setting, fit in sorted(fits, key=telling)])


def _is_plain(setting: Mapping[str, Any]) -> bool:
    return bool(setting["induction"]) and not setting["repeats"]


def _sorted(ticks: Iterable[tuple[float, Results, str]]) -> list[tuple[float, Results, str]]:
    return sorted(ticks, key=lambda tick: tick[0])


def _chart(
    title: str, axis: str, names: Sequence[str], ticks: Sequence[tuple[float, Results, str]], level: float
) -> str:
    if len({x for x, _, _ in ticks}) < 2:
        return ""
    series = []
    for name in names:
        points = []
        for x, run, setting in ticks:
            accuracy = run.accuracy(name, setting)
            if accuracy is not None:
                interval = accuracy.get("interval")
                points.append(
                    Point(x, accuracy["accuracy"], (interval[0], interval[1]) if interval else None, accuracy.get("n"))
                )
        series.append(Series(_plain(name), points))
    if not any(line.points for line in series):
        return ""
    drawn = line_chart(series, title=title, axis=axis, level=level)
    return f'<figure class="card"><figcaption>{escape(title)}</figcaption>{drawn}</figure>'


def cost(results: Results, usage: Mapping[str, Mapping[str, int]]) -> str:
    """What the run took: in all, and by setting for one question.

    Args:
        results: of the run.
        usage: setting -> sums over its items, with ``items``, their number.
    """
    names = ("requests", "prompt_tokens", "cached_tokens", "completion_tokens")
    total = dict(results.document.get("usage") or {})
    if "requests" not in total and results.document.get("requests") is not None:
        total["requests"] = results.document["requests"]
    facts = [(name.replace("_", " "), f"{total[name]:,}") for name in names if isinstance(total.get(name), int)]
    facts.append(("money", _money(results.document)))
    seconds = results.document.get("seconds")
    if isinstance(seconds, int | float):
        facts.append(("time", f"{seconds:,.0f} s"))
    summary = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in facts)
    ordered = [setting["id"] for setting in results.settings if usage.get(setting["id"], {}).get("items")]
    body = "".join(
        f'<tr><th scope="row">{escape(setting)}</th><td>{usage[setting]["items"]:,}</td>'
        + "".join(f"<td>{usage[setting].get(name, 0) / usage[setting]['items']:,.1f}</td>" for name in names)
        + "</tr>"
        for setting in ordered
    )
    head = "".join(f"<th scope=col>{name.replace('_', ' ')}</th>" for name in names)
    by_setting = (
        '<div class="scroll" tabindex="0" role="region" aria-label="cost by setting"><table class="plain numbers">'
        f"<thead><tr><th scope=col>mean of a question</th><th scope=col>questions</th>{head}</tr></thead>"
        f"<tbody>{body}</tbody></table></div>"
        if body
        else ""
    )
    parts = f'<dl class="facts">{summary}</dl>{by_setting}'
    return f'<section id="cost"><h2>Cost</h2><div class="cost">{parts}</div></section>'


def _money(document: Mapping[str, Any]) -> str:
    cost = document.get("cost")
    if isinstance(cost, Mapping):
        amount = cost.get("amount")
        return f"{amount:,.4f}" if amount is not None else f"unknown ({cost.get('reason') or 'no price given'})"
    return f"{cost:,.4f}" if isinstance(cost, int | float) else "unknown (no price given)"


def facts(results: Results) -> str:
    """Configuration, machine and versions, for the foot of the page; of a folder or file only its name."""
    shown: list[tuple[str, str]] = []
    for part in ("config", "machine", "versions"):
        values = results.document.get(part) or {}
        if isinstance(values, Mapping):
            shown += [(str(name), _fact(value)) for name, value in values.items() if value not in (None, "", [], {})]
    rows = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in shown)
    return (
        "<footer><details><summary>Configuration, machine, versions</summary>"
        f'<dl class="facts">{rows}</dl></details></footer>'
    )


def _fact(value: Any) -> str:
    if isinstance(value, str):
        return bare(value)
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_fact(inner)}" for name, inner in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(_fact(inner) for inner in value)
    return str(value)


def bare(text: str) -> str:
    """A path's last part: where a file lay on the machine is nobody's business. Other texts stay as they are.

    >>> bare("local:/home/somebody/model.gguf"), bare("openai:gpt-5")
    ('local:model.gguf', 'openai:gpt-5')
    """
    if PureWindowsPath(text).drive and PureWindowsPath(text).is_absolute():
        return PureWindowsPath(text).name
    return re.sub(r"(^|:)(?:/[^/@]+)*/(?=[^/@]+/?$)", r"\1", text)


def spoken(identity: str) -> str:
    """The name in an identity, for a title: what follows it (endpoint, hashes, settings) tells runs apart, not people.

    >>> spoken("local:gemma-3-270m-q4_k_m|completions"), spoken("local:/home/somebody/model.gguf|chat")
    ('gemma-3-270m-q4_k_m', 'model.gguf')
    """
    return bare(identity.partition("|")[0]).removeprefix("local:")


def _names(results: Results, kind: str = "") -> list[str]:
    return [row["name"] for row in results.rows if (row["kind"] == kind if kind else row["kind"] != "quoted")]


def _row(results: Results, name: str) -> Mapping[str, Any]:
    return next(row for row in results.rows if row["name"] == name)


def _plain(name: str) -> str:
    return name.replace("_", " ").replace("control:", "")


def _setting_words(setting: Mapping[str, Any]) -> str:
    shots, repeats = setting["shots"], setting["repeats"]
    said = f"{setting['ways']}-way, {shots} inner shot{'' if shots == 1 else 's'}"
    said += f", {repeats} repeat{'' if repeats == 1 else 's'}" if repeats else ""
    return said + ("" if setting["induction"] else ", no task induction")


def _quoted(text: str) -> str:
    return quote(text, safe="")
