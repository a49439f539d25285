"""The embedded LLM: Gemma 3 270M or any GGUF file, run by llama.cpp on this machine.

Knows: how prompts, windows and options map to the embedded server. Refuses to know: templates, labels, images.
"""

from __future__ import annotations

import asyncio
import logging
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any, Literal

from icl_vision import checks
from icl_vision.contracts import Completion, Constraint, Profile, Prompt, Scores, Usage
from icl_vision.cores import usable_cores
from icl_vision.errors import CapabilityError, LLMUnavailableError, PromptError, PromptTooLongError, UsageError
from icl_vision.llms import answers
from icl_vision.llms.answers import Said
from icl_vision.llms.base import BaseLLM
from icl_vision.llms.forced_requests import SIBLINGS, Lead, common_prefix
from icl_vision.llms.local.gguf import file_hash, packaged_gemma, packaged_hash, read_info
from icl_vision.llms.local.grammar import constraint_grammar
from icl_vision.llms.local.places import write_places
from icl_vision.llms.local.scoring import (
    LOWEST,
    TokenPair,
    next_tokens,
    score_pairs,
    share_tokens,
    usage_of,
)
from icl_vision.llms.local.server import LlamaServer, ServerOptions, llama_version, require_xllamacpp, shared_server
from icl_vision.llms.profiles import GEMMA_3_270M_CONTEXT, GEMMA_3_270M_NAME
from icl_vision.llms.scores import PartialScores, attach, take
from icl_vision.llms.word_tables import WordTable, WordTables, in_use, key_of

logger = logging.getLogger(__name__)

DEFAULT_WINDOW = 8192
"""Tokens of a request's window: some hundred examples of five words, in 150 MB of cache for Gemma 3 270M."""

TABLES_AT_ONCE = 16
"""Word tables written to disk together, so that a kill costs few."""

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
        scores_as: in which form texts are scored where the file has a chat template: "text" continues the plain prompt;
            "answer" is what the model says in its turn after the prompt, ended by its own end of turn (then a
            terminator of a line end stands for that). The noisy channel and many words at once want "text".
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
        scores_as: Literal["text", "answer"] = "text",
        threads: int | None = None,
        context: int | None = None,
        slots: int = 1,
        deterministic: bool = False,
        reasoning_room: int | None = None,
    ) -> None:
        if api not in ("auto", "chat", "completions"):
            raise UsageError(f"api for a local LLM must be 'auto', 'chat' or 'completions'; got {api!r}")
        checks.choice("scores_as", scores_as, ("text", "answer"))
        threads = checks.count("threads", threads, most=1024, none="the cores this process may use")
        window = checks.count("context", context, least=64, most=2**22, of="tokens", none="the default")
        slots = checks.count("slots", slots, most=256)
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
        # Of the header, not of the file's name: a copy gives the same answers.
        self._model_name = (info.own_name if info is not None else "").replace("|", " ") or "gguf"
        trained = GEMMA_3_270M_CONTEXT if info is None else info.context_length
        if window is not None and trained is not None and window > trained:
            raise UsageError(f"context={window} is more than the {trained} tokens the model was trained with")
        has_template = info is not None and bool(info.chat_template)
        if api == "chat" and not has_template:
            raise UsageError(f"{str(path)!r} holds no chat template, so it cannot chat: use api='completions'")
        chat = api == "chat" or (api == "auto" and has_template)
        thinks = chat and info is not None and "<think>" in (info.chat_template or "")
        if scores_as == "answer" and (not chat or api == "chat" or thinks):
            raise UsageError(
                "scores_as='answer' scores what an instruct model says in its turn: it needs a GGUF file with a chat "
                "template that knows no thoughts, and api='auto'; leave it out to score continuations of plain text"
            )
        # Unless asked otherwise log-probabilities are those of plain text, for instruct models too.
        scores = api != "chat"
        self._in_turn = scores_as == "answer"
        self._window = window or min(DEFAULT_WINDOW, trained or DEFAULT_WINDOW)
        self._threads = threads or usable_cores()
        self._slots = slots
        self._deterministic = deterministic
        self._closed = False
        self._profile = Profile(
            name="local" if self._path is None else f"local:{self._path.name}",
            context_window=self._window,
            api="chat" if chat else "completions",
            scores_text=scores,
            constraint="grammar",
            seed=True,
            prefix_cache=not deterministic,
            scores_bags=scores and not self._in_turn,
            embedded=True,
            logprobs=True,
            reasoning="optional" if thinks else "never",
        )
        self._reasoning_room = answers.reasoning_room_of(reasoning_room, self._profile)
        self._prompts: dict[tuple[bool, str], list[int]] = {}
        self._single_tokens: dict[str, int] = {}
        self._not_single: set[tuple[str, ...]] = set()
        # Bits that must be equal from call to call are asked for every time.
        self._tables = WordTables() if scores and not deterministic and not self._in_turn else None
        self._end_of_turn: list[int] | None = None
        self._model: str | None = None
        self._learning = _Locks()

    @property
    def profile(self) -> Profile:
        return self._profile

    @property
    def identity(self) -> str:
        """The model by its content (its own name and the file's hash), the endpoint, and options that change answers.

        A file is read for it once, which takes a second for each gigabyte or so: not for an event loop's thread.
        """
        # Only where they are not what they always were: older caches and run folders go on.
        options = ("|deterministic" if self._deterministic else "") + (
            f"|context={self._window}" if self._window != DEFAULT_WINDOW else ""
        )
        options += "|scores as answers" if self._in_turn else ""
        if self._path is None:
            return f"local:{GEMMA_3_270M_NAME}|{self._profile.api}{options}"
        return f"local:{self._model_name}|sha256 {file_hash(self._path)}|{self._profile.api}{options}"

    @property
    def llama_lead(self) -> Lead:
        """ "always" where every call starts from an empty cache, "held" elsewhere."""
        return "always" if self._deterministic else "held"

    @property
    def places_apart(self) -> bool:
        """Yes, where it continues plain text: see ``local.places``."""
        return self._profile.api == "completions"

    @property
    def learns_words(self) -> bool:
        """Yes, unless it only chats or is ``deterministic``."""
        return self._tables is not None

    def word_table(self, prompt: Prompt) -> WordTable | None:
        """What is kept of a prompt, without asking for it."""
        if self._tables is None or not in_use():
            return None
        key = self._table_key(prompt)
        return self._tables.load([key]).get(key)

    async def _close(self) -> None:
        self._closed = True
        if self._tables is not None:
            await asyncio.to_thread(self._tables.close)

    async def _ready(self) -> LlamaServer:
        self._check_open()
        path = await asyncio.to_thread(packaged_gemma) if self._path is None else self._path
        return await shared_server(
            ServerOptions(path=path, threads=self._threads, context=self._window, slots=self._slots)
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
        logprobs: bool = False,
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
        if logprobs:
            # Of the likeliest token at each place, and with it of the one that was written.
            document["n_probs"] = 1
            document["response_fields"].append("completion_probabilities")
        if constraint is not None and constraint.places and known:
            self._check_fits(len(tokens), constraint.count)
            answered = await write_places(server, document, constraint.places[:max_tokens], known, lift=LIFT)
            return answered if max_tokens >= constraint.count else replace(answered, finish_reason="length")
        document |= restriction
        answer, spent = await self._written(server, document, tokens)
        limited = answer.get("stop_type") == "limit" and answer.get("tokens_predicted") != length
        met = answer.get("stopping_word") if answer.get("stop_type") == "word" else None
        written = answers.tokens_told(answer.get("completion_probabilities"))
        said = Said(str(answer["content"]), "length" if limited else "stop", spent, stopped=met, written=written)
        return answers.cut(answers.read(said, self.profile.name, answer, stops=stop), stop, said)

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
        tables = await self._known_tables([prompt for prompt, _ in pairs]) if not terminator else {}
        if not tables:
            return await self._asked(pairs, terminator)
        kept = _from_tables(tables, pairs)
        missing = [index for index, value in enumerate(kept) if value is None]
        known = {index: value for index, value in enumerate(kept) if value is not None}
        try:
            asked = await self._asked([pairs[index] for index in missing], terminator) if missing else Scores(())
        except Exception as error:
            came = take(error)
            later = {missing[index]: value for index, value in came.logprobs.items()}
            attach(error, PartialScores(known | later, came.usage, came.method))
            raise
        asked_for = dict(zip(missing, asked.logprobs, strict=True))
        await self._keep_more(tables, [(*pairs[index], value) for index, value in asked_for.items()])
        known |= asked_for
        return Scores(tuple(known[index] for index in range(len(pairs))), asked.usage, asked.method or "word tables")

    async def _asked(self, pairs: Sequence[tuple[Prompt, str]], terminator: str) -> Scores:
        """Scores by asking llama.cpp for all of them."""
        server = await self._ready()
        token_pairs = []
        words = tuple(dict.fromkeys(text[1:] for _, text in pairs if text[:1] == " "))
        # Words of one token each need no tokenising of the whole prompt, once it is known that none melts into it.
        single = await self._single(server, words) if words and not terminator and not self._in_turn else {}
        apart: dict[str, bool] = {}
        for prompt, continuation in pairs:
            tokens = await self._prompt_tokens(server, prompt, plain=not self._in_turn)
            token = single.get(continuation[1:]) if continuation[:1] == " " else None
            if self._in_turn:
                whole = [*tokens, *await self._turn(server, continuation, terminator)]
            elif token is not None and apart.get(prompt.text):
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

    @property
    def tells_shares(self) -> bool:
        """Yes, unless it only chats, ``scores_as`` answers, or is ``deterministic``, which reads every prompt first."""
        return self.profile.scores_text and not self._deterministic and not self._in_turn

    async def _share_words(self, prompt: Prompt, words: Sequence[str]) -> Scores:
        score = super()._share_words
        if not self.tells_shares or len(set(words)) < 2:
            return await score(prompt, words)
        server = await self._ready()
        single = await self._single(server, tuple(dict.fromkeys(words)))
        tokens = await self._prompt_tokens(server, prompt, plain=True)
        # Where a word is several tokens, or melts into the prompt's last one, its own token says nothing.
        apart = single and await server.tokenize(f"{prompt.text} {words[0]}") == [*tokens, single[words[0]]]
        if not apart or not tokens:
            return await score(prompt, words)
        self._check_fits(len(tokens) + 1, 0)
        shares, usage = await share_tokens(server, tokens, [single[word] for word in dict.fromkeys(words)])
        return Scores(tuple(shares.get(single[word], LOWEST) for word in words), usage, "shares")

    # ---- word tables ----

    async def _learn_words(self, prompts: Sequence[Prompt], words: Sequence[str], done: Callable[[int], None]) -> Usage:
        self._check_open()
        # Who comes second finds what the first has learnt.
        async with self._learning.here():
            known = await self._known_tables(prompts)
            distinct = {prompt.text: prompt for prompt in prompts}
            unknown = [prompt for prompt in distinct.values() if _lacking(known.get(prompt.text), words)]
            done(len(prompts) - len(unknown))
            if self._tables is None or not in_use() or not unknown:
                return Usage()
            server = await self._ready()
            tokens = await self._tokens_of_words(server, words)
            # In the order in which ``score`` would ask: what neighbours share is read once, and rounds the same.
            order = sorted(
                [(await self._prompt_tokens(server, prompt, plain=True), prompt) for prompt in unknown],
                key=itemgetter(0),
            )
            spent, learnt = Usage(), dict[str, WordTable]()
            try:
                for ids, prompt in order:
                    table, usage = await self._learn_prompt(server, prompt, ids, tokens, known.get(prompt.text))
                    spent += usage
                    if table is not None:
                        learnt[self._table_key(prompt)] = table
                    if len(learnt) >= TABLES_AT_ONCE:
                        await asyncio.to_thread(self._tables.keep, learnt)
                        learnt = {}
                    done(1)
            finally:
                await asyncio.shield(asyncio.to_thread(self._tables.keep, learnt))
            return spent

    async def _learn_prompt(
        self, server: LlamaServer, prompt: Prompt, ids: list[int], tokens: Mapping[str, int], table: WordTable | None
    ) -> tuple[WordTable | None, Usage]:
        """A prompt's table with these words, or None where there is nothing to keep; and what it took."""
        new = _lacking(table, list(tokens))
        if not new or not ids or len(ids) >= self._window:
            return None, Usage()
        # Where a word melts into the prompt's last token, its own token says nothing.
        if await server.tokenize(f"{prompt.text} {new[0]}") != [*ids, tokens[new[0]]]:
            return None, Usage()
        following = await next_tokens(server, ids, [tokens[word] for word in new])
        told = [word for word in new if tokens[word] in following.levels]
        shares, levels = ([column[tokens[word]] for word in told] for column in (following.shares, following.levels))
        if table is None:
            return WordTable.of(told, shares, levels), following.usage
        return table.with_more(dict(zip(told, levels, strict=True))), following.usage

    async def _tokens_of_words(self, server: LlamaServer, words: Sequence[str]) -> dict[str, int]:
        """The tokens of those words that are one each."""
        new = [word for word in words if word not in self._single_tokens]
        parts = [new] if new else []
        while parts:
            part = parts.pop()
            tokens = await _single_tokens(server, tuple(part))
            if tokens:
                self._single_tokens.update(zip(part, tokens, strict=True))
            elif len(part) > 1:
                # One of them is not: which, is found by halves.
                parts += [part[: len(part) // 2], part[len(part) // 2 :]]
        return {word: self._single_tokens[word] for word in words if word in self._single_tokens}

    async def _known_tables(self, prompts: Sequence[Prompt]) -> dict[str, WordTable]:
        """The tables there are, by the prompt's text."""
        if self._tables is None or not in_use():
            return {}
        self._check_open()
        distinct = {prompt.text: prompt for prompt in prompts}
        load = self._tables.load

        def read() -> dict[str, WordTable]:
            keys = {text: self._table_key(prompt) for text, prompt in distinct.items()}
            tables = load(keys.values())
            return {text: tables[key] for text, key in keys.items() if key in tables}

        return await asyncio.to_thread(read)

    async def _keep_more(self, tables: Mapping[str, WordTable], answers: Sequence[tuple[Prompt, str, float]]) -> None:
        """Add words that were asked for to the tables of their prompts."""
        more: dict[str, tuple[Prompt, dict[str, float]]] = {}
        for prompt, text, value in answers:
            if prompt.text in tables and text[:1] == " ":
                more.setdefault(prompt.text, (prompt, {}))[1][text[1:]] = value
        if more and self._tables is not None:
            grown = {self._table_key(prompt): tables[text].with_more(added) for text, (prompt, added) in more.items()}
            await asyncio.to_thread(self._tables.keep, grown)

    def _table_key(self, prompt: Prompt) -> str:
        """The key of a prompt's table; reads the model file once a change, to know it by its hash."""
        if self._model is None:
            self._model = packaged_hash() if self._path is None else file_hash(self._path)
        options = (self._window, self._slots, self._threads)
        return key_of((self._model, llama_version(), *options), prompt)

    def _check_open(self) -> None:
        if self._closed:
            raise LLMUnavailableError(f"{self.profile.name!r} was closed; connect() again")

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
            tokens = await self._chat_tokens(server, prompt)
        if len(self._prompts) >= 256:  # prompts of one episode come again and again, older ones do not
            self._prompts.pop(next(iter(self._prompts)))
        self._prompts[key] = tokens
        return tokens

    async def _chat_tokens(self, server: LlamaServer, prompt: Prompt) -> list[int]:
        """A prompt in the model's chat template, up to where its turn begins.

        A text that spells the model's own marks ("<|im_end|>") is read as text: it must not end the turn it stands in.
        """
        contents = {"system": prompt.instruction, "user": replace(prompt, instruction="").text}
        contents = {role: text for role, text in contents.items() if text or role == "user"}
        whole = "\n".join(contents.values())
        harmless = await server.tokenize(whole, start=False) == await server.tokenize(whole, start=False, special=True)
        if harmless:
            return await server.tokenize(await _templated(server, contents.items()), special=True)
        stand_ins = {role: f"zq{number}qz" for number, role in enumerate(contents)}
        rest = await _templated(server, stand_ins.items())
        tokens: list[int] = []
        for role, stand_in in stand_ins.items():
            before, found, rest = rest.partition(stand_in)
            if not found or stand_in in rest:
                raise PromptError(
                    f"the prompt spells marks of the chat template of {self.profile.name!r}, which does not say each "
                    "message once, as it is, so that they cannot be told from text; remove them, or use "
                    "api='completions'"
                )
            tokens += await server.tokenize(before, start=not tokens, special=True)
            tokens += await server.tokenize(contents[role].strip(), start=False)
        return tokens + await server.tokenize(rest, start=False, special=True)

    async def _turn(self, server: LlamaServer, continuation: str, terminator: str) -> list[int]:
        """What the model says in its turn; a line end is the end of the turn."""
        said = continuation.removeprefix(" ")
        if terminator != "\n":
            return await server.tokenize(said + terminator, start=False)
        if self._end_of_turn is None:
            self._end_of_turn = await _end_of_turn(server)
        return [*await server.tokenize(said, start=False), *self._end_of_turn]

    def _check_fits(self, tokens: int, room: int) -> int:
        if tokens + room > self._window:
            fits = tokens <= self._window
            kept = f"{room} of the window are kept for the answer; " if fits else ""
            raise PromptTooLongError(tokens, self._window, kept + SHORTER)
        return self._window - tokens


class _Locks:
    """A lock for each event loop that is alive: after a fork the loop is another one."""

    def __init__(self) -> None:
        self._locks: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Lock] = weakref.WeakKeyDictionary()

    def here(self) -> asyncio.Lock:
        """That of the running loop."""
        return self._locks.setdefault(asyncio.get_running_loop(), asyncio.Lock())

    def __reduce__(self) -> tuple[type[_Locks], tuple[()]]:
        return _Locks, ()


async def _templated(server: LlamaServer, messages: Iterable[tuple[str, str]]) -> str:
    """Messages in the model's chat template, with the beginning of its turn."""
    document = {"messages": [{"role": role, "content": text} for role, text in messages]}
    return str((await server.post("/apply-template", document))["prompt"])


async def _end_of_turn(server: LlamaServer) -> list[int]:
    """The mark by which the chat template ends the model's turn; that of a line where it has none."""
    said = "zq0qz"
    text = await _templated(server, [("user", "a"), ("assistant", said), ("user", "b")])
    after = text.partition(said)[2]
    marks = await server.tokenize(after, start=False, special=True)
    spelt = await server.tokenize(after, start=False)
    first = common_prefix(marks, spelt)
    return marks[first : first + 1] or await server.tokenize("\n", start=False)


def _from_tables(tables: Mapping[str, WordTable], pairs: Sequence[tuple[Prompt, str]]) -> list[float | None]:
    """What the tables say of each pair; None where they say nothing.

    Neighbours with the same prompt are words asked about together, so that an image's answer is the same whichever
    others come with it in one call.
    """
    kept: list[float | None] = []
    for prompt, group in groupby(pairs, key=lambda pair: pair[0].text):
        texts = [text for _, text in group]
        table = tables.get(prompt)
        known = {} if table is None else table.logprobs(text[1:] for text in texts if text[:1] == " ")
        kept += [known.get(text[1:]) if text[:1] == " " else None for text in texts]
    return kept


def _lacking(table: WordTable | None, words: Sequence[str]) -> list[str]:
    """The words that are worth learning: one or two that are missing beside others are asked for when needed."""
    if table is None:
        return list(words)
    new = [word for word in words if word not in table]
    return new if len(new) >= SIBLINGS else []


async def _single_tokens(server: LlamaServer, words: tuple[str, ...]) -> list[int]:
    """The token of each word with its leading space; none at all where one word is not a single token."""
    if any(" " in word or not word for word in words):
        return []
    tokens = await server.tokenize("".join(" " + word for word in words), start=False)
    # As many tokens as words, in the reverse order too: no word was cut while two others were joined.
    back = await server.tokenize("".join(" " + word for word in reversed(words)), start=False)
    return tokens if len(tokens) == len(words) and back == tokens[::-1] else []
