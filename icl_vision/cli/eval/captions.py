"""`icl-vision eval captions`: how near captions come to what people wrote, in rows beside what needs no LLM.

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
from icl_vision.cli.options.measuring import answering_options, measure
from icl_vision.cli.options.runs import RunOptions, run_options


@click.command(name="captions", cls=ListsCommand)
@click.option(
    "--data",
    required=True,
    metavar="PATH",
    type=click.Path(exists=True, path_type=Path),
    help="Pictures with captions: a folder or tar archive with COCO's index.json or a captions.jsonl, or a file of "
    "JSON lines {image, caption} with two captions or more each.",
)
@click.option(
    "--examples",
    multiple=True,
    metavar="PATH...",
    type=click.Path(exists=True, path_type=Path),
    help="Further pictures with captions that may be shown as examples, never captioned themselves. Default: the other "
    "parts of --data.",
)
@answering_options
@run_options
@trust_option
@seed_option()
@json_option
@quiet_option
def command(
    data: Path,
    examples: tuple[Path, ...],
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
    """Measure captions: CIDEr-D, BLEU-4 and ROUGE-L, beside the nearest picture's copied caption and a fixed sentence.

    Each picture is captioned after examples that look nearest, of parts and files that are not captioned. Its first
    caption is held back as a row of its own (how near one person comes to the others); all rows are judged by the
    others. Every caption is journalled in --out; --resume goes on, also with more rows or a larger -n.
    """
    from icl_vision.evaluation.answering.benches import caption_bench
    from icl_vision.evaluation.answering.config import AnsweringConfig
    from icl_vision.evaluation.answering.evaluation import AnsweringEvaluation
    from icl_vision.evaluation.answering.readers import read_captions
    from icl_vision.evaluation.answering.rows import PHOTO

    run.needs_out()
    config = AnsweringConfig("captions", rows, n, shots, seed, k, task_options(options))
    found = read_captions(data, trust=trust)
    others = [read_captions(path, trust=trust) for path in examples]
    bench = caption_bench(found, split, examples=others, tokenizer=run.load(PHOTO), shots=shots, seed=seed)
    measure(
        llms,
        api,
        lambda llm, load: AnsweringEvaluation(bench, "cider", llm=llm, config=config, load=load),
        run,
        command="eval captions",
        concurrency=concurrency,
        pictures=pictures,
        as_json=as_json,
        quiet=quiet,
    )
