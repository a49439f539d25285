"""`icl-vision train`: the group of what can be trained.

Knows: which commands there are. Refuses to know: how anything is trained; torch is imported only when that starts.
"""

from __future__ import annotations

import click

from icl_vision.cli.train.router import router_command
from icl_vision.cli.train.text_to_image import command as text_to_image
from icl_vision.cli.train.tokenizers import FAMILIES, family_command


@click.group(name="train")
def command() -> None:
    """Train a tokenizer on your own images, or what stands between an LLM and a diffusion model."""


for family, about in FAMILIES:
    command.add_command(family_command(family, about))
command.add_command(router_command)
command.add_command(text_to_image)
