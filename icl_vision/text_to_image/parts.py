"""The trained parts of a text-to-image system as a folder: a denoiser, a mapper from an LLM to it, and adapters.

    FOLDER/card.json              what they are, of which LLM, licence, data, figures, sha256 of every file
    FOLDER/denoiser.safetensors   the U-Net (of the demonstration; Stable Diffusion is never copied)
    FOLDER/mapper.safetensors     the mapper, the mean state and the states of no caption
    FOLDER/adapters.safetensors   A, a, B, b of every adapter (where stage 2 was trained)

Weights are stored as float16, the denoiser's kernels as int8 with a scale for each output channel, and computed in
float32. Parts trained from an LLM are derived from it and under its
terms: those of Gemma are written into the user's cache and never packaged.

Knows: the folder. Refuses to know: training, and how a picture is drawn.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

from icl_vision.checks import count
from icl_vision.errors import ArtefactDamagedError, StorageError, UsageError
from icl_vision.files.runs import versions
from icl_vision.files.storage import cache_dir, sha256_file, write_json, writing
from icl_vision.files.typed import from_plain, to_plain
from icl_vision.models.rounding import round_to_fp16, round_to_int8
from icl_vision.text_to_image.denoisers.unet import DenoiserConfig, build_denoiser
from icl_vision.text_to_image.llm_folders import GEMMA
from icl_vision.text_to_image.mapper import Mapper, MapperConfig
from icl_vision.text_to_image.repadapter import AdapterConfig, Adapters
from icl_vision.text_to_image.states import FrozenLLM
from icl_vision.tokenizers.artefact import read_file, verify_files
from icl_vision.vocabulary import CARD_FILE, FORMAT_VERSION, read_card

KIND: Final = "text-to-image"
DENOISER: Final = "denoiser.safetensors"
MAPPER: Final = "mapper.safetensors"
ADAPTERS: Final = "adapters.safetensors"
_SCALE: Final = ":scale"
PACKAGED: Final = Path(__file__).parents[1] / "artefacts" / "text_to_image" / "digits-smollm2"
GEMMA_NOTICE: Final = (
    "Gemma is provided under and subject to the Gemma Terms of Use found at ai.google.dev/gemma/terms. These parts "
    "were trained from Gemma's hidden states and are treated as derivatives of it: for your own use under those terms."
)


@dataclass
class Parts:
    """Parts in memory. card: what is known of them. denoiser: the demonstration's U-Net, None where the parts are for
    another pipeline. adapters: their tensors by layer, None before stage 2."""

    card: dict[str, Any]
    mapper: Mapper
    denoiser: Any = None
    adapters: dict[str, Tensor] | None = None
    folder: Path | None = None

    @property
    def adapter_config(self) -> AdapterConfig:
        """What the adapters are."""
        return from_plain(AdapterConfig, self.card["adapters"], "adapters")

    @property
    def llm(self) -> dict[str, Any]:
        """Of the LLM: spec, width, prompt."""
        entry: dict[str, Any] = self.card["llm"]
        return entry


def gemma_parts() -> Path:
    """Where the command leaves the parts that it trains from Gemma."""
    return cache_dir() / "text-to-image" / "gemma-digits"


def default_parts() -> Path:
    """The parts that are used where none are named: Gemma's where they were trained, else the packaged ones."""
    trained = gemma_parts()
    return trained if (trained / CARD_FILE).is_file() else PACKAGED


def save_parts(folder: Path, parts: Parts) -> Path:
    """Write the folder, whole or not at all; a folder of parts that is there already is replaced.

    Raises StorageError where it cannot be written, UsageError where something else is in its place.
    """
    if folder.exists() and not (folder / CARD_FILE).is_file():
        raise UsageError(f"{str(folder)!r} is there already and holds no parts; name another folder")
    tensors: dict[str, Mapping[str, Tensor]] = {MAPPER: parts.mapper.state_dict()}
    if parts.denoiser is not None:
        tensors[DENOISER] = parts.denoiser.state_dict()
    if parts.adapters is not None:
        tensors[ADAPTERS] = parts.adapters
    document = {
        "format_version": FORMAT_VERSION,
        "kind": KIND,
        **parts.card,
        "stored_as": "the denoiser's kernels as int8 with a scale a channel, all else as float16; computed in float32",
        "mapper": {
            **to_plain(parts.mapper.config),
            "inputs": parts.mapper.inputs,
            "length": parts.mapper.length,
            "outputs": parts.mapper.outputs,
        },
        "versions": {**versions(), "torch": torch.__version__},
    }
    if parts.llm["spec"] == GEMMA:
        document["notice"] = GEMMA_NOTICE
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".tmp-", dir=folder.parent) as temporary:
        fresh = Path(temporary) / "parts"
        fresh.mkdir()
        with writing(folder):
            for name, named in tensors.items():
                _save_small(fresh / name, named)
        files = {name: sha256_file(fresh / name) for name in tensors}
        write_json(fresh / CARD_FILE, {**document, "files": files})
        if folder.exists():
            folder.rename(Path(temporary) / "before")
        fresh.rename(folder)
    return folder


def load_parts(folder: Path) -> Parts:
    """Read the folder; every file must be the one that its card describes.

    Raises ArtefactNotFoundError, ArtefactDamagedError; MissingExtraError where diffusers is not installed.
    """
    card = read_card(folder)
    if card.get("kind") != KIND:
        raise ArtefactDamagedError(
            f"{str(folder)!r} holds no parts for text_to_image; its card says {card.get('kind')!r}"
        )
    verify_files(folder, card, required=MAPPER)
    entry = dict(card.get("mapper") or {})
    try:
        inputs, length, outputs = (int(entry.pop(name)) for name in ("inputs", "length", "outputs"))
        mapper = Mapper(from_plain(MapperConfig, entry, "mapper"), inputs=inputs, length=length, outputs=outputs)
        mapper.load_state_dict(_load(folder, card, MAPPER))
        denoiser = None
        if DENOISER in card["files"]:
            denoiser = build_denoiser(from_plain(DenoiserConfig, card["denoiser"], "denoiser"))
            denoiser.load_state_dict(_load(folder, card, DENOISER))
            denoiser.eval().requires_grad_(False)
        adapters = _load(folder, card, ADAPTERS) if ADAPTERS in card["files"] else None
        {name: card["llm"][name] for name in ("spec", "width", "prompt")}
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise ArtefactDamagedError(
            f"the parts in {str(folder)!r} are not what their card describes: {error}; fetch or train them again"
        ) from error
    return Parts(card, mapper.eval().requires_grad_(False), denoiser, adapters, folder)


def put_adapters(llm: FrozenLLM, mapper: Mapper, config: AdapterConfig) -> list[Adapters]:
    """Adapters, at their start, in the LLM's uppermost blocks and in the mapper, as ``config`` says.

    Raises UsageError where the LLM has fewer blocks, or adapters already.
    """
    count("adapters.blocks", config.blocks, least=0, most=len(llm.blocks))
    start = len(llm.blocks) - config.blocks
    found = [
        Adapters(block, config, prefix=f"llm.{number}.") for number, block in enumerate(llm.blocks[start:], start=start)
    ]
    if config.mapper:
        found.append(Adapters(mapper.body, config, prefix="mapper."))
    return found


def fill_adapters(groups: Sequence[Adapters], tensors: Mapping[str, Tensor]) -> None:
    """Put saved tensors into adapters that lie where they lay. Raises UsageError where they are of other layers."""
    left = dict(tensors)
    for adapters in groups:
        adapters.load({name: left.pop(name) for name in adapters.tensors() if name in left})
    if left:
        raise UsageError(f"these adapters are of other layers: there is no place for {sorted(left)[0]!r}")


def rounded(module: Any) -> Any:
    """A mapper with its weights as they will be stored: what is measured is what is kept."""
    return round_to_fp16(module)


def rounded_denoiser(unet: Any) -> Any:
    """A U-Net with its weights as they will be stored: kernels and matrices in 255 levels, with a scale for each output
    channel, all else in half precision."""
    round_to_int8(unet)
    with torch.no_grad():
        for value in unet.parameters():
            if value.ndim < 2:
                value.copy_(value.half().float())
    return unet


def _save_small(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Each tensor as int8 and a scale where that is exact, else in half precision."""
    from safetensors.torch import save_file

    kept: dict[str, Tensor] = {}
    for name, value in tensors.items():
        value = value.detach().cpu()
        levels = _levels(value)
        if levels is not None:
            kept[name], kept[name + _SCALE] = levels
            continue
        half = value.half() if value.is_floating_point() else value
        if not torch.isfinite(half).all():
            raise StorageError(f"{name} does not fit into float16")
        kept[name] = half.contiguous().clone()
    save_file(kept, path)
    path.chmod(0o644)  # safetensors lets the owner alone read it


def _levels(value: Tensor) -> tuple[Tensor, Tensor] | None:
    """int8 levels and fp16 scales [rows] that give a matrix or kernel back exactly; None where there are none."""
    if not value.is_floating_point() or value.ndim < 2:
        return None
    rows = value.flatten(1)
    scale = (rows.abs().amax(1) / 127).half()
    levels = (rows / scale.float().clamp(min=1e-12)[:, None]).round().clamp(-127, 127)
    exact = torch.equal(levels * scale.float()[:, None], rows)
    return (levels.to(torch.int8).view(value.shape), scale) if exact else None


def _load(folder: Path, card: Mapping[str, Any], name: str) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        tensors = load(read_file(folder, card, name))
    except SafetensorError as error:
        raise ArtefactDamagedError(f"{name} in {str(folder)!r} cannot be read: {error}") from error
    whole = {}
    for key, value in tensors.items():
        if key.endswith(_SCALE):
            continue
        scale = tensors.get(key + _SCALE)
        if scale is not None:
            value = (value.flatten(1).float() * scale.float()[:, None]).view(value.shape)
        whole[key] = value.float() if value.is_floating_point() else value
    return whole
