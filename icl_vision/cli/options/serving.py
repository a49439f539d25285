"""Options of the two commands that serve: who may ask in a browser, and what a picture may cost.

Knows: their wording and defaults. Refuses to know: what is served.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])


def allow_host_option(by: str = "") -> Callable[[F], F]:
    """``--allow-host``, as ``hosts``. by: over what the server is called, where it is called in several ways."""
    return click.option(
        "--allow-host",
        "hosts",
        multiple=True,
        metavar="NAME[:PORT]",
        help=f"Name that this server may be called by{by}, besides those of loopback. Repeat it for several.",
    )


cors_option = click.option(
    "--cors",
    "origins",
    multiple=True,
    metavar="ORIGIN",
    help="Origin whose pages may call and read answers in a browser, https://app.example. Default: none.",
)

most_bytes_option = click.option(
    "--most-bytes",
    type=click.IntRange(min=1),
    default=10 * 2**20,
    show_default=True,
    help="Bytes that a picture may have: more than photographs need, less than hurts.",
)

most_pixels_option = click.option(
    "--most-pixels",
    type=click.IntRange(min=1),
    default=25_000_000,
    show_default=True,
    help="Pixels that a picture may have; what is decoded takes three bytes for each.",
)
