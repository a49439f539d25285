"""What `icl-vision eval answers` and `icl-vision eval captions` share: options, running, printing.

Knows: option names, several LLMs one after the other. Refuses to know: what is measured, where data lies.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from icl_vision.cli.options.common import kept, print_json, progress_wanted, say
from icl_vision.cli.options.runs import Parts, RunOptions, slotted
from icl_vision.wording import counted

if TYPE_CHECKING:
    from icl_vision.asking.plan import Plan
    from icl_vision.contracts import TextLLM, Tokenizer
    from icl_vision.evaluation.answering.evaluation import AnsweringEvaluation, Finished
    from icl_vision.evaluation.answering.rows import Row

F = TypeVar("F", bound=Callable[..., Any])

_OPTIONS = (
    click.option(
        "--split",
        metavar="PART",
        help="The part of the data that is asked. Needed where it has parts, such as test and tuning; default: all of "
        "it, where it has none.",
    ),
    click.option(
        "--rows",
        multiple=True,
        default=("all",),
        show_default="all",
        metavar="all|ladder|ROW...",
        help="Rows of the table: what stands for the picture, and with a colon how the answer is found (fused, "
        "greedy), as in describe:fused. ladder: the few rows that say how much of what perfect words would give ours "
        "give. Rows may be added to a run with --resume.",
    ),
    click.option(
        "-n",
        "--n",
        "n",
        type=click.IntRange(min=1),
        help="So many items, drawn by the seed; a larger number has those of a smaller one. Default: all of the part.",
    ),
    click.option(
        "--shots",
        type=click.IntRange(min=0),
        default=8,
        show_default=True,
        help="Examples shown before each, of other pictures; eight, as in the trials behind the default.",
    ),
    click.option(
        "-k",
        "k",
        type=click.IntRange(min=1),
        help="Most words that a prompt shows of a picture (of a part, where words have parts), in rows that do not say "
        "it. Default: the tokenizer's own.",
    ),
    click.option(
        "--option",
        "options",
        multiple=True,
        metavar="NAME=VALUE...",
        help="Any other option of the task, as vision_weight=1 or template=answer_pica; VALUE is read as YAML. "
        "Default: the task's own.",
    ),
    click.option(
        "--llm",
        "llms",
        multiple=True,
        default=("local",),
        show_default="local",
        metavar="SPEC...",
        help="LLM, as for icl_vision.connect; several are measured one after the other, each in a folder of its own in "
        "--out (budgets hold for each). The default needs no key and no network.",
    ),
    click.option(
        "--api",
        type=click.Choice(["auto", "chat", "completions", "responses"]),
        default="auto",
        show_default=True,
        help="How every LLM is spoken to, as for icl_vision.connect. completions: instruct models too go on with plain "
        "text, which small ones do better after examples; auto chats with them and scores plain text.",
    ),
    click.option(
        "--concurrency",
        type=click.IntRange(min=1),
        help="Items worked on at the same time. Default: 1 for an LLM on this machine, whose cores one fills, 8 for "
        "others.",
    ),
    click.option(
        "--pictures",
        is_flag=True,
        help="Put small copies of the pictures into report.html. Default: off, since a page may be passed on and "
        "pictures of data sets may not.",
    ),
)


def answering_options(function: F) -> F:
    """Adds the options to a command."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


def measure(
    llms: Sequence[str],
    api: str,
    make: Callable[[TextLLM, Callable[[str], Tokenizer]], AnsweringEvaluation],
    run: RunOptions,
    *,
    command: str,
    concurrency: int | None,
    pictures: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Measure each LLM, print its table, and write results.json and report.html; with --dry-run print plans.

    api: how they are spoken to, as for ``connect``. make: the evaluation of an LLM, with what loads a tokenizer by its
    name.
    """
    several = len(dict.fromkeys(llms)) > 1
    documents: list[Any] = []
    failed: list[tuple[str, Finished]] = []
    for spec in dict.fromkeys(llms):
        own = run if not several or run.out is None else run.inside(folder_of(spec))
        parts = own.connect(slotted(spec, api), None)
        assert not isinstance(parts.llm, str)  # it was connected
        evaluation = make(parts.llm, own.load)
        if run.dry_run:
            documents.append(_show_plan(evaluation, own, as_json=as_json))
            continue
        finished = _run(evaluation, own, parts, command, concurrency, pictures, as_json=as_json, quiet=quiet)
        documents.append(finished.results)
        if finished.failed:
            failed.append((spec, finished))
    if as_json:
        print_json(documents if several else documents[0])
    for spec, finished in failed:
        # A failure is no remark: --quiet keeps it.
        say(f"{spec}: {counted(finished.failed, 'answer')} failed, not counted in the figures; --resume asks again")
        say(finished.problem)
    if failed:
        raise click.exceptions.Exit(1)


def folder_of(spec: str) -> str:
    """The name of an LLM's folder among several: its spec in letters that a file name may have."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", spec).strip("-.") or "llm"


def _run(
    evaluation: AnsweringEvaluation,
    run: RunOptions,
    parts: Parts,
    command: str,
    concurrency: int | None,
    pictures: bool,
    *,
    as_json: bool,
    quiet: bool,
) -> Finished:
    from icl_vision.evaluation.answering.page import answering_page
    from icl_vision.evaluation.answering.summary import render
    from icl_vision.files.storage import write_text

    assert run.out is not None  # the command saw to it
    with kept(run.out, quiet=quiet):
        finished = evaluation.run(
            run.out,
            command=command,
            resume=run.resume,
            concurrency=concurrency or (1 if evaluation.llm.profile.embedded else 8),
            progress=progress_wanted(quiet),
            say=lambda text: say(text, quiet=quiet),
            prices=None if run.prices is None else run.price_table(),
        )
    write_text(
        run.out / "report.html", answering_page(evaluation, finished.folder, finished.results, pictures=pictures)
    )
    if not as_json:
        click.echo(f"{finished.results['llm']}, {evaluation.bench.name}\n{render(finished.results)}")
    say(
        f"{counted(finished.asked, 'answer')} found, {finished.kept:,} known from before, {finished.failed:,} failed; "
        f"results in {run.out / 'results.json'}, page in {run.out / 'report.html'}",
        quiet=quiet,
    )
    parts.report(quiet=quiet)
    return finished


def _show_plan(evaluation: AnsweringEvaluation, run: RunOptions, *, as_json: bool) -> dict[str, Any]:
    from icl_vision.evaluation.answering.evaluation import PLANNED

    prices = run.price_table()
    planned = evaluation.plan(prices, run.out if run.resume else None)
    rows = [_planned(row, plan, items) for row, plan, items in planned]
    document = {"llm": evaluation.llm.profile.name, "items": len(evaluation.items), "rows": rows}
    if as_json:
        return document
    click.echo(f"{document['llm']}, {evaluation.bench.name}: {counted(len(evaluation.items), 'item')}")
    if not rows:
        click.echo("There is nothing to ask: no row asks an LLM, or every answer is there.")
        return document
    for row in rows:
        if row.get("note"):
            click.echo(f"{row['name']:<26} {row['note']}")
            continue
        cost = row["cost"]
        money = f"; cost {cost['amount']:.4f}" if cost.get("amount") is not None else ""
        click.echo(
            f"{row['name']:<26} about {row['requests']:,} requests, {row['prompt_tokens']:,} prompt tokens "
            f"({row['cached_tokens']:,} of them from a cache), {row['completion_tokens']:,} written{money}"
        )
    click.echo(
        f"Estimated from the first {PLANNED} items of each row. Rows that share prompts cost less together where "
        "answers are cached; rows that ask no LLM cost nothing."
    )
    return document


def _planned(row: Row, plan: Plan | str, items: int) -> dict[str, Any]:
    if isinstance(plan, str):
        return {"name": row.name, "items": items, "note": plan}
    scale = items / max(1, plan.queries)
    usage = plan.usage
    amount = plan.cost.amount
    return {
        "name": row.name,
        "items": items,
        "requests": round(usage.requests * scale),
        "prompt_tokens": round(usage.prompt_tokens * scale),
        "cached_tokens": round(usage.cached_tokens * scale),
        "completion_tokens": round(usage.completion_tokens * scale),
        "cost": plan.cost.to_dict() if amount is None else {"amount": amount * scale},
    }


def path_or_name(value: str, known: Sequence[str]) -> str:
    """A path that is there, or one of the known names.

    Raises:
        click.UsageError: neither.
    """
    if value not in known and not Path(value).exists():
        raise click.UsageError(f"--data {value!r} is no file or folder, and none of the names {', '.join(known)}")
    return value
