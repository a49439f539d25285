"""`icl-vision eval compare`: two runs of one evaluation, or two rows of one run, on the same questions.

Knows: how a paired comparison reads. Refuses to know: how it is computed (``evaluation.compare``).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from icl_vision.cli.options.common import ListsCommand, json_option, print_json
from icl_vision.wording import counted

if TYPE_CHECKING:
    from icl_vision.evaluation.kit.compare import Comparison, Paired, PairedScores
    from icl_vision.evaluation.kit.metrics import Accuracy


@click.command(cls=ListsCommand)
@click.argument("run_a", type=click.Path(exists=True, file_okay=False, path_type=Path), metavar="RUN_A")
@click.argument(
    "run_b", required=False, type=click.Path(exists=True, file_okay=False, path_type=Path), metavar="[RUN_B]"
)
@click.option(
    "--rows",
    multiple=True,
    metavar="ROW...",
    help="With two runs: which rows, each against itself in the other run. Default: likelihood, the row of a report's "
    "headline; of answers and captions all rows that both have. With one run: the two rows to compare. Default: "
    "likelihood words_prototype, since an LLM that does not beat the mean of the words' vectors adds nothing; of "
    "answers and captions there is none.",
)
@click.option(
    "--settings",
    multiple=True,
    metavar="ID...",
    help="Settings by id, as in 5w-1s-0r-i; of answers: all, or types of questions, as in colour. Default: all that "
    "both have; naming fewer corrects for fewer.",
)
@click.option(
    "--margin",
    type=click.FloatRange(0, 100, max_open=True),
    default=5.0,
    show_default=True,
    metavar="POINTS",
    help="Non-inferiority margin in points of accuracy: A counts as not inferior where the 95% interval of A - B lies "
    "above -POINTS. 5 is about the half width of an interval at 400 questions. Of CIDEr-D a hundredth of its unit.",
)
@json_option
def command(
    run_a: Path,
    run_b: Path | None,
    rows: tuple[str, ...],
    settings: tuple[str, ...],
    margin: float,
    as_json: bool,
) -> None:
    """Compare two runs on the same questions, paired.

    `compare RUN_A RUN_B` compares the same row of two runs of `icl-vision eval few-shot`, of `eval answers` or of `eval
    captions`; they must have asked the same questions (the same data and seed, or the same saved episodes) and may
    differ in everything else. `compare RUN --rows A B` compares two rows of one run. Only questions answered on both
    sides count.

    For each setting: both accuracies with 95% Wilson intervals, the questions that only A or only B got right,
    McNemar's exact p (and p after Holm's correction over everything compared), the difference A - B with its 95%
    interval (Tango), and whether A is non-inferior within the margin. Scores that are more than right or wrong
    (CIDEr-D, VQA accuracy) have means and a bootstrap interval of their difference instead.
    """
    from icl_vision.evaluation.kit.compare import compare_rows, compare_runs

    if run_b is not None:
        comparison = compare_runs(run_a, run_b, rows=rows, settings=settings, margin=margin / 100)
    else:
        two = rows or ("likelihood", "words_prototype")
        if len(two) != 2:
            raise click.UsageError(
                f"one run needs exactly two rows to compare (--rows A B); got {len(two)}: {' '.join(two)}"
            )
        comparison = compare_rows(run_a, two[0], two[1], settings=settings, margin=margin / 100)
    if as_json:
        print_json(comparison.to_dict())
        return
    click.echo(_text(comparison))


def _text(comparison: Comparison) -> str:
    from icl_vision.evaluation.kit.compare import PairedScores

    many = len(comparison.pairs) > 1
    lines = [f"A  {comparison.names[0]}", f"B  {comparison.names[1]}", ""]
    graded = any(isinstance(pair, PairedScores) for pair in comparison.pairs)
    for pair in comparison.pairs:
        lines += _scored(pair) if isinstance(pair, PairedScores) else _paired(pair, many)
    lines.append(
        f"95% interval: {comparison.methods['interval']}; not corrected for how many comparisons there are."
        if graded
        else "95% Wilson intervals of accuracies; 95% Tango interval of the difference; p: McNemar, exact, two-sided."
    )
    if many and not graded:
        lines.append(
            f"Holm: corrected for {counted(len(comparison.pairs), 'comparison')}; "
            "better and worse are said of corrected p < 0.05."
        )
    if comparison.unpaired:
        lines.append(f"In one run only, and counting for nothing here: {counted(comparison.unpaired, 'item')}.")
    return "\n".join(lines)


def _paired(pair: Paired, many: bool) -> list[str]:
    low, high = pair.interval
    rows = pair.first if pair.first == pair.second else f"{pair.first} against {pair.second}"
    corrected = f", Holm {pair.p_holm:.3g}" if many else ""
    said = {"better": "A is better", "worse": "A is worse"}.get(pair.verdict, pair.verdict)
    margin = f"{100 * pair.margin:g} points"
    return [
        f"{pair.setting}  {rows}  (n = {pair.n:,})",
        f"    A {_accuracy(pair.a)}   B {_accuracy(pair.b)}",
        f"    right only in A {pair.only_a:,}, only in B {pair.only_b:,}; p = {pair.p:.3g}{corrected}",
        f"    A - B = {100 * pair.difference:+.1f} points (95% {100 * low:+.1f} to {100 * high:+.1f}): {said}; "
        + (f"not inferior within {margin}" if pair.non_inferior else f"non-inferiority within {margin} not shown"),
        "",
    ]


def _scored(pair: PairedScores) -> list[str]:
    low, high = pair.difference.interval
    rows = pair.first if pair.first == pair.second else f"{pair.first} against {pair.second}"
    said = {"better": "A is better", "worse": "A is worse"}.get(pair.verdict, pair.verdict)
    return [
        f"{pair.setting}  {rows}  (n = {pair.n:,})",
        f"    A {pair.a:.4f}   B {pair.b:.4f}; A higher in {pair.difference.wins:,}",
        f"    A - B = {pair.difference.mean:+.4f} (95% {low:+.4f} to {high:+.4f}): {said}; "
        + (f"not inferior within {pair.margin:g}" if pair.non_inferior else f"non-inferiority within {pair.margin:g} "
           "not shown"),
        "",
    ]  # fmt: skip


def _accuracy(accuracy: Accuracy) -> str:
    low, high = accuracy.interval
    return f"{accuracy.correct / accuracy.n:.1%} ({low:.1%} to {high:.1%})"
