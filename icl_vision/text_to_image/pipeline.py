"""A frozen LLM in front of a diffusion model: texts become pictures, or are answered in text.

    system = LLMTextToImage.from_pretrained()              # the demonstration: digits
    image = system.draw("a drawing of seven", seed=1)
    images = system.draw(["three", "the number 4"])
    reply = system.chat("how are you?")                    # text, or a picture where one is asked for

The LLM's states are mapped to what the diffusion model reads (``prompt_embeds``), and diffusers' own pipeline draws:
the demonstration's denoiser, or Stable Diffusion by name or folder. The same LLM answers in text, with its adapters
switched off: bit for bit the model it was.

Knows: how the parts work together. Refuses to know: how they were trained, and what a request asks for (``Router``).

Letters in shapes: B texts, N states, e their width.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol, overload

import torch
from PIL import Image
from torch import Tensor

from icl_vision.asking.jobs import progress_bar
from icl_vision.checks import choice, count, number
from icl_vision.errors import ArtefactNotFoundError, MissingExtraError, UsageError
from icl_vision.images import ImageSource
from icl_vision.tasks.routing import MOST_TOKENS, ask_route, read_route, route_prompt
from icl_vision.tasks.tools import Argument, Tool
from icl_vision.text_to_image.denoisers.unet import to_pixels
from icl_vision.text_to_image.mapper import Mapper
from icl_vision.text_to_image.onnx_denoiser import OnnxDenoiser, onnx_graph
from icl_vision.text_to_image.parts import Parts, default_parts, fill_adapters, load_parts, put_adapters
from icl_vision.text_to_image.quiet import quiet_imports, quiet_transformers
from icl_vision.text_to_image.repadapter import Adapters
from icl_vision.text_to_image.routing.features import readable
from icl_vision.text_to_image.states import PLACE, FrozenLLM, TextStates, check_place

if TYPE_CHECKING:
    from icl_vision.contracts import TextLLM
    from icl_vision.integrations.langchain import TaskTool

logger = logging.getLogger(__name__)

BATCH: Final = 32
"""Pictures that are drawn side by side."""
TORCH: Final = "torch"
ONNX: Final = "onnx"
DENOISERS: Final = (TORCH, ONNX)
"""What may compute the parts' own denoiser."""
MOST_SEED: Final = 2**63 - 1
TEXT_CHARACTERS: Final = 300
_AROUND: Final = " .,;:!?'\"‘’“”„«»"
"""What stands around a word alone and is no part of it."""
_ANSWER_TOKENS: Final = 120
_VAE_FACTOR: Final = 8  # what diffusers takes latents to be smaller by where a pipeline has no autoencoder

Watch = Callable[[int, Sequence[int], list[Image.Image]], None]


class Routed(Protocol):
    """What a router says of a request. draw: True for a picture, False for text, None where it is not sure."""

    @property
    def draw(self) -> bool | None: ...
    @property
    def confidence(self) -> float: ...


class Routes(Protocol):
    """A router: ``Router``, or one of your own."""

    def route(self, line: str) -> Routed:
        """What the line asks for."""
        ...


@dataclass(frozen=True)
class Reply:
    """What ``chat`` gives. text: the answer, None for a picture. image: the picture, None for an answer in text.

    confidence: how sure the router was of which of the two. asked: whether the LLM had to be asked, since it was not.
    """

    text: str | None
    image: Image.Image | None
    confidence: float
    asked: bool = False


@dataclass(frozen=True)
class Drawn:
    """One drawn picture for an agent. text: what was drawn. seed: it can be drawn again with."""

    text: str
    image: Image.Image
    seed: int
    error: None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {"text": self.text, "seed": self.seed, "size": list(self.image.size)}


class LLMTextToImage:
    """An LLM, a mapper and a diffusion model that draw together. Made by ``from_pretrained``.

    llm: the frozen LLM. mapper: from its states to the diffusion model's. pipeline: of diffusers. parts: what the
    mapper came from. adapters: those in the LLM and the mapper, none where stage 2 was not trained.
    router: of ``chat``; None takes the packaged one.
    """

    def __init__(
        self,
        llm: FrozenLLM,
        parts: Parts,
        pipeline: Any,
        *,
        demonstration: bool,
        router: Routes | None = None,
    ) -> None:
        self.llm = llm
        self.parts = parts
        self.mapper: Mapper = parts.mapper
        self.pipeline = pipeline
        self.demonstration = demonstration
        self.router = router
        self.adapters: list[Adapters] = []
        _check_fit(self.mapper, pipeline, llm)
        if parts.adapters is not None:
            self.adapters = put_adapters(llm, self.mapper, parts.adapter_config)
            fill_adapters(self.adapters, parts.adapters)
        drawing: Mapping[str, Any] = parts.card.get("drawing") or {}
        self.steps = count("drawing.steps", drawing.get("steps", 30))
        self.guidance = number("drawing.guidance", drawing.get("guidance", 7.5), least=0)
        alone = str(drawing.get("alone", PLACE))
        self.alone = check_place("drawing.alone of the parts' card", alone, "the word")

    @classmethod
    def from_pretrained(
        cls,
        parts: str | os.PathLike[str] | None = None,
        *,
        llm: str | FrozenLLM | None = None,
        diffusion: str | os.PathLike[str] | None = None,
        sampler: str = "ddim",
        denoiser: str = TORCH,
        router: Routes | None = None,
        device: str = "cpu",
        progress: bool | None = None,
    ) -> LLMTextToImage:
        """The system that a folder of parts describes.

        Args:
            parts: folder with card, mapper and perhaps a denoiser and adapters. None: those that were trained from
                Gemma in the user's cache where they are, else the packaged ones, from SmolLM2-135M-Instruct.
            llm: instead of the LLM that the card names: a name (``llm_folders``), or one that is open. It must be the
                one that the mapper was trained with, though it may lie elsewhere.
            diffusion: a Stable Diffusion pipeline, by folder or hub name, which is drawn with instead of the parts' own
                denoiser.
            sampler: "ddim" or "dpm" (DPMSolverMultistep).
            denoiser: what computes the parts' own denoiser, "torch" or "onnx" (onnxruntime, on a CPU, in less time; its
                graph is made once, into the user's cache, which takes the extra 'train' and seconds).
            router: of ``chat``; None takes the packaged one.
            device: where everything computes, a torch device string.
            progress: bars on stderr for what takes long; None shows them to a terminal.

        Raises:
            ArtefactNotFoundError, ArtefactDamagedError: no such parts, pipeline or LLM, or damaged ones.
            MissingExtraError: the extra t2i is not installed.
            UsageError: the parts, the LLM and the diffusion model do not fit together.
        """
        try:
            import diffusers  # noqa: F401  # said here, before anything is loaded
        except ImportError as error:
            raise MissingExtraError("drawing with a diffusion model (diffusers)", "t2i") from error
        choice("denoiser", denoiser, DENOISERS)
        if denoiser == ONNX and (diffusion is not None or torch.device(device).type != "cpu"):
            raise UsageError(
                f"denoiser={ONNX!r} computes the parts' own denoiser on a CPU; got "
                + (f"diffusion {os.fspath(diffusion)!r}" if diffusion is not None else f"device {device!r}")
            )
        found = load_parts(default_parts() if parts is None else Path(parts))
        pipeline = _demonstration(found, sampler) if diffusion is None else _stable_diffusion(diffusion, sampler)
        if denoiser == ONNX:
            pipeline.unet = OnnxDenoiser(onnx_graph(found, progress=progress), found.denoiser.config)
        pipeline.to(device)
        pipeline.set_progress_bar_config(disable=True)
        if not isinstance(llm, FrozenLLM):
            spec = str(found.llm["spec"]) if llm is None else llm
            llm = FrozenLLM.open(spec, prompt=str(found.llm["prompt"]), device=device, progress=progress)
        found.mapper.to(device)
        return cls(llm, found, pipeline, demonstration=diffusion is None, router=router)

    def __repr__(self) -> str:
        own = "the demonstration" if self.demonstration else type(self.pipeline).__name__
        return f"LLMTextToImage(llm={self.llm.spec!r}, parts={str(self.parts.folder)!r}, {own})"

    # -- drawing

    def understood(self, texts: Sequence[str]) -> TextStates:
        """What the LLM says of texts, with the adapters as they stand; a text of one word in the wording that the parts
        have for words alone (``drawing.alone`` of their card)."""
        texts = [texts] if isinstance(texts, str) else list(texts)
        for text in texts:
            if not isinstance(text, str) or not text.strip() or len(text) > TEXT_CHARACTERS:
                raise UsageError(f"a text to draw has 1 to {TEXT_CHARACTERS} characters; got {text!r:.400}")
        return self.llm.states([self._worded(text) for text in texts])

    def states(self, texts: Sequence[str]) -> Tensor:
        """What the diffusion model reads for texts, float32 [B, N, e]; adapters at work."""
        with torch.inference_mode():
            found = self.understood(texts)
            states: Tensor = self.mapper(found.values, found.mask)
            return states.float()

    def _worded(self, text: str) -> str:
        """The text as the LLM reads it: a word alone in a wording, since by itself it says least."""
        word = text.strip().strip(_AROUND)
        return text if self.alone == PLACE or len(word.split()) != 1 else self.alone.replace(PLACE, word)

    @overload
    def draw(self, text: str, **options: Any) -> Image.Image: ...
    @overload
    def draw(self, text: Sequence[str], **options: Any) -> list[Image.Image]: ...

    def draw(self, text: str | Sequence[str], **options: Any) -> Any:
        """Draw one text, or several side by side.

        Args:
            text: what to draw, or a sequence of texts.
            seed: of the first picture, the next ones have the next seeds; or one for each. The same text and seed give
                the same picture, up to rounding, whatever is drawn beside it. Default: 0.
            guidance: how much farther than the text itself the picture is drawn away from no text; 1 and below: not at
                all. Default: the parts' (of the card).
            steps: of the sampler. Default: the parts'.
            negative: a text to draw away from, instead of none.
            watch: called after each step with (step, places of the texts, pictures so far).
            progress: a bar on stderr; None shows it to a terminal.

        Returns:
            A picture: 32 x 32 for the demonstration, else as the pipeline makes them; a list of them for several.

        Raises:
            UsageError: a text, seed or option that cannot work.
        """
        single = isinstance(text, str)
        texts = [text] if isinstance(text, str) else list(text)
        negative = options.pop("negative", None)
        states = self.states(texts) if texts else torch.empty(0, self.mapper.length, self.mapper.outputs)
        away = self.mapper.null if negative is None else self.states([negative])[0]
        images = self.draw_states(states, away.to(states), **options)
        return images[0] if single else images

    def draw_states(
        self,
        states: Tensor,
        negative: Tensor | None = None,
        *,
        seed: int | Sequence[int] = 0,
        guidance: float | None = None,
        steps: int | None = None,
        watch: Watch | None = None,
        progress: bool | None = False,
    ) -> list[Image.Image]:
        """Draw from states themselves; for a text encoder's own, say.

        Args:
            states: floating-point [B, N, e], N and e as the diffusion model was trained with.
            negative: [N, e], or [B, N, e], what is drawn away from; needed for a guidance above 1.
            seed, guidance, steps, watch, progress: as ``draw`` has them.

        Raises:
            UsageError: states of another shape or type, missing negative ones, a seed or option that cannot work.
        """
        guidance = self.guidance if guidance is None else number("guidance", guidance, least=0, most=100)
        steps = self.steps if steps is None else count("steps", steps, most=1000)
        states, negative = self._checked(states, negative, guidance)
        seeds = _seeds(seed, len(states))
        images: list[Image.Image] = []
        batches = -(-len(states) // BATCH)
        with progress_bar(batches * steps, "drawing", progress) as advance:
            for start in range(0, len(states), BATCH):
                places = list(range(start, min(start + BATCH, len(states))))
                away = None if negative is None else negative[places]
                own = [seeds[place] for place in places]
                images += self._batch(states[places], away, own, guidance, steps, places, watch, advance)
        return images

    def _batch(
        self,
        states: Tensor,
        negative: Tensor | None,
        seeds: Sequence[int],
        guidance: float,
        steps: int,
        places: Sequence[int],
        watch: Watch | None,
        advance: Callable[[int], None],
    ) -> list[Image.Image]:
        def after(_: Any, step: int, __: Any, kept: dict[str, Any]) -> dict[str, Any]:
            advance(1)
            if watch is not None:
                watch(step + 1, places, self._pictures(kept["latents"]))
            return kept

        dtype = self.pipeline.unet.dtype
        side = int(self.pipeline.unet.config.sample_size) * _VAE_FACTOR
        options: dict[str, Any] = {"height": side, "width": side} if self.demonstration else {}
        with torch.inference_mode():
            out = self.pipeline(
                prompt_embeds=states.to(dtype),
                negative_prompt_embeds=None if guidance <= 1 or negative is None else negative.to(dtype),
                guidance_scale=guidance,
                num_inference_steps=steps,
                # One for each: a picture does not depend on what is drawn beside it.
                generator=[torch.Generator().manual_seed(seed) for seed in seeds],
                output_type="latent" if self.demonstration else "pil",
                callback_on_step_end=after,
                **options,
            )
            found: list[Image.Image] = self._pictures(out.images) if self.demonstration else list(out.images)
        return found

    def _pictures(self, latents: Tensor) -> list[Image.Image]:
        if self.demonstration:
            rows = to_pixels(latents).cpu().permute(0, 2, 3, 1).numpy()
            return [Image.fromarray(row.squeeze(-1) if row.shape[-1] == 1 else row).convert("RGB") for row in rows]
        vae = self.pipeline.vae
        decoded = vae.decode(latents / vae.config.scaling_factor, return_dict=False)[0]
        pictures: list[Image.Image] = self.pipeline.image_processor.postprocess(decoded, output_type="pil")
        return pictures

    def _checked(self, states: Tensor, negative: Tensor | None, guidance: float) -> tuple[Tensor, Tensor | None]:
        """States and negative ones, [B, N, e] both, if they can be drawn from."""
        width = int(self.pipeline.unet.config.cross_attention_dim)
        if not isinstance(states, Tensor) or not states.is_floating_point():
            kind = states.dtype if isinstance(states, Tensor) else type(states).__name__
            raise UsageError(f"states must be a floating-point tensor [B, N, {width}]; got {kind}")
        if states.ndim != 3 or states.shape[2] != width:
            raise UsageError(f"states must be [B, N, {width}], as the denoiser reads them; got {list(states.shape)}")
        if negative is None:
            if guidance > 1:
                raise UsageError(
                    f"guidance {guidance:g} draws away from negative states, and none were given: give those of no "
                    "caption (the mapper's `null`), or a guidance of 1"
                )
            return states, None
        if not isinstance(negative, Tensor) or not negative.is_floating_point():
            kind = negative.dtype if isinstance(negative, Tensor) else type(negative).__name__
            raise UsageError(f"negative states must be a floating-point tensor; got {kind}")
        if negative.ndim == 2:
            negative = negative.expand(len(states), -1, -1)
        if negative.shape != states.shape:
            raise UsageError(
                f"negative states must be as long and wide as the others, {list(states.shape)}; got "
                f"{list(negative.shape)}: make both with the same encoder or mapper"
            )
        return states, negative

    # -- chatting

    def chat(
        self, text: str, *, llm: TextLLM | None = None, seed: int = 0, tokens: int = _ANSWER_TOKENS, **options: Any
    ) -> Reply:
        """A picture where the text asks for one, else an answer in text.

        Args:
            text: what somebody says.
            llm: any TextLLM that answers instead of the system's own LLM, and is asked where the router is not sure.
            seed: of a picture. tokens: most that are written.
            options: as ``draw`` has them.

        Raises:
            UsageError: an empty text. LLMError: ``llm`` could not answer.
        """
        if not isinstance(text, str) or not text.strip():
            raise UsageError(f"a text to answer must have something in it; got {text!r}")
        routed = self._router().route(text)
        wanted, asked = routed.draw, False
        if wanted is None:
            wanted, asked = self._wants_picture(text, llm), True
        if wanted:
            return Reply(None, self.draw(text, seed=seed, **options), routed.confidence, asked)
        return Reply(self._answer(text, llm, tokens), None, routed.confidence, asked)

    def _router(self) -> Routes:
        if self.router is None:
            from icl_vision.text_to_image.router import Router

            self.router = Router.packaged()
        return self.router

    def _wants_picture(self, text: str, llm: TextLLM | None) -> bool:
        """What an LLM says of a text that the router is not sure of; no picture where it names no route."""
        prompt = route_prompt(readable(text))
        if llm is not None:
            return ask_route(llm, prompt)[0] == "draw"
        with self.unadapted():
            return read_route(self.llm.answer(prompt.text, tokens=MOST_TOKENS, chat=False).partition("\n")[0]) == "draw"

    def _answer(self, text: str, llm: TextLLM | None, tokens: int) -> str:
        if llm is not None:
            return llm.complete_sync(text, max_tokens=tokens).text.strip()
        with self.unadapted():
            return self.llm.answer(text, tokens=tokens)

    @contextmanager
    def unadapted(self) -> Any:
        """While the block runs, the LLM (and the mapper) are what they were before stage 2, bit for bit."""
        with ExitStack() as stack:
            for adapters in self.adapters:
                stack.enter_context(adapters.switched(False))
            yield

    # -- agents

    def _knows(self) -> str:
        """What the parts' own denoiser draws, for an agent."""
        names = self.parts.card.get("names")
        if names:
            return f": small pictures of {len(names)} things, such as {str(names[0])!r}."
        return ": hand-written digits, such as 'a drawing of seven'." if self.demonstration else "."

    def as_tool(
        self,
        name: str | None = None,
        description: str | None = None,
        *,
        images: Mapping[str, ImageSource] | None = None,
    ) -> TaskTool:
        """This system as a LangChain tool that draws a text; the picture is kept in ``images`` under the id it tells.

        Raises MissingExtraError without langchain, UsageError for a name that providers refuse.
        """
        from icl_vision.integrations.langchain import tool_of

        def ask(texts: Sequence[str]) -> list[Drawn]:
            return [
                Drawn(text, image, seed) for seed, (text, image) in enumerate(zip(texts, self.draw(texts), strict=True))
            ]

        async def aask(texts: Sequence[str]) -> list[Drawn]:
            return await asyncio.to_thread(ask, texts)

        def tell(drawn: Drawn, keep: Callable[[Any], str]) -> tuple[str, Any]:
            id = keep(drawn.image)
            return f"drawn; the picture has the id {id!r}", {"id": id, **drawn.to_dict()}

        def read(text: str) -> str:
            if not text.strip() or not text.isprintable() or len(text) > TEXT_CHARACTERS:
                raise UsageError(f"the text must be one line of 1 to {TEXT_CHARACTERS} printable characters")
            return text.strip()

        tool = Tool(
            name="paint_image",
            description="Paints a picture of a text with a diffusion model" + self._knows(),
            arguments=(Argument("text", "what to paint, one line", read),),
            makes=True,
            ask=ask,
            aask=aask,
            tell=tell,
            refusal=lambda error, text: str(error) if isinstance(error, UsageError) else None,
        )
        return tool_of(tool, name, description, images=images)


def _demonstration(parts: Parts, sampler: str) -> Any:
    """diffusers' own pipeline around the parts' denoiser."""
    with quiet_imports():
        from diffusers import StableDiffusionPipeline

    from icl_vision.text_to_image.denoisers.samplers import demonstration_sampler

    if parts.denoiser is None:
        raise UsageError(
            f"the parts in {str(parts.folder)!r} hold no denoiser of their own: name the Stable Diffusion they are for "
            "(diffusion=, --diffusion)"
        )
    pipeline = StableDiffusionPipeline(
        vae=None,
        text_encoder=None,
        tokenizer=None,
        unet=parts.denoiser,
        scheduler=demonstration_sampler("dpm"),
        safety_checker=None,
        feature_extractor=None,
        image_encoder=None,
        requires_safety_checker=False,
    )
    # Afterwards: a pipeline switches the clipping of the scheduler that it is made with off.
    pipeline.scheduler = demonstration_sampler(sampler)
    return pipeline


def _stable_diffusion(source: str | os.PathLike[str], sampler: str) -> Any:
    """A pipeline by folder or hub name, without what its own text encoder needs. Weights from safetensors only."""
    with quiet_imports():
        from diffusers import StableDiffusionPipeline

    from icl_vision.text_to_image.denoisers.samplers import pipeline_sampler

    try:
        with quiet_transformers():
            # A pickle may run code when it is opened.
            pipeline = StableDiffusionPipeline.from_pretrained(
                os.fspath(source), text_encoder=None, tokenizer=None, use_safetensors=True
            )
    except (OSError, ValueError) as error:
        raise ArtefactNotFoundError(
            f"diffusers cannot open {os.fspath(source)!r} as a Stable Diffusion pipeline: {error}"
        ) from error
    pipeline.scheduler = pipeline_sampler(sampler, pipeline.scheduler)
    return pipeline


def _check_fit(mapper: Mapper, pipeline: Any, llm: FrozenLLM) -> None:
    width = int(pipeline.unet.config.cross_attention_dim)
    if mapper.outputs != width:
        raise UsageError(
            f"the mapper makes states of {mapper.outputs} numbers and the diffusion model reads {width}: it was "
            "trained for another one"
        )
    if mapper.inputs != llm.width:
        raise UsageError(
            f"the mapper reads states of {mapper.inputs} numbers and those of {llm.spec!r} have {llm.width}: it was "
            "trained with another LLM"
        )


def _seeds(seed: int | Sequence[int], number: int) -> list[int]:
    if isinstance(seed, Sequence) and not isinstance(seed, str):
        if len(seed) != number:
            raise UsageError(f"seed must be one number, or one for each of the {number} texts; got {len(seed)}")
        return [count("seed", value, least=0, most=MOST_SEED) for value in seed]
    first = count("seed", seed, least=0, most=MOST_SEED - number)
    return [first + place for place in range(number)]
