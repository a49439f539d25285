"""Pictures while they are drawn, and what a run folder has of them.

Knows: which segments have their words, what is in the journal. Refuses to know: LLMs, prompts, the order of passes.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from icl_vision.asking.journal import Journal
from icl_vision.drawing.answering import SegmentInquiry
from icl_vision.drawing.drawing import Drawing, SegmentAnswer
from icl_vision.drawing.passes import Pass, SegmentPrompts, item_of
from icl_vision.errors import RunError
from icl_vision.files.runs import Run
from icl_vision.llms.loop import OwnThread


@dataclass(frozen=True, slots=True)
class SegmentDrawn:
    """One segment has got its words, or a drawing has failed.

    query: its number, from 0. segment: of the pass, from 1. drawing: the picture as it now is. restored: the words come
    from the run folder.
    """

    query: int
    segment: int
    drawing: Drawing
    restored: bool = False


@dataclass(slots=True)
class Canvas:
    """One picture while it is drawn."""

    words: list[str | None]
    answers: dict[int, SegmentAnswer] = field(default_factory=dict)
    error: Exception | None = None


class Work:
    """One call of ``stream`` or ``decode``: its pictures and its journal."""

    def __init__(self, prompts: SegmentPrompts, run: Run | None) -> None:
        self.prompts = prompts
        self.canvases = [Canvas(prompts.canvas(query)) for query in prompts.queries]
        self.journal = Journal(run)
        # Prompts are put together by one thread, since what they are made of is looked up once and kept.
        self._builder = OwnThread("icl-vision-prompts")
        self._restored: list[tuple[int, Pass]] = []
        if run is not None:
            self._restore(run)

    def open(self, number: int, pass_: Pass) -> bool:
        """Whether a segment of a query is still to be asked for."""
        return self.prompts.wanted(pass_, self.prompts.queries[number]) and (
            pass_.number not in self.canvases[number].answers
        )

    async def inquiry(self, pass_: Pass, number: int) -> SegmentInquiry:
        """What is put to the LLM about a segment of a query, with the words that there are now."""
        return await self._builder.run(self.prompts.inquiry, pass_, number, list(self.canvases[number].words))

    def put(self, number: int, pass_: Pass, answer: SegmentAnswer) -> None:
        """Give a segment its words."""
        assert answer.words is not None
        canvas = self.canvases[number]
        canvas.words[pass_.segment.start : pass_.segment.stop] = answer.words
        canvas.answers[pass_.number] = answer

    def drawing(self, number: int) -> Drawing:
        """A picture as it now is."""
        canvas, prompts = self.canvases[number], self.prompts
        return Drawing(
            prompts.queries[number],
            prompts.layout,
            prompts.vocabulary,
            tuple(canvas.words),
            dict(canvas.answers),
            canvas.error,
        )

    def restored(self) -> list[SegmentDrawn]:
        """The segments that the run folder had."""
        return [
            SegmentDrawn(number, pass_.number, self.drawing(number), restored=True) for number, pass_ in self._restored
        ]

    def close(self) -> None:
        """Wait until everything is written."""
        self.journal.close()

    def _restore(self, run: Run) -> None:
        items = {
            item_of(query, pass_): (number, pass_)
            for number, query in enumerate(self.prompts.queries)
            for pass_ in self.prompts.passes
        }
        for item, result in run.results():
            try:
                answer = SegmentAnswer.from_dict(result)
                if item not in items:
                    continue  # of a query that is not asked for now
                number, pass_ = items[item]
                words = answer.words or ()
                if len(words) != len(pass_.segment):
                    raise ValueError(f"{len(words)} words for a segment of {len(pass_.segment)}")
                self.prompts.vocabulary.ids(words)
            except (KeyError, TypeError, ValueError) as error:
                raise RunError(
                    f"the journal of {str(run.folder)!r} holds no usable answer for {item!r} ({error}); choose another "
                    "folder"
                ) from error
            self.put(number, pass_, answer)
            self._restored.append((number, pass_))
