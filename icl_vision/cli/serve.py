"""`icl-vision serve`: a proxy that lets a text-only LLM see.

Knows: the command's options, the environment's keys. Refuses to know: what is done with a request (``serving.proxy``).
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
    from icl_vision.llms.redaction import Secret

PORT = 8711


@click.command("serve")
@click.option(
    "--llm-url",
    metavar="URL",
    help="The LLM's server, as clients would name it: http://127.0.0.1:8080/v1. Every request goes on to the path it "
    "came in on. Default: none, the LLM of this machine.",
)
@click.option(
    "--llm",
    default="local",
    show_default=True,
    metavar="SPEC",
    help="LLM of this machine, without --llm-url: local, or local:PATH.gguf. In front of a base model, which cannot "
    "chat, questions about pictures are answered as by `icl-vision answer`.",
)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen at; another needs --token-env.")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=PORT, show_default=True, help="Port; 0 takes a free one."
)
@tokenizer_option("describe-photo")
@click.option("-k", "k", type=click.IntRange(min=1), help="Most words of a part. Default: the tokenizer's own number.")
@click.option(
    "--ocr/--no-ocr",
    default=True,
    show_default=True,
    help="Read text in pictures, where the extra `ocr` is installed. It is handed on quoted, between fixed marks, and "
    "still an LLM may take it for an instruction.",
)
@click.option(
    "--classifier",
    metavar="FILE",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A classifier that FewShotClassifier.save wrote: its label stands before the words. Default: none.",
)
@click.option(
    "--classifier-llm",
    metavar="SPEC",
    help="LLM that --classifier asks, as for icl_vision.connect. Default: its own, if that is local; no file decides "
    "where pictures' words go.",
)
@click.option(
    "--examples",
    metavar="FILE",
    type=click.Path(exists=True, path_type=Path),
    help="What questions are answered with in front of a base LLM: JSON lines as for `icl-vision answer --support`, or "
    "a .json file that VisualQA.save wrote. Default: sixteen photographs of ours.",
)
@click.option(
    "--captioner",
    metavar="URL",
    help="A server of a model that can see, which says the words instead: pictures go there. Default: none.",
)
@click.option("--captioner-model", metavar="NAME", help="That model's name on its server. Needed with --captioner.")
@click.option(
    "--captioner-key-env",
    metavar="NAME",
    help="Variable of the environment that holds the captioner's key. Default: none is sent; clients' keys never are.",
)
@click.option(
    "--root",
    "roots",
    multiple=True,
    metavar="DIR",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Folder whose pictures a client may name as file: URLs. Repeat it for several. Default: none.",
)
@click.option(
    "--fetch",
    is_flag=True,
    help="Fetch pictures at public http and https addresses. Default: off; a client then sends pictures themselves.",
)
@click.option(
    "--token-env",
    metavar="NAME",
    help="Variable of the environment that holds the token which every client must show. Needed beyond loopback, and "
    "with whatever they spend on: --upstream-key-env, --captioner-key-env, a --classifier-llm that is not local. "
    "Default: none.",
)
@click.option(
    "--upstream-key-env",
    metavar="NAME",
    help="Variable of the environment that holds a key for --llm-url, used in place of the clients'. Default: none; a "
    "client's own key goes on, and a request without one goes without.",
)
@allow_host_option()
@cors_option
@click.option(
    "--most-body",
    type=click.IntRange(min=1),
    default=32 * 2**20,
    show_default=True,
    help="Bytes of a request: a conversation is sent whole each time, with all its pictures.",
)
@click.option(
    "--most-bodies",
    type=click.IntRange(min=1),
    default=256 * 2**20,
    show_default=True,
    help="Bytes of all requests that are at work; further ones are refused with 429. Memory for pictures comes on top.",
)
@most_bytes_option
@most_pixels_option
@click.option(
    "--most-pictures",
    type=click.IntRange(min=1),
    default=16,
    show_default=True,
    help="Pictures of one request, those of earlier messages among them.",
)
@click.option(
    "--seconds",
    type=click.FloatRange(min=0.001),
    default=30.0,
    show_default=True,
    help="For one picture, to be fetched and to become words, and for a request to arrive.",
)
@click.option(
    "--encodings",
    type=click.IntRange(min=1),
    default=2,
    show_default=True,
    help="Pictures that become words at the same time; more share the same cores.",
)
@click.option(
    "--waiting",
    type=click.IntRange(min=1),
    default=64,
    show_default=True,
    help="Pictures that may wait for that; further ones are refused with 429.",
)
@click.option(
    "--upstream-seconds",
    type=click.FloatRange(min=0.1),
    default=600.0,
    show_default=True,
    help="That --llm-url may be silent; LLMs think long.",
)
@quiet_option
def command(
    llm_url: str | None,
    llm: str,
    host: str,
    port: int,
    tokenizer: str,
    k: int | None,
    ocr: bool,
    classifier: Path | None,
    classifier_llm: str | None,
    examples: Path | None,
    captioner: str | None,
    captioner_model: str | None,
    captioner_key_env: str | None,
    roots: tuple[Path, ...],
    fetch: bool,
    token_env: str | None,
    upstream_key_env: str | None,
    hosts: tuple[str, ...],
    origins: tuple[str, ...],
    most_body: int,
    most_bodies: int,
    most_bytes: int,
    most_pixels: int,
    most_pictures: int,
    seconds: float,
    encodings: int,
    waiting: int,
    upstream_seconds: float,
    quiet: bool,
) -> None:
    """Let a text-only LLM see: an OpenAI-compatible proxy that puts words in the places of pictures.

    A client is told this server's address instead of the LLM's, and nothing else: requests go on as they are, to the
    path they came in on, and of those with pictures only the pictures change, into words about the question. Chat
    Completions, Responses and Messages are understood. The words name and count what a picture shows; they read no
    screens.

    What a picture may be, who may ask, and whose key is used is said by the options; without any, only this machine may
    ask, and pictures come as data: URLs.
    """
    from icl_vision.llms.redaction import url_host
    from icl_vision.serving.hosts import Access, check_binding, checked_token
    from icl_vision.serving.listening import run
    from icl_vision.serving.pictures import Limits
    from icl_vision.serving.proxy.assembling import Parts
    from icl_vision.serving.proxy.captioning import Captioner

    token = checked_token(_variable("--token-env", token_env), token_env or "")
    check_binding(host, token)
    if (captioner is None) != (captioner_model is None) or (captioner_key_env and captioner is None):
        raise click.UsageError(
            "--captioner URL and --captioner-model NAME belong together, --captioner-key-env to both"
        )
    if llm_url is not None and llm != "local":
        raise click.UsageError("--llm names an LLM of this machine, --llm-url a server; leave one of them out")
    upstream_key = _key("--upstream-key-env", upstream_key_env)
    captioner_key = _key("--captioner-key-env", captioner_key_env)
    looks = None
    if captioner is not None and captioner_model is not None:
        looks = Captioner(captioner, captioner_model, captioner_key, seconds=seconds)
    parts = Parts(
        llm_url=llm_url,
        llm=llm,
        access=Access(hosts=hosts, origins=origins, token=token),
        upstream_key=upstream_key,
        limits=Limits(
            body=most_body,
            bodies=most_bodies,
            bytes=most_bytes,
            pixels=most_pixels,
            pictures=most_pictures,
            seconds=seconds,
            encodings=encodings,
            waiting=waiting,
        ),
        roots=roots,
        fetch=fetch,
        tokenizer=tokenizer,
        k=k,
        ocr=ocr,
        captioner=looks,
        classifier=classifier,
        classifier_llm=classifier_llm,
        examples=examples,
        seconds=upstream_seconds,
    )
    app, remarks = parts.assembled()
    click.echo(remarks[0])  # whose data the words learnt from is no remark: --quiet keeps it
    for remark in remarks[1:]:
        say(remark, quiet=quiet)

    def ready(bound: int) -> None:
        say(f"serving at http://{url_host(host)}:{bound}/v1, the base URL of clients; Ctrl-C ends it", quiet=quiet)

    run(app, host, port, ready, extra="serve")


def _key(option: str, name: str | None) -> Secret | None:
    """A key that such a variable holds. Raises as ``_variable``, and where no header can hold it."""
    from icl_vision.llms.redaction import Secret

    value = _variable(option, name)
    if value is None:
        return None
    if not value.isascii() or not value.isprintable() or value != value.strip():
        raise click.UsageError(
            f"{option}: the variable {name} holds a line end, a space at an end or a letter that no key has"
        )
    return Secret(value)


def _variable(option: str, name: str | None) -> str | None:
    """The value of a variable of the environment that an option names.

    Raises:
        click.UsageError: it is not set, or empty.
    """
    if name is None:
        return None
    value = os.environ.get(name)
    if not value:
        raise click.UsageError(f"{option}: the variable {name} is not set, or empty")
    return value
