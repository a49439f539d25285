"""What a frozen causal LM knows of a text: its hidden states, and the cache that keeps them.

    llm = FrozenLLM.open("smollm2")
    states = llm.states(["a drawing of seven"])        # TextStates: values [1, L, d], mask [1, L]

A text may be put into a prompt (``prompt="{}"``): a causal LM sums a text up in the tokens after it, and words after it
may ask for what is to be summed up. Texts are padded on the right, so a real token's state is what it is alone.

Knows: tokens, blocks, states. Refuses to know: what they are mapped to.

Letters in shapes: B texts, L tokens of the longest, d the LLM's width.
"""

from __future__ import annotations

import copy
import hashlib
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn

from icl_vision.asking.jobs import progress_bar
from icl_vision.checks import count
from icl_vision.errors import ArtefactNotFoundError, MissingExtraError, StorageError, UsageError
from icl_vision.files.storage import atomic_path, cache_dir
from icl_vision.text_to_image.llm_folders import llm_folder

logger = logging.getLogger(__name__)

PLACE: Final = "{}"
MOST_TOKENS: Final = 64
_BATCH: Final = 64
_FILE: Final = 256


@dataclass(frozen=True)
class TextStates:
    """States of texts. values: float [B, L, d], 0 where there is no token. mask: bool [B, L], True at tokens."""

    values: Tensor
    mask: Tensor

    def __len__(self) -> int:
        return len(self.values)

    def take(self, index: Tensor) -> TextStates:
        """Those of some texts, without columns in which none of them has a token."""
        mask = self.mask[index]
        length = int(mask.sum(1).max()) if len(mask) else 0
        return TextStates(self.values[index, :length], mask[:, :length])


def check_place(name: str, text: str, what: str) -> str:
    """The text, if it holds ``PLACE`` once, for ``what`` to go there. Raises UsageError."""
    if text.count(PLACE) != 1:
        raise UsageError(f"{name} must hold {PLACE} once, where {what} goes; got {text!r}")
    return text


class FrozenLLM:
    """A causal LM in evaluation mode, none of its weights trained.

    model: the whole of it (with its head). tokenizer: of transformers. spec: the name it was asked by. identity: what
    its states depend on, for the cache. prompt: what a text is put into, with one ``{}``.
    """

    def __init__(self, model: Any, tokenizer: Any, *, spec: str, identity: str, prompt: str = PLACE) -> None:
        check_place("prompt", prompt, "the text")
        self.model = model.eval().requires_grad_(False)
        self.tokenizer = tokenizer
        self.spec = spec
        self.identity = identity
        self.prompt = prompt
        tokenizer.padding_side = "right"  # Gemma's says left, and then no state would be what the text alone gives
        if tokenizer.pad_token_id is None:
            tokenizer.pad_token = tokenizer.eos_token
        blocks = getattr(self.backbone, "layers", None)
        if not isinstance(blocks, nn.ModuleList):
            raise UsageError(
                f"{spec!r} is a {type(model).__name__}, whose blocks are not in `layers`; take an LLM of another make"
            )

    @classmethod
    def open(cls, spec: str, *, prompt: str = PLACE, device: str = "cpu", progress: bool | None = None) -> FrozenLLM:
        """The LLM that ``spec`` names (see ``llm_folders``), computed in float32 on a CPU.

        Raises what ``llm_folder`` raises, and ArtefactNotFoundError where transformers cannot open the folder.
        """
        folder = llm_folder(spec, progress=progress)
        try:
            from transformers import AutoModelForCausalLM, AutoTokenizer
        except ImportError as error:
            raise MissingExtraError("hidden states of an LLM (transformers)", "t2i") from error
        from icl_vision.text_to_image.quiet import quiet_transformers

        try:
            with quiet_transformers():
                tokenizer: Any = AutoTokenizer.from_pretrained(folder.path)
                model: Any = AutoModelForCausalLM.from_pretrained(folder.path, dtype=torch.float32)
        except (OSError, ValueError) as error:
            raise ArtefactNotFoundError(f"transformers cannot open {spec!r} as a causal LM: {error}") from error
        return cls(model.to(device), tokenizer, spec=spec, identity=folder.identity, prompt=prompt)

    @property
    def backbone(self) -> Any:
        """The model without its head."""
        return self.model.get_decoder() if hasattr(self.model, "get_decoder") else self.model.base_model

    @property
    def blocks(self) -> nn.ModuleList:
        """Its blocks, lowest first."""
        blocks: nn.ModuleList = self.backbone.layers
        return blocks

    @property
    def width(self) -> int:
        """d."""
        return int(self.model.config.get_text_config().hidden_size)

    @property
    def parameters(self) -> int:
        """How many weights it has; an embedding that is its head too is counted once."""
        return sum(weight.numel() for weight in self.model.parameters())

    @property
    def device(self) -> torch.device:
        """Where its weights are."""
        device: torch.device = next(iter(self.model.parameters())).device
        return device

    def tokens(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Token ids int64 [B, L] and mask bool [B, L] of texts in the prompt, on the model's device.

        Raises UsageError for a bare string, an empty text, and one of more than MOST_TOKENS tokens.
        """
        if isinstance(texts, str):
            raise UsageError(f"texts must be a sequence of strings, not one string: put {texts!r} in a list")
        for text in texts:
            if not isinstance(text, str) or not text.strip():
                raise UsageError(f"every text must be a string with something in it; got {text!r}")
        batch = self.tokenizer([self.prompt.replace(PLACE, text) for text in texts], padding=True, return_tensors="pt")
        mask = batch["attention_mask"].bool()
        lengths = mask.sum(1)
        if len(texts) and int(lengths.max()) > MOST_TOKENS:
            longest = texts[int(lengths.argmax())]
            raise UsageError(
                f"a text of {int(lengths.max())} tokens is longer than the {MOST_TOKENS} that are read; shorten "
                f"{longest!r}"
            )
        return batch["input_ids"].to(self.device), mask.to(self.device)

    def states(self, texts: Sequence[str], *, below: int | None = None) -> TextStates:
        """Last hidden states of texts, or those that enter block ``below`` (counted from 0). No gradients."""
        ids, mask = self.tokens(texts)
        with torch.inference_mode():
            hidden = self._forward(ids, mask, below)
        return self._kept(hidden, mask)

    def _of_one_prompt(self, texts: Sequence[str]) -> TextStates:
        """``states``, with the tokens that all texts begin with gone through once: most of a prompt with an example."""
        ids, mask = self.tokens(texts)
        same = int((ids == ids[:1]).all(0).long().cumprod(0).sum())
        same = min(same, int(mask.sum(1).min()) - 1)
        with torch.inference_mode():
            if len(ids) == 1 or same < 1:
                return self._kept(self._forward(ids, mask, None), mask)
            begun = self.backbone(input_ids=ids[:1, :same], use_cache=True)
            begun.past_key_values.batch_repeat_interleave(len(ids))
            rest = self.backbone(
                input_ids=ids[:, same:],
                attention_mask=mask.long(),
                past_key_values=begun.past_key_values,
                use_cache=True,
            )
            first = begun.last_hidden_state.expand(len(ids), -1, -1)
            return self._kept(torch.cat([first, rest.last_hidden_state], 1), mask)

    @staticmethod
    def _kept(hidden: Tensor, mask: Tensor) -> TextStates:
        # A plain tensor: one made for inference could not enter a computation with gradients.
        return TextStates((hidden * mask.unsqueeze(-1)).clone(), mask)

    def _forward(self, ids: Tensor, mask: Tensor, below: int | None) -> Tensor:
        if below is not None:
            entering: Tensor = self._upper(0, below)(self.backbone.embed_tokens(ids), mask, final=False)
            return entering
        hidden: Tensor = self.backbone(input_ids=ids, attention_mask=mask.long(), use_cache=False).last_hidden_state
        return hidden

    def answer(self, text: str, *, tokens: int, chat: bool = True) -> str:
        """What the LLM writes after a text, the likeliest tokens. chat: in its chat template, where it has one."""
        chats = chat and bool(getattr(self.tokenizer, "chat_template", None))
        if chats:
            text = self.tokenizer.apply_chat_template(
                [{"role": "user", "content": text}], tokenize=False, add_generation_prompt=True
            )
        batch = self.tokenizer(text, return_tensors="pt", add_special_tokens=not chats).to(self.device)
        with torch.inference_mode():
            out = self.model.generate(
                input_ids=batch["input_ids"],
                attention_mask=batch["attention_mask"],
                max_new_tokens=count("tokens", tokens),
                do_sample=False,
                pad_token_id=self.tokenizer.pad_token_id,
            )
        written: str = self.tokenizer.decode(out[0, batch["input_ids"].shape[1] :], skip_special_tokens=True)
        return written.strip()

    def upper(self, start: int) -> UpperBlocks:
        """The blocks from ``start`` on and the last norm, as a module of their own; weights are shared."""
        count("start", start, least=0, most=len(self.blocks))
        return self._upper(start, len(self.blocks))

    def _upper(self, start: int, stop: int) -> UpperBlocks:
        return UpperBlocks(self.backbone, start, stop)

    def cached_states(
        self,
        texts: Sequence[str],
        *,
        below: int | None = None,
        folder: Path | None = None,
        progress: bool | None = None,
    ) -> TextStates:
        """``states`` of many texts, from the cache where they were computed before, else computed and kept there.

        folder: where to keep them; None: the user's cache. They are derived from the LLM and under its terms.
        """
        root = cache_dir() / "text-states" if folder is None else folder
        rows: list[Tensor] = []
        with progress_bar(len(texts), f"states of {self.spec}", progress) as advance:
            # In files of a few hundred: who is stopped goes on where he was.
            for start in range(0, len(texts), _FILE):
                part = texts[start : start + _FILE]
                path = root / f"{self._key(part, below)}.safetensors"
                found = _load(path)
                if found is None:
                    found = self._many(part, below)
                    _save(path, found)
                rows += [found.values[row, : int(length)] for row, length in enumerate(found.mask.sum(1))]
                advance(len(part))
        return _padded(rows)

    def _many(self, texts: Sequence[str], below: int | None) -> TextStates:
        """The states of many texts, in batches of about one length."""
        order = sorted(range(len(texts)), key=lambda place: len(texts[place]))
        rows: list[Tensor] = [torch.empty(0)] * len(texts)
        for start in range(0, len(order), _BATCH):
            places = order[start : start + _BATCH]
            some = [texts[place] for place in places]
            part = self._of_one_prompt(some) if below is None else self.states(some, below=below)
            for row, place in enumerate(places):
                rows[place] = part.values[row, : int(part.mask[row].sum())].cpu()
        return _padded(rows)

    def _key(self, texts: Sequence[str], below: int | None) -> str:
        what = [self.identity, self.prompt, below, list(texts), "1"]
        return hashlib.sha256(json.dumps(what, ensure_ascii=False).encode("utf-8", "surrogatepass")).hexdigest()[:32]


class UpperBlocks(nn.Module):
    """Some consecutive blocks of an LLM, from states to states: equal to the whole where they are fed what enters them.

    The backbone is copied without its weights' memory: the modules are the very same, so that adapters put into them
    are at work here too.
    """

    def __init__(self, backbone: Any, start: int, stop: int) -> None:
        super().__init__()
        part = copy.copy(backbone)
        # copy.copy shares the dictionaries of modules, and the copy is to have other layers.
        part._modules = dict(backbone._modules)
        part.layers = nn.ModuleList(list(backbone.layers)[start:stop])
        part.config = copy.deepcopy(backbone.config)
        part.config.num_hidden_layers = stop - start
        if getattr(part.config, "layer_types", None) is not None:
            part.config.layer_types = list(backbone.config.layer_types)[start:stop]
        self.part = part
        self._norm = backbone.norm

    def forward(self, values: Tensor, mask: Tensor, *, final: bool = True) -> Tensor:
        """values [B, L, d] that enter the first of the blocks -> [B, L, d]; final: with the LLM's last norm."""
        self.part.norm = self._norm if final else nn.Identity()
        hidden: Tensor = self.part(inputs_embeds=values, attention_mask=mask.long(), use_cache=False).last_hidden_state
        return hidden


def _padded(rows: Sequence[Tensor]) -> TextStates:
    lengths = torch.tensor([len(row) for row in rows])
    values = nn.utils.rnn.pad_sequence(list(rows), batch_first=True)
    return TextStates(values, torch.arange(values.shape[1])[None] < lengths[:, None])


def _load(path: Path) -> TextStates | None:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors = load_file(path)
    except FileNotFoundError:
        return None
    except (OSError, SafetensorError) as error:
        logger.warning("states kept in %s cannot be read (%s); they are computed again", path, error)
        return None
    rows = torch.split(tensors["values"].float(), tensors["lengths"].tolist())
    return _padded(rows)


def _save(path: Path, states: TextStates) -> None:
    from safetensors.torch import save_file

    tensors = {"values": states.values[states.mask].contiguous(), "lengths": states.mask.sum(1)}
    try:
        with atomic_path(path) as temporary:
            save_file(tensors, temporary)
    except OSError as error:
        raise StorageError(f"states cannot be kept in {str(path)!r}: {error}") from error
