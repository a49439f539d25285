"""`icl-vision train router`: a router fitted to one's own lines.

Knows: options, and what is said at the end. Refuses to know: how a router is fitted or what it counts.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from icl_vision.cli.options.common import json_option, print_json, quiet_option, say, seed_option, try_out
from icl_vision.wording import counted


@click.command("router")
@click.option(
    "--lines",
    "lines",
    required=True,
    multiple=True,
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE.jsonl",
    help='Your lines, a JSON object each: {"route": "draw", "text": "a moose in oils"}, route being draw or text; '
    '"language" is kept apart where it is given. {"fill": {"x": "a moose"}} fills {x} in the texts of its language. '
    "May be repeated.",
)
@click.option(
    "--alone",
    is_flag=True,
    help="Learn from your lines alone. Default: along with the packaged ones, in twelve languages.",
)
@click.option(
    "--out",
    required=True,
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE.json",
    help="The router: words, counts and thresholds, as JSON.",
)
@seed_option()
@json_option
@quiet_option
def router_command(lines: tuple[Path, ...], alone: bool, out: Path, seed: int, as_json: bool, quiet: bool) -> None:
    """Train the router that tells requests for a picture from everything else.

    Seconds on one core. Probabilities and thresholds are set on instructions that were left out, and so are the figures
    at the end. Needs scikit-learn (extra 't2i' or 'sklearn'); using a router needs neither.
    """
    from icl_vision.text_to_image.router import Router, packaged_lines

    try_out(out, folder=False)
    sources = list(lines) if alone else [packaged_lines(), *lines]
    say(f"reading {counted(len(sources), 'file')} of lines", quiet=quiet)
    router = Router.fit(sources, seed=seed)
    router.save(out)
    facts: dict[str, Any] = router.facts
    calibration = router.calibration
    if as_json:
        thresholds = {"draw_from": calibration.draw_from, "text_below": calibration.text_below}
        print_json({"out": str(out.absolute()), "features": len(router.names), **thresholds, **facts})
        return
    measured = facts["held_out"]
    click.echo(
        f"{out.absolute()}: {counted(len(router.names), 'feature')} of {counted(facts['templates'], 'instruction')} "
        f"({facts['routes']['draw']:,} draw, {facts['routes']['text']:,} text)"
    )
    click.echo(
        f"drawn from a probability of {calibration.draw_from:g}, answered in text below {calibration.text_below:g}, "
        "unsure between"
    )
    click.echo(
        f"on instructions left out: {measured['accuracy_where_sure']:.1%} right where sure, unsure of "
        f"{measured['abstained']:.1%}, {measured['text_drawn']:.2%} of text drawn"
    )
    fit = measured["reliability"]
    low, high = fit["interval"]
    click.echo(f"calibration error there {fit['ece']:.3f} (95% {low:.3f} to {high:.3f}), n = {fit['n']:,}")
