"""`icl-vision eval answers`: how well questions about pictures are answered, in rows beside what needs no LLM.

Knows: option names. Refuses to know: how anything is asked, judged or printed (``options.measuring``).
"""

from __future__ import annotations

from pathlib import Path

import click

from icl_vision.cli.options.common import (
    ListsCommand,
    json_option,
    quiet_option,
    seed_option,
    task_options,
    trust_option,
)
from icl_vision.cli.options.measuring import answering_options, measure, path_or_name
from icl_vision.cli.options.runs import RunOptions, run_options

NAMES = ("easy-vqa", "operator-induction", "operator-induction-text")


@click.command(name="answers", cls=ListsCommand)
@click.option(
    "--data",
    required=True,
    metavar="PATH|NAME",
    help="Questions: a folder or tar archive (COCO-QA with captions, VQAv2, OK-VQA, VL-ICL, Frozen's Fast-VQA, "
    "easy-VQA), a file of JSON lines {image, question, answer}; or easy-vqa, operator-induction, "
    "operator-induction-text, which need no files of yours.",
)
@click.option(
    "--images",
    metavar="DIR",
    type=click.Path(exists=True, path_type=Path),
    help="Where the pictures of VQAv2 and OK-VQA lie, or the digits of operator induction (an .npz file like MNIST's). "
    "Default: beside their files; the packaged digits.",
)
@click.option(
    "--metric",
    type=click.Choice(["exact", "vqa"]),
    help="exact: one of the answers, normalised; vqa: VQA accuracy by the official rule, which needs the answers of "
    "several people. Default: the set's own.",
)
@answering_options
@run_options
@trust_option
@seed_option()
@json_option
@quiet_option
def command(
    data: str,
    images: Path | None,
    metric: str | None,
    split: str | None,
    rows: tuple[str, ...],
    n: int | None,
    shots: int,
    k: int | None,
    options: tuple[str, ...],
    llms: tuple[str, ...],
    api: str,
    concurrency: int | None,
    pictures: bool,
    run: RunOptions,
    trust: bool,
    seed: int,
    as_json: bool,
    quiet: bool,
) -> None:
    """Measure answers to questions about pictures: our words, perfect words, no words, no LLM.

    Each question is asked after the examples nearest to it by its words, of all other pictures and never of its own;
    every row gets the same ones. Every answer is journalled in --out; after a stop of any kind the same command with
    --resume goes on, also with more rows or a larger -n. Prints each row with its 95% interval, and paired differences;
    writes results.json and report.html into --out.
    """
    from icl_vision.evaluation.answering.benches import question_bench
    from icl_vision.evaluation.answering.config import AnsweringConfig
    from icl_vision.evaluation.answering.evaluation import AnsweringEvaluation
    from icl_vision.evaluation.answering.readers import read_questions

    run.needs_out()
    config = AnsweringConfig("answers", rows, n, shots, seed, k, task_options(options))
    found = read_questions(path_or_name(data, NAMES), images=images, shots=shots or None, seed=seed, trust=trust)
    bench = question_bench(found, split, shots=shots, seed=seed)
    measure(
        llms,
        api,
        lambda llm, load: AnsweringEvaluation(bench, metric or found.metric, llm=llm, config=config, load=load),
        run,
        command="eval answers",
        concurrency=concurrency,
        pictures=pictures,
        as_json=as_json,
        quiet=quiet,
    )
