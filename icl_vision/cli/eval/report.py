"""`icl-vision eval report`: the page of a finished few-shot run, written anew.

Knows: option names. Refuses to know: what a page looks like (``viz.benchmark.page``), and how the run was made.
"""

from __future__ import annotations

from pathlib import Path

import click

from icl_vision.cli.options.common import ListsCommand, trust_option, try_out


@click.command(name="report", cls=ListsCommand)
@click.argument("run", type=click.Path(exists=True, file_okay=False, path_type=Path), metavar="RUN")
@click.option(
    "--others",
    multiple=True,
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    metavar="RUN...",
    help="Finished runs of the same questions, LLM and options with other numbers of words (-k), for a plot of "
    "accuracy against words. Default: none, and no such plot, since one run has one number of words.",
)
@click.option(
    "--images",
    metavar="DIR",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Where the run's images lie now. Default: none, and the page shows words alone.",
)
@trust_option
@click.option("--title", metavar="TEXT", help="Title of the page. Default: the run's LLM and tokenizer.")
def command(run: Path, others: tuple[Path, ...], images: Path | None, trust: bool, title: str | None) -> None:
    """Write report.html of a finished `icl-vision eval few-shot` RUN anew, and print its path.

    For instance when images have moved, or to put runs with other numbers of words beside it. Nothing is asked.
    """
    from icl_vision.viz.benchmark.page import write_report

    try_out(run / "report.html", folder=False)
    click.echo(str(write_report(run, title=title, images=images, others=others, trust=trust)))
