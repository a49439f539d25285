"""`icl-vision mcp`: tools for agents whose model cannot see.

Knows: the command's options, standard output and addresses. Refuses to know: what a tool does (``serving.mcp``).
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from icl_vision.cli.options.common import quiet_option, say, tokenizer_option
from icl_vision.cli.options.serving import (
    allow_host_option,
    cors_option,
    most_bytes_option,
    most_pixels_option,
)

if TYPE_CHECKING:
    from icl_vision.serving.mcp.kit import Kit

PORT = 8710


@click.command("mcp")
@click.option(
    "--root",
    "roots",
    multiple=True,
    metavar="DIR",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Folder whose pictures a client may name. Repeat it for several. Default: none; pictures come as base64.",
)
@click.option(
    "--out",
    metavar="DIR",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder that tokenize_folder writes to, and nothing else does. Default: none, and no such tool.",
)
@click.option(
    "--classifier",
    "classifiers",
    multiple=True,
    metavar="[NAME=]FILE",
    help="A classifier that FewShotClassifier.save wrote, by the name that a client calls it (default: the file's). "
    "Repeat it for several. Its LLM is asked only if it is local or --llm names one.",
)
@click.option(
    "--examples",
    metavar="FILE",
    type=click.Path(exists=True, path_type=Path),
    help="What ask_image is shown: a file of JSON lines as for `icl-vision answer --support`, or a .json file that "
    "VisualQA.save wrote. Default: sixteen photographs of ours.",
)
@click.option(
    "--generator",
    metavar="FILE",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="What draw_image draws with: a file that ImageGenerator.save wrote. Default: the packaged digits.",
)
@click.option("--draw/--no-draw", default=True, show_default=True, help="Offer draw_image; a drawing takes a while.")
@tokenizer_option("describe-photo")
@click.option("-k", "k", type=click.IntRange(min=1), help="Most words of a part. Default: the tokenizer's own number.")
@click.option(
    "--ocr/--no-ocr",
    default=True,
    show_default=True,
    help="Read text in pictures, where the extra `ocr` is installed. It is handed on quoted, between fixed marks, and "
    "still a model may take it for an instruction.",
)
@click.option(
    "--llm",
    metavar="SPEC",
    help="LLM that answers and draws, as for icl_vision.connect. Default: local, which needs no key and no network.",
)
@click.option(
    "--http",
    is_flag=True,
    help="Serve streamable HTTP at --host and --port, path /mcp. Default: standard input and output, for one client "
    "that starts this command itself.",
)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen at, with --http.")
@click.option("--port", type=click.IntRange(0, 65535), default=PORT, show_default=True, help="Port, with --http.")
@click.option(
    "--token-env",
    metavar="NAME",
    help="Variable of the environment that holds the token which every HTTP client must show. Needed beyond loopback.",
)
@allow_host_option(" over HTTP")
@cors_option
@most_bytes_option
@most_pixels_option
@click.option(
    "--most-files",
    type=click.IntRange(min=1),
    default=1000,
    show_default=True,
    help="Pictures of one tokenize_folder.",
)
@click.option(
    "--at-once",
    type=click.IntRange(min=1),
    default=4,
    show_default=True,
    help="Calls at work at the same time; others wait.",
)
@click.option(
    "--seconds",
    type=click.FloatRange(min=1),
    default=600,
    show_default=True,
    help="That a call may take before it is stopped.",
)
@quiet_option
def command(
    roots: tuple[Path, ...],
    out: Path | None,
    classifiers: tuple[str, ...],
    examples: Path | None,
    generator: Path | None,
    draw: bool,
    tokenizer: str,
    k: int | None,
    ocr: bool,
    llm: str | None,
    http: bool,
    host: str,
    port: int,
    token_env: str | None,
    hosts: tuple[str, ...],
    origins: tuple[str, ...],
    most_bytes: int,
    most_pixels: int,
    most_files: int,
    at_once: int,
    seconds: float,
    quiet: bool,
) -> None:
    """Serve tools to an agent by the Model Context Protocol: describe, ask, classify, read, draw.

    For agents and models that cannot see. The words name and count what a picture shows; they read no screens. Without
    --http this speaks to the client that started it, on standard input and output; what there is to say to a person is
    on standard error.
    """
    if not http and (token_env or hosts or origins):
        raise click.UsageError("--token-env, --allow-host and --cors are for --http; leave them out")
    from icl_vision.serving.mcp.kit import Kit
    from icl_vision.serving.pictures import Limits

    body = max(32 * 2**20, 2 * most_bytes)
    kit = Kit(
        tokenizer=tokenizer,
        k=k,
        ocr=ocr,
        llm=llm,
        roots=roots,
        out=out,
        classifiers=_named(classifiers),
        examples=examples,
        generator=generator,
        draw=draw,
        limits=Limits(body=body, bodies=8 * body, bytes=most_bytes, pixels=most_pixels),
        most_files=most_files,
        at_once=at_once,
        seconds=seconds,
    )
    if http:
        _serve_http(kit, host, port, token_env, hosts, origins, quiet=quiet)
        return
    from icl_vision.serving.mcp.stdio import kept_streams, run_stdio

    with kept_streams() as wire:
        server, remarks = kit.assembled()
        for remark in remarks:
            say(remark, quiet=quiet)
        run_stdio(server, wire, kit.limits.body)


def _named(classifiers: tuple[str, ...]) -> dict[str, Path]:
    """Files by the names they are called by."""
    named: dict[str, Path] = {}
    for text in classifiers:
        name, equals, path = text.partition("=")
        file = Path(path if equals else text)
        name = name if equals else file.stem
        if not name.strip() or not name.isprintable() or len(name) > 64:
            raise click.UsageError(f"--classifier NAME=FILE: a name is 1 to 64 printable characters; got {name!r}")
        if name in named:
            raise click.UsageError(f"--classifier: two are called {name!r}; name one otherwise, NAME=FILE")
        named[name] = file
    return named


def _serve_http(
    kit: Kit,
    host: str,
    port: int,
    token_env: str | None,
    hosts: tuple[str, ...],
    origins: tuple[str, ...],
    *,
    quiet: bool,
) -> None:
    """Until Ctrl-C."""
    from icl_vision.llms.redaction import url_host
    from icl_vision.serving.hosts import Access, check_binding, checked_token
    from icl_vision.serving.mcp.http import PATH, http_app, run_http

    if token_env is not None and not os.environ.get(token_env):
        raise click.UsageError(f"--token-env: the variable {token_env} is not set, or empty")
    token = checked_token(os.environ[token_env], token_env) if token_env else None
    check_binding(host, token)
    if token is None and str(kit.llm or "local").partition(":")[0] not in ("local", "fake", "replay"):
        # A key of the environment would be spent by whatever program of this machine finds the port.
        raise click.UsageError("--http with an --llm that is not local needs --token-env: others could spend on it")
    access = Access(hosts=hosts, origins=origins, token=token)
    server, remarks = kit.assembled()
    for remark in remarks:
        say(remark, quiet=quiet)

    def ready(bound: int) -> None:
        say(f"serving MCP at http://{url_host(host)}:{bound}{PATH}; Ctrl-C ends it", quiet=quiet)

    run_http(http_app(server, access, kit.limits), host, port, ready)
