"""Samplers of diffusers with settings that work, for the demonstration and for other pipelines.

Knows: which settings. Refuses to know: nets and pictures.
"""

from __future__ import annotations

from typing import Any, Final

from diffusers import DDIMScheduler, DPMSolverMultistepScheduler

from icl_vision.checks import choice
from icl_vision.text_to_image.denoisers.unet import SCHEDULE

SAMPLERS: Final = ("ddim", "dpm")


class ClippedDDIM(DDIMScheduler):  # type: ignore[misc]  # mypy does not follow diffusers
    """DDIM that goes on from the clipped estimate of the picture. A pipeline cannot be told to ask for that."""

    def step(self, *args: Any, use_clipped_model_output: bool = True, **keys: Any) -> Any:
        """As ``DDIMScheduler.step``, with another default."""
        return super().step(*args, use_clipped_model_output=use_clipped_model_output, **keys)


def demonstration_sampler(name: str) -> Any:
    """For the demonstration's denoiser.

    name: "ddim", whose steps end at the noise the net was trained from and whose estimates are clipped to what a
    picture can be (with diffusers' defaults a net as this one drew 0 to 39 digits of 100, with these nearly all), or
    "dpm", DPMSolverMultistep.

    Raises UsageError for another name.
    """
    choice("sampler", name, SAMPLERS)
    if name == "ddim":
        return ClippedDDIM(**SCHEDULE, timestep_spacing="trailing", clip_sample=True, steps_offset=1)
    return DPMSolverMultistepScheduler(**SCHEDULE, steps_offset=1)


def pipeline_sampler(name: str, scheduler: Any) -> Any:
    """For another pipeline, with the noise that its own scheduler was made with; its latents are not clipped."""
    choice("sampler", name, SAMPLERS)
    if name == "ddim":
        return DDIMScheduler.from_config(scheduler.config, timestep_spacing="trailing")
    return DPMSolverMultistepScheduler.from_config(scheduler.config)
