"""Tiny random parts of text_to_image: an LLM of three blocks, a text encoder that is a table."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from icl_vision.files.typed import to_plain
from icl_vision.text_to_image.denoisers.unet import DenoiserConfig, build_denoiser
from icl_vision.text_to_image.mapper import Kind, Mapper, MapperConfig
from icl_vision.text_to_image.parts import Parts, put_adapters, rounded, rounded_denoiser
from icl_vision.text_to_image.repadapter import AdapterConfig
from icl_vision.text_to_image.states import FrozenLLM

WORDS = "a the digit number draw paint of zero one two three four five six seven eight nine 0 1 2 3 4 5 6 7 8 9".split()


def tiny_llm(kind: str = "llama", *, prompt: str = "{}", seed: int = 0) -> FrozenLLM:
    """A causal LM of random weights; the words of WORDS and a few more are its tokens."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocabulary = {word: number for number, word in enumerate(["<unk>", "<eos>", *WORDS])}
    raw = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw, unk_token="<unk>", eos_token="<eos>", padding_side="left", model_max_length=64
    )
    torch.manual_seed(seed)
    sizes: dict[str, Any] = {
        "vocab_size": len(vocabulary),
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 64,
        "pad_token_id": 1,
        "eos_token_id": 1,
        "bos_token_id": None,
    }
    model: Any
    if kind == "llama":
        from transformers import LlamaConfig, LlamaForCausalLM

        model = LlamaForCausalLM(LlamaConfig(**sizes))
    else:
        from transformers import Gemma3ForCausalLM, Gemma3TextConfig

        kinds = ["sliding_attention", "full_attention", "sliding_attention"]
        model = Gemma3ForCausalLM(Gemma3TextConfig(**sizes, head_dim=8, layer_types=kinds, sliding_window=4))
    return FrozenLLM(model, tokenizer, spec="tiny", identity=f"tiny-{kind}-{seed}", prompt=prompt)


class TableEncoder:
    """A text encoder whose states are drawn from a text's hash: 4 states of 16 numbers."""

    name = "table"
    length = 4
    width = 16

    def encode(self, texts: Sequence[str]) -> Tensor:
        rows = []
        for text in texts:
            seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")
            rows.append(torch.randn(self.length, self.width, generator=torch.Generator().manual_seed(seed)))
        return torch.stack(rows)


def tiny_parts(
    *,
    denoiser: bool = True,
    adapters: bool = True,
    outputs: int = 16,
    length: int = 4,
    kind: Kind = "choice",
    seed: int = 0,
) -> Parts:
    """Random parts for the tiny LLM. kind: of the mapper."""
    adapter_config = AdapterConfig(blocks=1, hidden=4)
    torch.manual_seed(seed)
    config = DenoiserConfig(channels=(16, 16, 16), width=outputs, length=length)
    mapper = Mapper(
        MapperConfig(kind=kind, width=8, blocks=1, heads=2), inputs=32, length=length, outputs=outputs
    ).eval()
    mapper.null.normal_()
    tensors = None
    if adapters:
        groups = put_adapters(tiny_llm(), mapper, adapter_config)
        tensors = {name: torch.randn_like(value) * 0.3 for group in groups for name, value in group.tensors().items()}
        for group in groups:
            group.remove()
    card = {
        "name": "tiny",
        "licence": "none",
        "llm": {"spec": "tiny", "width": 32, "prompt": "{}", "blocks": 3},
        "denoiser": to_plain(config),
        "adapters": to_plain(adapter_config),
        "drawing": {"sampler": "ddim", "steps": 3, "guidance": 2.0},
    }
    unet = rounded_denoiser(build_denoiser(config)).eval().requires_grad_(False) if denoiser else None
    return Parts(card, rounded(mapper), unet, tensors)


def tiny_stable_diffusion(tmp_path: Path) -> Path:
    """A Stable Diffusion pipeline of tiny random parts, saved as users have them, in ``tmp_path / "sd"``."""
    from diffusers import AutoencoderKL, PNDMScheduler, StableDiffusionPipeline, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(16, 16),
        layers_per_block=1,
        norm_num_groups=8,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=24,
    )
    vae = AutoencoderKL(
        block_out_channels=(8, 8),
        norm_num_groups=4,
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=4,
    )
    clip = CLIPTextModel(CLIPTextConfig(vocab_size=4, hidden_size=24, intermediate_size=24, num_hidden_layers=1,
                                        num_attention_heads=2, max_position_embeddings=8))  # fmt: skip
    files = tmp_path / "clip"
    files.mkdir()
    (files / "vocab.json").write_text('{"<|startoftext|>": 0, "<|endoftext|>": 1, "a</w>": 2}')
    (files / "merges.txt").write_text("#version: 0.2\n")
    tokenizer = CLIPTokenizer(str(files / "vocab.json"), str(files / "merges.txt"), model_max_length=8)
    pipeline = StableDiffusionPipeline(
        vae=vae,
        text_encoder=clip,
        tokenizer=tokenizer,
        unet=unet,
        scheduler=PNDMScheduler(skip_prk_steps=True, beta_schedule="scaled_linear", steps_offset=1),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.save_pretrained(tmp_path / "sd")
    return tmp_path / "sd"
