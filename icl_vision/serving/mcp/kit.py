"""From what is named at start to the tools that are offered.

    kit = Kit(roots=["photos"], out="words", classifiers={"dishes": "dishes.json"})
    server, remarks = kit.assembled()

A tool that could only fail is not offered: no files without a folder, no label without a classifier, no text without
the extra ``ocr``; ``remarks`` says which are missing and why.

Knows: which tool needs what, and what is made at once or when it is first wanted. Refuses to know: what a tool does,
command lines, transports.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from icl_vision import checks
from icl_vision.errors import UsageError
from icl_vision.serving.mcp.asking import answering, labelling
from icl_vision.serving.mcp.drawing import drawing
from icl_vision.serving.mcp.folders import MOST_FILES, FolderTool, out_folder
from icl_vision.serving.mcp.given import Later
from icl_vision.serving.mcp.looking import describing, reading
from icl_vision.serving.mcp.server import AT_ONCE, SECONDS, server_of
from icl_vision.serving.pictures import Limits, Pictures
from icl_vision.serving.roots import Roots
from icl_vision.serving.saved import load_saved
from icl_vision.serving.words import TOKENIZER, PictureWords

if TYPE_CHECKING:
    from mcp.server import Server

    from icl_vision.contracts import TextLLM, Tokenizer
    from icl_vision.serving.mcp.tool import McpTool
    from icl_vision.tasks.answer.files import Entry
    from icl_vision.tasks.answer.visual_qa import VisualQA
    from icl_vision.tasks.draw.generator import ImageGenerator
    from icl_vision.tokenizers.describe.reading import TextReader

LLM = "local"

MOST_CLASSIFIERS = 32
"""Classifiers of one server; each adds its labels to what every client's model reads."""


@dataclass(frozen=True, kw_only=True)
class Kit:
    """What a server is made of.

    Args:
        tokenizer, k, ocr: whose words, how many of a part, and whether text in pictures is read.
        llm: what answers and draws; None for the local one, and for the one that a saved task names if that is local.
        roots: folders whose files a client may name; none by default.
        out: the folder that ``tokenize_folder`` writes to; None: that tool is not offered.
        classifiers: files that ``FewShotClassifier.save`` wrote, by the names that a client calls them.
        examples: what ``ask_image`` is shown: a file of JSON lines or its folder, or a file that ``VisualQA.save``
            wrote; None for the packaged photographs.
        generator: a file that ``ImageGenerator.save`` wrote; None for the packaged digits.
        draw: whether ``draw_image`` is offered.
        limits: caps on pictures. most_files: pictures of one ``tokenize_folder``. at_once, seconds: as ``server_of``.
        reader: what reads text, in place of the tokenizer's own reader.
    """

    tokenizer: str | Tokenizer = TOKENIZER
    k: int | None = None
    ocr: bool = True
    llm: str | TextLLM | None = None
    roots: Sequence[str | os.PathLike[str]] = ()
    out: str | os.PathLike[str] | None = None
    classifiers: Mapping[str, str | os.PathLike[str]] = field(default_factory=dict)
    examples: str | os.PathLike[str] | None = None
    generator: str | os.PathLike[str] | None = None
    draw: bool = True
    limits: Limits = field(default_factory=Limits)
    most_files: int = MOST_FILES
    at_once: int = AT_ONCE
    seconds: float = SECONDS
    reader: TextReader | None = None

    def assembled(self) -> tuple[Server[Any], list[str]]:
        """The server, and remarks for whoever starts it.

        Raises:
            UsageError, StorageError, ArtefactError: something named that cannot be used. All that is cheap to find
                out is found out here; the LLM is first asked for when a tool needs it.
        """
        checks.count("most_files", self.most_files, of="pictures")
        checks.count("at_once", self.at_once, of="calls")
        checks.number("seconds", self.seconds, above=0)
        if len(self.classifiers) > MOST_CLASSIFIERS:
            raise UsageError(f"at most {MOST_CLASSIFIERS} classifiers; got {len(self.classifiers)}")
        pictures = Pictures(self.limits, Roots(self.roots))
        words = PictureWords(self.tokenizer, k=self.k, ocr=self.ocr, limits=self.limits)
        remarks = [self._about(words)]
        tools = [describing(words, pictures), answering(self._answerer(words), words, pictures)]
        if self.classifiers:
            tools.append(self._labelling(words, pictures))
        else:
            remarks.append("no classify_image: no --classifier was named")
        reader = self.reader or getattr(words.tokenizer, "reader", None)
        if self.ocr and reader is not None:
            tools.append(reading(reader, pictures))
        else:
            remarks.append(f"no read_text: {self._unread()}")
        if self.draw:
            tools.append(self._drawing())
        if self.out is not None and pictures.roots:
            folder = out_folder(self.out)
            tools.append(FolderTool(tokenizer=words.tokenizer, out=folder, k=self.k, most=self.most_files).tool())
        else:
            missing = "--root" if self.out is not None else "--out" if pictures.roots else "--root and no --out"
            remarks.append(f"no tokenize_folder: no {missing} was named")
        if not pictures.roots:
            remarks.append("no files are read (no --root); pictures come as base64")
        return server_of(tools, pictures, at_once=self.at_once, seconds=self.seconds), remarks

    def _about(self, words: PictureWords) -> str:
        card: Mapping[str, Any] = getattr(words.tokenizer, "card", {})
        made = f"; made with {card['data']}" if card.get("data") else ""
        return f"words by {words.tokenizer.name}{made}"

    def _unread(self) -> str:
        if not self.ocr:
            return "--no-ocr"
        from icl_vision.tokenizers.describe.reading import can_read

        return "this tokenizer reads none" if can_read() else "the extra ocr is not installed"

    def _answerer(self, words: PictureWords) -> Later[VisualQA]:
        from icl_vision.tasks.answer.visual_qa import VisualQA

        if self.examples is not None and Path(self.examples).suffix == ".json":
            VisualQA.form.read(self.examples)  # that it is there and holds JSON is said now
            return Later(lambda: load_saved(VisualQA, self.examples or "", llm=self.llm, tokenizer=words.tokenizer))
        shown = self._shown()

        def made() -> VisualQA:
            task = VisualQA(LLM if self.llm is None else self.llm, words.tokenizer, self.k, progress=False)
            images = [entry.images[0] if len(entry.images) == 1 else list(entry.images) for entry in shown]
            return task.fit(images, [entry.question for entry in shown], [list(entry.truths) for entry in shown])

        return Later(made)

    def _shown(self) -> list[Entry]:
        from icl_vision.tasks.answer.files import packaged, read_entries

        if self.examples is None:
            return packaged("question")
        return read_entries(Path(self.examples), "question", truths=True, trust=False, how="--trust")

    def _labelling(self, words: PictureWords, pictures: Pictures) -> McpTool:
        from icl_vision.tasks import FewShotClassifier

        return labelling(
            {
                name: load_saved(FewShotClassifier, path, llm=self.llm, tokenizer=words.tokenizer)
                for name, path in self.classifiers.items()
            },
            pictures,
        )

    def _drawing(self) -> McpTool:
        from icl_vision.tasks.draw.examples import DIGITS, read_examples
        from icl_vision.tasks.draw.generator import ImageGenerator

        if self.generator is not None:
            saved = load_saved(ImageGenerator, self.generator, llm=self.llm)
            return drawing(Later(lambda: saved), saved.texts_)
        pairs = read_examples(DIGITS)

        def made() -> ImageGenerator:
            task = ImageGenerator(LLM if self.llm is None else self.llm)
            return task.fit([pair.path for pair in pairs], [pair.text for pair in pairs])

        return drawing(Later(made), sorted({pair.text for pair in pairs}))
