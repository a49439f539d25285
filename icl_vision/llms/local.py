"""The embedded LLM: Gemma 3 270M or any GGUF file, run by llama.cpp on this machine.

Knows: how prompts, windows and options map to the embedded server. Refuses to know: templates, labels, images.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from icl_vision.contracts import Completion, Constraint, Profile, Prompt, Scores, Usage
from icl_vision.cores import usable_cores
from icl_vision.errors import CapabilityError, LLMUnavailableError, PromptTooLongError, UsageError
from icl_vision.llms import answers
from icl_vision.llms.answers import Said
from icl_vision.llms.base import BaseLLM
from icl_vision.llms.gguf import packaged_gemma, read_info
from icl_vision.llms.grammar import constraint_grammar
from icl_vision.llms.llama_places import write_places
from icl_vision.llms.llama_scoring import TokenPair, score_pairs, usage_of
from icl_vision.llms.llama_server import LlamaServer, ServerOptions, require_xllamacpp, shared_server
from icl_vision.llms.profiles import GEMMA_3_270M_CONTEXT, GEMMA_3_270M_NAME

logger = logging.getLogger(__name__)

DEFAULT_CONTEXT = 8192
"""Tokens of a request's window: some hundred examples of five words, in 150 MB of cache for Gemma 3 270M."""

LIFT = 1_000.0
"""Added to the allowed tokens' logits: far above any other, and equal, so that their order stays the model's own."""

SHORTER = (
    "use fewer shots, ways, inner shots or repeats, fewer words per image, or connect('local', context=...) with more"
)


class LocalLLM(BaseLLM):
    """An LLM that runs on this machine; made by ``connect("local")`` or ``connect("local:PATH.gguf")``.

    Args:
        path: a GGUF file; None is the packaged Gemma 3 270M (base).
        api: "completions" continues plain text, "chat" puts the prompt into the model's chat template and scores
            nothing, "auto" is "completions" where the file has no template, and both where it has one: what the model
            writes is a chat's answer, and texts are scored as continuations of the plain prompt.
        threads: of llama.cpp; default: the cores this process may use.
        context: tokens of one request's window, default 8192 or what the model was trained with, if less.
        slots: requests evaluated side by side, each with a window and a prefix cache of its own.
        deterministic: start every call from an empty cache and use one slot, so that equal calls give equal bits.
            Otherwise the last digits depend on what the cache held (some hundredths of a nat a token).
        reasoning_room: tokens of thinking allowed beside ``max_tokens``; None is 4096 where the chat template knows
            thoughts, and none otherwise. What is constrained has no thoughts.

    Nothing is loaded until the first call. All LocalLLMs with the same path,
    threads, context and slots share one server, stopped when the process ends.
    """

    def __init__(
        self,
        path: str | Path | None = None,
        *,
        api: Literal["auto", "chat", "completions"] = "auto",
        threads: int | None = None,
        context: int | None = None,
        slots: int = 1,
        deterministic: bool = False,
        reasoning_room: int | None = None,
    ) -> None:
        if api not in ("auto", "chat", "completions"):
            raise UsageError(f"api for a local LLM must be 'auto', 'chat' or 'completions'; got {api!r}")
        for name, value, least, most in (
            ("threads", threads, 1, 1024),
            ("context", context, 64, 2**22),
            ("slots", slots, 1, 256),
        ):
            if value is None and name != "slots":
                continue
            if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
                raise UsageError(f"{name} must be a whole number from {least} to {most}; got {value!r}")
        if deterministic and slots != 1:
            raise UsageError(f"deterministic=True works with slots=1 only; got slots={slots}")
        if path is None and api == "chat":
            raise UsageError(
                "the packaged Gemma 3 270M is a base model without a chat template: use api='completions', "
                "or connect('local:PATH.gguf') with an instruct model"
            )
        require_xllamacpp()  # a missing extra should be told here, not at the first prompt
        self._path = None if path is None else Path(path).expanduser()
        info = None if self._path is None else read_info(self._path)
        trained = GEMMA_3_270M_CONTEXT if info is None else info.context_length
        if context is not None and trained is not None and context > trained:
            raise UsageError(f"context={context} is more than the {trained} tokens the model was trained with")
        has_template = info is not None and bool(info.chat_template)
        if api == "chat" and not has_template:
            raise UsageError(f"{str(path)!r} holds no chat template, so it cannot chat: use api='completions'")
        chat = api == "chat" or (api == "auto" and has_template)
        # A chat template is for questions; log-probabilities are those of plain text, for instruct models too.
        scores = api != "chat"
        self._context = context or min(DEFAULT_CONTEXT, trained or DEFAULT_CONTEXT)
        self._threads = threads or usable_cores()
        self._slots = slots
        self._deterministic = deterministic
        self._closed = False
        self._profile = Profile(
            name="local" if self._path is None else f"local:{self._path.name}",
            context_window=self._context,
            api="chat" if chat else "completions",
            scores_text=scores,
            constraint="grammar",
            seed=True,
            prefix_cache=not deterministic,
            scores_bags=scores,
            reasoning="optional" if chat and info is not None and "<think>" in (info.chat_template or "") else "never",
        )
        self._reasoning_room = answers.reasoning_room_of(reasoning_room, self._profile)
        self._prompts: dict[tuple[bool, str], list[int]] = {}
        self._single_tokens: dict[str, int] = {}
        self._not_single: set[tuple[str, ...]] = set()

    @property
    def profile(self) -> Profile:
        return self._profile

    @property
    def identity(self) -> str:
        """The model file's name, size and time of change, and the endpoint."""
        if self._path is None:
            return f"local:{GEMMA_3_270M_NAME}|{self._profile.api}"
        status = self._path.stat()
        return f"local:{self._path.resolve()}|{status.st_size}|{status.st_mtime_ns}|{self._profile.api}"

    async def _close(self) -> None:
        self._closed = True

    async def _ready(self) -> LlamaServer:
        if self._closed:
            raise LLMUnavailableError(f"{self.profile.name!r} was closed; connect() again")
        path = await asyncio.to_thread(packaged_gemma) if self._path is None else self._path
        return await shared_server(
            ServerOptions(path=path, threads=self._threads, context=self._context, slots=self._slots)
        )

    async def _complete(
        self,
        prompt: Prompt,
        *,
        max_tokens: int,
        stop: tuple[str, ...],
        temperature: float,
        seed: int | None,
        constraint: Constraint | None,
    ) -> Completion:
        server = await self._ready()
        # The length is known where the restriction counts tokens; a grammar ends by itself.
        plain = self.profile.api == "completions"
        known = await self._single(server, constraint.allowed) if constraint is not None and plain else {}
        restriction, length = ({}, None) if constraint is None else self._restriction(constraint, known)
        tokens = await self._prompt_tokens(server, prompt, plain=plain)
        room = self._check_fits(len(tokens), 1)
        document: dict[str, Any] = {
            "prompt": tokens,
            "n_predict": min(self.most_tokens(max_tokens, constraint), room, length or room),
            # A stop string within its thoughts would end them; those are cut off here before it is looked for.
            "stop": [] if self._reasoning_room else list(stop),
            "temperature": temperature,
            "cache_prompt": not self._deterministic,
            # Plain sampling from the whole distribution, or the likeliest token: no penalties, no truncation.
            "samplers": ["temperature"] if temperature else ["top_k"],
            "top_k": 0 if temperature else 1,
            "response_fields": ["content", "stop_type", "stopping_word", "tokens_predicted", "timings"],
        }
        if seed is not None:
            document["seed"] = seed
        if constraint is not None and constraint.places and known:
            self._check_fits(len(tokens), constraint.count)
            answered = await write_places(server, document, constraint.places[:max_tokens], known, lift=LIFT)
            return answered if max_tokens >= constraint.count else replace(answered, finish_reason="length")
        document |= restriction
        answer, spent = await self._written(server, document, tokens)
        limited = answer.get("stop_type") == "limit" and answer.get("tokens_predicted") != length
        met = answer.get("stopping_word") if answer.get("stop_type") == "word" else None
        said = Said(str(answer["content"]), "length" if limited else "stop", spent, stopped=met)
        return answers.cut(answers.read(said, self.profile.name, answer, stops=stop), stop)

    async def _written(
        self, server: LlamaServer, document: dict[str, Any], tokens: list[int]
    ) -> tuple[dict[str, Any], Usage]:
        """The server's answer, and what it took. A stop string of white space that was met before anything visible does
        not end it: the text goes on behind it, which costs no more than if it had not been met."""
        asked, room, spent = list(tokens), int(document["n_predict"]), Usage()
        async with server.slot(tokens) as slot:
            while True:
                more = {"prompt": asked, "n_predict": room, "id_slot": slot.number}
                answer = await server.post("/completion", document | more)
                slot.tokens = asked
                spent += usage_of(answer)
                room -= max(1, int(answer.get("tokens_predicted") or 0))
                met = str(answer.get("stopping_word") or "") if answer.get("stop_type") == "word" else ""
                if not met or met.strip() or str(answer["content"]).strip() or room < 1:
                    return answer, spent
                asked = [*asked, *await server.tokenize(str(answer["content"]) + met, start=False)]

    def most_tokens(self, max_tokens: int, constraint: Constraint | None) -> int:
        """Tokens a completion may take: more than ``max_tokens`` where the model reasons and nothing restricts it."""
        return max_tokens + (self._reasoning_room if constraint is None else 0)

    def _restriction(self, constraint: Constraint, known: dict[str, int]) -> tuple[dict[str, Any], int | None]:
        """What llama.cpp must be told so that it writes nothing else, and after how many tokens it is done.

        Words that are one token each (``known``) are lifted above all others by a logit bias, in any number. Everything
        else needs a grammar, which llama.cpp tries on its whole vocabulary at each token
        (benchmarks/bench_local_constraints.py).
        """
        if known:
            return {"logit_bias": [[token, LIFT] for token in known.values()]}, constraint.count
        return {"grammar": constraint_grammar(constraint, leading_space=self.profile.api == "completions")}, None

    async def _single(self, server: LlamaServer, words: tuple[str, ...]) -> dict[str, int]:
        """The token of each word with its leading space; nothing where one of them is not a single token."""
        if words in self._not_single:
            return {}
        new = tuple(word for word in dict.fromkeys(words) if word not in self._single_tokens)
        if new:
            tokens = await _single_tokens(server, new)
            if not tokens:
                if len(self._not_single) >= 64:
                    self._not_single.clear()
                self._not_single.add(words)
                return {}
            # Drawing asks for another set of words at each step: what is known of a word serves them all.
            self._single_tokens.update(zip(new, tokens, strict=True))
        return {word: self._single_tokens[word] for word in words}

    async def _score(self, pairs: Sequence[tuple[Prompt, str]], *, terminator: str) -> Scores:
        if not self.profile.scores_text:
            raise CapabilityError(
                f"{self.profile.name!r} was connected with api='chat', which gives no log-probabilities of given text; "
                "leave api out to score with it, too"
            )
        server = await self._ready()
        token_pairs = []
        words = tuple(dict.fromkeys(text[1:] for _, text in pairs if text[:1] == " "))
        # Words of one token each need no tokenising of the whole prompt, once it is known that none melts into it.
        single = await self._single(server, words) if words and not terminator else {}
        apart: dict[str, bool] = {}
        for prompt, continuation in pairs:
            tokens = await self._prompt_tokens(server, prompt, plain=True)
            token = single.get(continuation[1:]) if continuation[:1] == " " else None
            if token is not None and apart.get(prompt.text):
                whole = [*tokens, token]
            else:
                whole = await server.tokenize(prompt.text + continuation + terminator)
                apart[prompt.text] = token is not None and whole == [*tokens, token]
            self._check_fits(len(whole), 0)
            pair = TokenPair.split(tokens, whole)
            if not pair.continuation or not pair.prompt:
                raise UsageError(f"the continuation {continuation!r} adds no token to its prompt")
            token_pairs.append(pair)
        return await score_pairs(server, token_pairs, fresh=self._deterministic)

    async def _count_tokens(self, text: str) -> int:
        return len(await (await self._ready()).tokenize(text, start=False)) if text else 0

    async def _prompt_tokens(self, server: LlamaServer, prompt: Prompt, *, plain: bool) -> list[int]:
        """plain: as it is, to be continued; otherwise in the model's chat template."""
        text = prompt.text
        key = (plain, text) if plain else (plain, f"{prompt.instruction!r}{text}")
        known = self._prompts.get(key)
        if known is not None:
            return known
        if plain:
            tokens = await server.tokenize(text)
        else:
            messages = [{"role": "system", "content": prompt.instruction}] if prompt.instruction else []
            messages.append({"role": "user", "content": replace(prompt, instruction="").text})
            answer = await server.post("/apply-template", {"messages": messages})
            tokens = await server.tokenize(str(answer["prompt"]), special=True)
        if len(self._prompts) >= 256:  # prompts of one episode come again and again, older ones do not
            self._prompts.pop(next(iter(self._prompts)))
        self._prompts[key] = tokens
        return tokens

    def _check_fits(self, tokens: int, room: int) -> int:
        if tokens + room > self._context:
            fits = tokens <= self._context
            kept = f"{room} of the window are kept for the answer; " if fits else ""
            raise PromptTooLongError(tokens, self._context, kept + SHORTER)
        return self._context - tokens


async def _single_tokens(server: LlamaServer, words: tuple[str, ...]) -> list[int]:
    """The token of each word with its leading space; none at all where one word is not a single token."""
    if any(" " in word or not word for word in words):
        return []
    tokens = await server.tokenize("".join(" " + word for word in words), start=False)
    # As many tokens as words, in the reverse order too: no word was cut while two others were joined.
    back = await server.tokenize("".join(" " + word for word in reversed(words)), start=False)
    return tokens if len(tokens) == len(words) and back == tokens[::-1] else []
