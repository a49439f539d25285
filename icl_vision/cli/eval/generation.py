"""`icl-vision eval generation`: how well an LLM draws digits.

Knows: the command's options and what it prints. Refuses to know: how drawings are made and measured.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import click

from icl_vision.cli.options.common import bar, json_option, kept, print_json, quiet_option, say, try_out
from icl_vision.cli.options.generation import drawing_options

ATTRIBUTION = "The examples are MNIST's digits (Y. LeCun, C. Cortes, C. J. C. Burges), CC BY-SA 3.0."


@click.command("generation")
@click.option(
    "--data",
    metavar="FILE.npz",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Digits for the contexts: an .npz file with x_train and y_train, as MNIST has. Default: the 100 packaged "
    "digits, from which contexts overlap.",
)
@click.option(
    "-n",
    "--n",
    "n",
    type=click.IntRange(min=10),
    default=200,
    show_default=True,
    help="Drawings of each row, ten from each context: 200 give intervals of about four points at 90%.",
)
@click.option(
    "--questions",
    type=click.Choice(["digits", "arithmetic", "common-sense"]),
    default="digits",
    show_default=True,
    help="What is asked for: 'an image of 3', 'an image of 1+2', 'an image of the number of legs of a spider'. The "
    "examples always say 'an image of 3'.",
)
@click.option(
    "--control",
    "controls",
    type=click.Choice(["single pass", "shuffled texts", "none"]),
    multiple=True,
    default=("single pass", "shuffled texts"),
    show_default=True,
    help="Rows that ask the LLM again. Repeat it for several; none for none, which is quicker.",
)
@click.option(
    "--control-n",
    type=click.IntRange(min=10),
    default=50,
    show_default=True,
    help="Drawings of each control, from the first contexts: they take as long as the LLM's own.",
)
@click.option(
    "--out",
    metavar="RUN",
    required=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Run folder: every segment is kept there as soon as it is answered; results.json, report.html and a "
    "grid of drawings for each row at the end.",
)
@click.option("--resume", is_flag=True, help="Go on with the run in --out. Same options.")
@click.option("--dry-run", is_flag=True, help="Print the plan only. Nothing is asked.")
@drawing_options
@json_option
@quiet_option
def command(
    data: Path | None,
    n: int,
    questions: str,
    controls: tuple[str, ...],
    control_n: int,
    out: Path,
    resume: bool,
    dry_run: bool,
    drawing: dict[str, Any],
    as_json: bool,
    quiet: bool,
) -> None:
    """Measure how many drawn digits are read right, beside baselines without an LLM and controls.

    With --json the output is what results.json of the run folder holds.
    """
    from icl_vision.evaluation.drawing.evaluation import COPY, GenerationConfig, GenerationEvaluation
    from icl_vision.evaluation.drawing.items import TEXTS, DigitPool
    from icl_vision.evaluation.drawing.page import SHOWN, render_page, row_grid
    from icl_vision.evaluation.drawing.summary import drawings_of, render, summarise
    from icl_vision.evaluation.kit.digit_reader import DigitReader
    from icl_vision.evaluation.kit.running import machine
    from icl_vision.files.runs import Run, versions
    from icl_vision.files.storage import atomic_path, write_text
    from icl_vision.llms import connect
    from icl_vision.tasks.draw.generator import ImageGenerator
    from icl_vision.tokenizers import ImageTokenizer
    from icl_vision.tokenizers.wrapping import fingerprint

    if not dry_run:
        try_out(out, folder=True)
    tokenizer = ImageTokenizer.from_pretrained(drawing["tokenizer"])
    llm = connect(drawing["llm"])
    reader = DigitReader()
    chosen = () if "none" in controls else tuple(dict.fromkeys(controls))
    config = GenerationConfig(n, TEXTS[questions], drawing["shots"], drawing["seed"], chosen, control_n)
    generator = ImageGenerator(**drawing | {"tokenizer": tokenizer, "llm": llm})
    pool = DigitPool.packaged() if data is None else DigitPool.read(data)
    evaluation = GenerationEvaluation(generator, tokenizer, pool, reader, config)
    plan, contexts = evaluation.plan()
    say(f"a context of ten drawings:\n{plan}\ncontexts            {contexts}, controls included", quiet=quiet)
    if llm.profile.embedded:
        say(f"time                about {contexts * plan.seconds() / 60:,.0f} min on two cores", quiet=quiet)
    if dry_run:
        if as_json:
            print_json({"context": plan.to_dict(), "contexts": contexts})
        return
    settings: dict[str, Any] = {
        "data": pool.name,
        "n": n,
        "questions": questions,
        "controls": list(chosen),
        "control_n": control_n,
        "drawing": drawing | {"tokenizer": fingerprint(tokenizer), "llm": llm.profile.name},
        "reader": reader.card.get("files"),
    }
    started = time.monotonic()
    with kept(out, quiet=quiet), Run.open(out, "eval generation", settings, seed=drawing["seed"], resume=resume) as run:
        total = sum(1 for _ in evaluation.items())
        with bar(total, "row", quiet=quiet, done=len(run.done)) as done:
            evaluation.draw(run, done=lambda row, number: done())
        results: dict[str, Any] = {
            "format_version": 1,
            "kind": "generation",
            "llm": llm.profile.name,
            "tokenizer": tokenizer.name,
            "config": settings,
            "copy_threshold": COPY,
            **summarise(run, tokenizer, reader.name),
            "seconds": time.monotonic() - started,
            "machine": machine(),
            "versions": versions(),
        }
        run.finish(results)
        drawings, _ = drawings_of(run)
        write_text(out / "report.html", render_page(results, drawings, tokenizer, ATTRIBUTION))
        for name, by_context in drawings.items():
            with atomic_path(out / "grids" / f"{name.replace(' ', '-')}.png") as temporary:
                row_grid(by_context, tokenizer, SHOWN).save(temporary, format="PNG", optimize=True)
    if as_json:
        print_json(results)
        return
    click.echo(render(results))
    say(f"kept in {out}; see {out / 'report.html'}", quiet=quiet)
