"""`icl-vision models`: what there is to encode with and to ask.

Knows: how a list and a card are printed. Refuses to know: where tokenizers lie (the zoo), how LLMs are reached.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from icl_vision.cli.options.common import json_option, print_json

# What `connect` takes, as a person reads it. Static: asking each for more would load a model or need a key.
LLMS = {
    "local": "Gemma 3 270M (base), on this machine; no key, no network. Needs the extra 'local'.",
    "local:PATH.gguf": "Any GGUF file, on this machine. Needs the extra 'local'.",
    "openai:MODEL": "OpenAI's models; the key is read from OPENAI_API_KEY.",
    "anthropic:MODEL": "Anthropic's models; the key is read from ANTHROPIC_API_KEY.",
    "openai-compatible:MODEL@URL": "Any server that speaks OpenAI's protocol: vLLM, llama.cpp, Ollama ...",
    "langchain:PROVIDER:MODEL": "Any chat model that LangChain makes. Needs the extra 'langchain'.",
    "fake": "Answers without an LLM; for tests.",
    "replay:FILE": "Answers recorded earlier; for tests and for repeating a run.",
}


@click.group(name="models")
def command() -> None:
    """List tokenizers and LLMs, or show a card."""


@command.command("list")
@json_option
def list_command(as_json: bool) -> None:
    """List tokenizers and LLM strings: those packaged here, and those of other installed packages."""
    from icl_vision import plugins
    from icl_vision.tokenizers import zoo

    rows = [{"name": name, **_summary(zoo.card(name))} for name in zoo.available()]
    llms = [{"spec": spec, "description": LLMS[spec]} for spec in LLMS]
    own = {row["name"] for row in rows}, {spec.partition(":")[0] for spec in LLMS}
    # Nothing of theirs is imported for a list, so there is no card to tell from.
    rows += [{"name": name, "package": package} for name, package in _others(plugins.TOKENIZERS, own[0])]
    llms += [{"spec": f"{kind}:MODEL", "package": package} for kind, package in _others(plugins.LLMS, own[1])]
    if as_json:
        print_json({"tokenizers": rows, "llms": llms})
        return
    for title, listed in (
        ("Tokenizers (--tokenizer NAME, or an artefact folder)", rows),
        ("\nLLMs (--llm SPEC)", llms),
    ):
        click.echo(title)
        for row in listed:
            about = row.get("description") or f"Of the installed package {row['package']}."
            click.echo(f"  {row.get('name') or row['spec']}\n      {about}")


@command.command("info")
@click.argument("name", metavar="NAME|FOLDER|SPEC")
@json_option
def info_command(name: str, as_json: bool) -> None:
    """Show everything a tokenizer's card says, or what an LLM string stands for."""
    if name in LLMS:
        found: dict[str, Any] = {"spec": name, "description": LLMS[name]}
    else:
        from icl_vision.tokenizers import zoo

        found = dict(zoo.card(name))
    if as_json:
        print_json(found)
        return
    _print(found)


def _others(group: str, own: set[str]) -> list[tuple[str, str]]:
    """(name, package) of what other packages offer; a name of ours is ours."""
    from icl_vision import plugins

    return [(name, package) for name, package in plugins.offered(group).items() if name not in own]


def _summary(card: Mapping[str, Any]) -> dict[str, Any]:
    source = card.get("description") or card.get("source") or "no description"
    layout = card.get("layout", {})
    return {"description": source, "layout": layout, "licence": card.get("licence"), "codebook": card.get("codebook")}


def _print(value: Any, indent: int = 0) -> None:
    """Nested keys, one a line; lists of simple values on one line."""
    for key, entry in value.items():
        lead = " " * indent + f"{key}:"
        if isinstance(entry, Mapping) and entry:
            click.echo(lead)
            _print(entry, indent + 2)
        elif isinstance(entry, list):
            click.echo(f"{lead} {', '.join(map(str, entry))}")
        else:
            click.echo(f"{lead} {entry}")
