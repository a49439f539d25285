"""The proxy put together from what was named at start.

    app, remarks = Parts(llm_url="http://127.0.0.1:8080").assembled()

Knows: which option needs which part, what must be said at start. Refuses to know: command lines, listening.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from icl_vision.errors import UsageError
from icl_vision.llms.redaction import Secret
from icl_vision.serving.fetching import Fetcher
from icl_vision.serving.hosts import Access, Application
from icl_vision.serving.pictures import Limits, Pictures
from icl_vision.serving.proxy.app import proxy
from icl_vision.serving.proxy.captioning import Captioner
from icl_vision.serving.proxy.embedded import Answering, Embedded, started
from icl_vision.serving.proxy.headers import Keys
from icl_vision.serving.proxy.upstream import Upstream
from icl_vision.serving.roots import Roots
from icl_vision.serving.words import PictureWords
from icl_vision.wording import counted

LOCAL = "local"

_ALONE = (LOCAL, "fake", "replay")
"""Kinds of LLMs that cost nobody anything."""


@dataclass(frozen=True, slots=True)
class Parts:
    """What a proxy is made of.

    Args:
        llm_url: the LLM's server; None for an LLM of this machine.
        llm: which one that is: "local" or "local:PATH.gguf".
        access: who may ask.
        upstream_key: used in place of clients' keys; then ``access`` needs a token.
        limits: caps.
        roots: folders whose pictures may be named.
        fetch: whether http addresses are fetched.
        tokenizer, k, ocr: how pictures become words.
        captioner: a model that says the words instead.
        classifier: a file that ``FewShotClassifier.save`` wrote. classifier_llm: which LLM it asks, where not its own.
        examples: what questions are answered with in front of a base LLM: a file of JSON lines, its folder, or a file
            that ``VisualQA.save`` wrote; None for the packaged ones.
        seconds: between two pieces of an answer of the LLM's server.
    """

    llm_url: str | None = None
    llm: str = LOCAL
    access: Access = field(default_factory=Access)
    upstream_key: Secret | None = None
    limits: Limits = field(default_factory=Limits)
    roots: Sequence[str | os.PathLike[str]] = ()
    fetch: bool = False
    tokenizer: str = "describe-photo"
    k: int | None = None
    ocr: bool = True
    captioner: Captioner | None = None
    classifier: str | os.PathLike[str] | None = None
    classifier_llm: str | None = None
    examples: str | os.PathLike[str] | None = None
    seconds: float = 600.0

    def assembled(self) -> tuple[Application, list[str]]:
        """The application, and what must be said to whoever starts it; the first line names the tokenizer.

        Raises:
            UsageError, StorageError, ArtefactError ...: something named that cannot be used.
        """
        if self.upstream_key is not None and self.access.token is None:
            raise UsageError(
                "--upstream-key-env lends a key to every client, so clients need a token: name the variable that holds "
                "it with --token-env"
            )
        if self.access.token is None:
            # Keys of the environment: whatever program of this machine finds the port would spend on them.
            if self.captioner is not None and self.captioner.key is not None:
                raise UsageError(
                    "--captioner-key-env is spent on by every client, so clients need a token: name the variable that "
                    "holds it with --token-env"
                )
            if self.classifier_llm is not None and self.classifier_llm.partition(":")[0] not in _ALONE:
                raise UsageError(
                    "--classifier-llm names an LLM that is not local, and every client has it asked, so clients need a "
                    "token: name the variable that holds it with --token-env"
                )
        if self.upstream_key is not None and self.llm_url is None:
            raise UsageError("--upstream-key-env is the key of --llm-url; name that, or leave the key out")
        fetcher = Fetcher(self.limits.bytes, self.limits.seconds) if self.fetch else None
        pictures = Pictures(self.limits, Roots(self.roots), fetcher)
        words = PictureWords(
            self.tokenizer,
            k=self.k,
            ocr=self.ocr,
            limits=self.limits,
            classifier=self._classifier(),
            captioner=self.captioner,
        )
        remarks = [trained_with(words.tokenizer)]
        if self.llm_url is not None:
            if self.examples is not None:
                raise UsageError("--examples are shown to the LLM of this machine; --llm-url's is asked as it is")
            upstream = Upstream(self.llm_url, Keys(self.access, self.upstream_key), seconds=self.seconds)
            return proxy(upstream, pictures, words, self.access), [*remarks, *self._told(words)]
        path = self._model()
        answering = None if _chats(path) else self._answering(words)
        app = proxy(Embedded(self.access, lambda: started(path)), pictures, words, self.access, answering)
        if answering is not None:
            remarks.append(
                f"the LLM is a base model: questions about pictures are answered by VisualQA, after "
                f"{counted(len(answering.task.examples_), 'example')}"
            )
        elif self.examples is not None:
            raise UsageError("--examples are for a base LLM; this one can chat and is asked as it is")
        return app, [*remarks, *self._told(words)]

    def _model(self) -> Path | None:
        if self.llm == LOCAL:
            return None
        kind, _, path = self.llm.partition(":")
        if kind != LOCAL or not path:
            raise UsageError(
                f"--llm must be local or local:PATH.gguf; got {self.llm!r:.200}; any other LLM has a server, which is "
                "named with --llm-url"
            )
        return Path(path).expanduser()

    def _answering(self, words: PictureWords) -> Answering:
        if self.captioner is not None or self.classifier is not None:
            raise UsageError(
                "--captioner and --classifier write into a chat, and the LLM of this machine is a base model, which "
                "has none; name an LLM that can chat with --llm local:PATH.gguf or --llm-url"
            )
        from icl_vision.serving.saved import load_saved
        from icl_vision.tasks.answer.files import packaged, read_entries
        from icl_vision.tasks.answer.visual_qa import VisualQA

        if self.examples is not None and Path(self.examples).suffix == ".json":
            task = load_saved(VisualQA, self.examples, llm=self.llm, tokenizer=words.tokenizer)
            if task.tokenizer_ is not words.tokenizer:
                raise UsageError(
                    f"{os.fspath(self.examples)!r} was made with another tokenizer than {words.tokenizer.name}; name "
                    "its own with --tokenizer"
                )
            return Answering(task.set_params(errors="return"))
        entries = (
            packaged("question")
            if self.examples is None
            else read_entries(self.examples, "question", truths=True, trust=False)
        )
        task = VisualQA(self.llm, words.tokenizer, self.k, errors="return", progress=False)
        images = [entry.images[0] if len(entry.images) == 1 else list(entry.images) for entry in entries]
        task.fit(images, [entry.question for entry in entries], [list(entry.truths) for entry in entries])
        return Answering(task)

    def _classifier(self) -> Any:
        if self.classifier is None:
            if self.classifier_llm is not None:
                raise UsageError("--classifier-llm names the LLM of --classifier; name that too")
            return None
        from icl_vision.serving.saved import load_saved
        from icl_vision.tasks import FewShotClassifier

        return load_saved(FewShotClassifier, self.classifier, llm=self.classifier_llm)

    def _told(self, words: PictureWords) -> list[str]:
        remarks = [f"files are read under {', '.join(map(str, self.roots))}"] if self.roots else []
        if self.fetch:
            remarks.append("pictures are fetched from public http addresses")
        if self.captioner is not None:
            remarks.append("another model says the words; pictures go to it")
        elif getattr(words.tokenizer, "reader", None) is not None:
            remarks.append("text in pictures is read and quoted; an LLM may still follow it (--no-ocr reads none)")
        return remarks


def trained_with(tokenizer: Any) -> str:
    """The line that names the tokenizer, and which of its training data was non-commercial."""
    card: Mapping[str, Any] = getattr(tokenizer, "card", {})
    sets = card.get("captions")
    named = [
        f"{entry.get('name', entry.get('file', 'captions'))} ({entry['terms']})"
        for entry in (sets if isinstance(sets, list) else [])
        if isinstance(entry, Mapping) and "non-commercial" in str(entry.get("terms"))
    ]
    data = str(card.get("data") or "")
    if not named and "non-commercial" in data:
        named = [data]
    which = f"non-commercial training data: {'; '.join(named)}" if named else "no non-commercial data on its card"
    whole = f"; all of it: {data}" if data and named != [data] else ""
    return f"icl-vision serve: pictures become words of {tokenizer.name}; {which}{whole}"


def _chats(path: Path | None) -> bool:
    """Whether an LLM of this machine has a chat template."""
    if path is None:
        return False  # the packaged one is a base model
    from icl_vision.llms.local.gguf import read_info

    return bool(read_info(path).chat_template)
