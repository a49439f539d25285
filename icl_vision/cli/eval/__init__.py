"""`icl-vision eval`: the group of the measuring commands.

Knows: which there are and where. Refuses to know: what they measure; a module is imported only when it is asked for.
"""

from __future__ import annotations

import click

from icl_vision.cli import LazyGroup

MEMBERS: dict[str, tuple[str, str]] = {
    "answers": ("icl_vision.cli.eval.answers", "How well questions about pictures are answered, with baselines."),
    "captions": ("icl_vision.cli.eval.captions", "How near captions come to what people wrote, with baselines."),
    "compare": ("icl_vision.cli.eval.compare", "Compare two runs on the same questions, paired."),
    "denoising": ("icl_vision.cli.eval.denoising", "How well an LLM restores pictures, with baselines."),
    "few-shot": ("icl_vision.cli.eval.few_shot", "Few-shot accuracy in the papers' 14 settings, with baselines."),
    "generation": ("icl_vision.cli.eval.generation", "How well an LLM draws digits, with baselines and controls."),
    "report": ("icl_vision.cli.eval.report", "Write the page of a few-shot run anew, other runs beside it."),
    "text-to-image": (
        "icl_vision.cli.eval.text_to_image",
        "How well a diffusion model draws what an LLM reads.",
    ),
    "reconstruction": ("icl_vision.cli.eval.reconstruction", "How much of an image its words keep."),
}


@click.group(name="eval", cls=LazyGroup, members=MEMBERS)
def command() -> None:
    """Measure: few-shot accuracy, reconstruction, two runs compared."""
