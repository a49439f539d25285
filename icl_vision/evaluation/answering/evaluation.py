"""How well questions about pictures are answered, or pictures captioned: rows on the same items, as one resumable run.

    evaluation = AnsweringEvaluation(bench, "exact", llm="local", config=AnsweringConfig(n=50))
    finished = evaluation.run("runs/answers")

One (row, item) is journalled at a time; killed at any moment, the run goes on with ``resume=True``, and then may have
more rows or more items than before: neither changes what another row says of another item. Rows of one item are asked
one after the other, so that an LLM's prefix cache, and the response cache, serve all that share a prompt: fused rows
and the blind one differ only in what the picture says, which is no part of the prompt.

Knows: the order of questions, which examples each is shown, the journal, when to stop. Refuses to know: how words are
made (``words``), what a row is (``rows``), how results are summed up (``summary``), commands and pages.
"""

from __future__ import annotations

import concurrent.futures
import math
import os
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from icl_vision import checks
from icl_vision.asking.jobs import progress_bar
from icl_vision.asking.plan import Plan
from icl_vision.contracts import Answer, Usage
from icl_vision.errors import (
    CapabilityError,
    ImageError,
    LLMError,
    LLMNoAnswerError,
    MissingExtraError,
    PromptTooLongError,
    RunMismatchError,
    TemplateError,
)
from icl_vision.evaluation.answering import rows as names
from icl_vision.evaluation.answering.config import AnsweringConfig, Judge, references
from icl_vision.evaluation.answering.items import Bench, names_of
from icl_vision.evaluation.answering.readers import Question
from icl_vision.evaluation.answering.rows import Row, parse_rows
from icl_vision.evaluation.answering.summary import summarise
from icl_vision.evaluation.answering.words import PicturesInWords, likeliest
from icl_vision.evaluation.kit.running import Failed, Keeper, machine, note_of
from icl_vision.files.runs import Run, read_results, versions
from icl_vision.files.storage import write_json
from icl_vision.forks import ForkLock
from icl_vision.llms import connect
from icl_vision.llms.loop import run_sync
from icl_vision.llms.tokens import count_tokens
from icl_vision.llms.wrappers.dry import DryLLM
from icl_vision.tasks.answer.answered import AnsweredExample, most_central, most_usual
from icl_vision.tasks.answer.candidates import candidates, log_vision, speaks
from icl_vision.tasks.answer.captioner import Captioner
from icl_vision.tasks.answer.reading import normal_form
from icl_vision.tasks.answer.selection import Closeness
from icl_vision.tasks.answer.visual_qa import VisualQA
from icl_vision.tokenizers import ImageTokenizer
from icl_vision.tokenizers.rates import word_rates
from icl_vision.tokenizers.wrapping import fingerprint

if TYPE_CHECKING:
    from icl_vision.contracts import TextLLM, Tokenizer
    from icl_vision.llms.cost import PriceTable
    from icl_vision.tasks.answer.pictures import Seen

FORMAT_VERSION = 1
ITEMS = "items.json"
PLANNED = 3
"""Items that a plan looks at; they stand for the others."""
TEMPLATE_WORDS = 4
"""Words in the fixed sentence of the row "template"."""


@dataclass(frozen=True, slots=True)
class Finished:
    """How a run ended. asked, kept, failed: (row, item) pairs. problem: of the first that failed."""

    folder: Path
    results: dict[str, Any]
    asked: int
    kept: int
    failed: int
    problem: str = ""


class AnsweringEvaluation:
    """Measures one LLM.

    Args:
        bench: what is asked, and what is shown before it.
        metric: how right an answer is, a name of ``config.METRICS``.
        llm: under test; a ``connect`` string or a ``TextLLM``.
        config: what is asked of it.
        load: a tokenizer by its name; None for the packaged ones.

    Raises:
        UsageError: rows that there are not, or items the metric cannot judge.
    """

    def __init__(
        self,
        bench: Bench,
        metric: str,
        *,
        llm: str | TextLLM = "local",
        config: AnsweringConfig | None = None,
        load: Callable[[str], Tokenizer] | None = None,
    ) -> None:
        self.bench = bench
        self.config = config or AnsweringConfig()
        self.llm = connect(llm)
        self.rows = parse_rows(self.config.rows, self.config.task, scores_text=self.llm.profile.scores_text)
        self.judge = Judge(metric, bench.asked)
        self.items = bench.first(self.config.n)
        self.words = PicturesInWords(
            (*bench.asked, *bench.pool),
            load or ImageTokenizer.from_pretrained,
            k=self.config.k,
            seed=self.config.seed,
            questions=self.config.task == "answers",
        )
        self._near: Closeness | None = None
        self._lock = ForkLock()

    # What would be done.

    def run_config(self) -> dict[str, Any]:
        """What decides an answer, as plain JSON: a run goes on only with the same. Rows and items may become more."""
        config = self.config
        return {
            "icl_vision": versions().get("icl-vision"),
            "llm": str(getattr(self.llm, "identity", self.llm.profile.name)),
            "set": self.bench.name,
            "task": config.task,
            "metric": self.judge.metric,
            "shots": config.shots,
            "seed": config.seed,
            "k": config.k,
            "options": config.every_option,
        }

    def made_with(self, row: Row) -> str:
        """Hex digest of the tokenizer whose words a row shows; "" where it shows none of any."""
        return "" if row.words.tokenizer is None else fingerprint(self.words.tokenizer(row.words))

    def plan(
        self, prices: PriceTable | None = None, out: str | os.PathLike[str] | None = None
    ) -> list[tuple[Row, Plan | str, int]]:
        """For each row that asks the LLM: what its first items would send, or why it cannot be asked; and how many
        items it stands for. Nothing is asked.

        out: a run folder to go on with: what has an answer there is left out.
        """
        llm = self.llm if isinstance(self.llm, DryLLM) else DryLLM(self.llm)
        done = set() if out is None else {name for name, _ in read_results(out)}
        planned: list[tuple[Row, Plan | str, int]] = []
        for row in self.rows:
            missing = [item for item in self.items if item_id(row, item) not in done]
            if row.method is None or not missing:
                continue
            try:
                plans = []
                for item in missing[:PLANNED]:
                    task, pictures = self._task(row, item, llm)
                    if isinstance(task, VisualQA):
                        plans.append(task.plan([pictures], [item.question], prices))
                    else:
                        plans.append(task.plan([pictures], prices))
                planned.append((row, Plan.together(plans), len(missing)))
            except _NOTED as error:
                planned.append((row, note_of(error), len(missing)))
        return planned

    # Doing it.

    def run(
        self,
        out: str | os.PathLike[str],
        *,
        command: str = "eval answers",
        resume: bool = False,
        concurrency: int = 1,
        progress: bool | None = None,
        say: Callable[[str], None] = lambda text: None,
        prices: PriceTable | None = None,
    ) -> Finished:
        """Ask everything that has no answer in the run folder yet, sum it up, and write results.json.

        Args:
            out: the run folder; made if missing.
            command: as run.json names it.
            resume: go on with the run that is there; rows and items may be more than before. What failed is asked
                again.
            concurrency: items worked on at the same time.
            progress: a bar on stderr; None only at a terminal.
            say: told remarks for people.
            prices: results.json says what the answers cost by them.

        Raises:
            RunMismatchError, RunLockedError, RunError: the folder cannot be used; see ``Run.open``.
            BudgetExceededError: the budget does not allow the next question. Everything answered is kept.
            LLMError: the LLM refuses for good, or failed ``FAILURES_IN_A_ROW`` times in a row.
        """
        concurrency = checks.count("concurrency", concurrency)
        with Run.open(out, command, self.run_config(), seed=self.config.seed, resume=resume) as run:
            self._refuse_other_words(run)
            write_json(run.folder / ITEMS, self._shown())
            total = len(self.items) * len(self.rows)
            kept = sum(item_id(row, item) in run.done for item in self.items for row in self.rows)
            with progress_bar(total, "answers", progress) as done:
                done(kept)
                keeper = Keeper(run, done, say, total - kept)
                self._ask_all(keeper, concurrency)
            results = self.results(run, prices)
            run.finish(results)
            return Finished(run.folder, results, keeper.asked, kept, keeper.failed, keeper.problem)

    def results(self, run: Run, prices: PriceTable | None = None) -> dict[str, Any]:
        """What results.json holds: of the rows and items of this configuration, whatever else the run has."""
        wanted = {item.id for item in self.items}
        rows = {row.name for row in self.rows}
        lines = [line for _, line in run.results() if line["item"] in wanted and line["row"] in rows]
        return {
            "format_version": FORMAT_VERSION,
            "kind": self.config.task,
            "llm": self.llm.profile.name,
            "config": {**run.info["config"], "rows": [row.name for row in self.rows], "n": len(self.items)},
            **summarise(lines, self.rows, self.items, self.judge.metric, seed=self.config.seed),
            **({} if prices is None else {"cost": prices.cost(self.llm.profile.name, _spent(lines)).to_dict()}),
            "usage": _spent(lines).to_dict(),
            "machine": machine(),
            "versions": versions(),
            "commit": run.info.get("commit"),
        }

    def _ask_all(self, keeper: Keeper, concurrency: int) -> None:
        def ask_item(item: Question) -> None:
            for row in self.rows:
                if keeper.stopped is not None:
                    return
                if item_id(row, item) not in keeper.run.done:
                    keeper.keep(item_id(row, item), self.answered(row, item))

        missing = [item for item in self.items if any(item_id(row, item) not in keeper.run.done for row in self.rows)]
        with keeper.working(concurrency, "icl-vision-answers") as begin:
            for future in concurrent.futures.as_completed([begin(ask_item, item) for item in missing]):
                future.result()

    def answered(self, row: Row, item: Question) -> dict[str, Any] | Failed:
        """What a row says of an item, judged: a line of the journal; or that it failed and must be asked again."""
        began = time.monotonic()
        line: dict[str, Any] = {"item": item.id, "row": row.name, "type": item.type, "made_with": self.made_with(row)}
        try:
            said = self._without_llm(row, item) if row.method is None else self._asked(row, item)
        except _NOTED as error:
            return line | {"answer": None, "score": None, "note": note_of(error), "usage": Usage().to_dict()}
        except (LLMError, ImageError) as error:
            return Failed(error, Usage())
        return (
            line
            | said
            | {"score": self.judge.score(item, said["answer"]), "seconds": round(time.monotonic() - began, 3)}
        )

    def _asked(self, row: Row, item: Question) -> dict[str, Any]:
        task, pictures = self._task(row, item, self.llm)
        try:
            if isinstance(task, VisualQA):
                (answer,) = task.answers([pictures], [item.question])
            else:
                (answer,) = task.caption([pictures])
        except LLMNoAnswerError as error:
            # Nothing was answered: that is wrong, and asking again would give the same.
            answer = Answer("", (), None, None, note=f"no answer: {error}")
        line = " ".join(task.fitted.reader.shown(seen, item.question).line for seen in pictures)
        shown = task.fitted.shows_words(task.fitted.way(None)) if pictures else False
        return {
            "answer": answer.text,
            "method": answer.method,
            "probability": answer.probability,
            "note": answer.note,
            "raw": answer.raw,
            "tokens": self._tokens(line) if shown else 0,
            "weighed": 0 if row.method != "fused" else len(self.words.chances(row.words, item)) if pictures else 0,
            "usage": answer.usage.to_dict(),
        }

    def _task(self, row: Row, item: Question, llm: TextLLM) -> tuple[VisualQA | Captioner, tuple[Seen, ...]]:
        """The row's task, fitted with the item's examples, and what stands for the item's pictures."""
        words, config = row.words, self.config
        examples = self.examples(row, item)
        shown = [self.words.of(words, example) for example in examples]
        common: dict[str, Any] = {
            "shots": None, "selection": "random", "order_seed": None, "errors": "raise", "progress": False,
            "concurrency": 1, **config.options,
        }  # fmt: skip
        tokenizer, k = self.words.tokenizer(words), self.words.k_of(words)
        pictures = self.words.of(words, item)
        if config.task == "captions":
            captioner = Captioner(llm, tokenizer, k, **common)
            # What one person wrote stands for the picture in a row of its own, so the others' is what is shown.
            written = [example.answers[1:] or example.answers for example in examples]
            captioner.fit(shown or None, written or None)
            return captioner, pictures
        answerer = VisualQA(llm, tokenizer, k, scoring=row.method or "auto", focus=words.focus, **common)
        questions = [example.question for example in examples]
        answerer.fit(shown or None, questions or None, [example.answers for example in examples] or None)
        return answerer, pictures

    def examples(self, row: Row, item: Question) -> list[Question]:
        """What is shown before an item in a row, the nearest last."""
        if row.words.near:
            return self.bench.ranked(item, self._closeness(row).of(self.words.of(row.words, item), item.question))
        blind = row.words.name == names.BLIND and self.config.task == "captions"
        return self.bench.examples(item, "random" if blind else "nearest")

    def _closeness(self, row: Row) -> Closeness:
        """Of the whole pool, by questions and by a row's words of the pictures."""
        with self._lock:
            if self._near is None:
                pool = [
                    AnsweredExample(self.words.of(row.words, other), other.question, other.answers[0], other.answers)
                    for other in self.bench.pool
                ]
                self._near = Closeness(pool, self.words.tokenizer(row.words))
            return self._near

    def _without_llm(self, row: Row, item: Question) -> dict[str, Any]:
        name = row.words.name
        if name == names.COPIED:
            answer = self._copied(item)
        elif name == names.HUMAN:
            answer = item.answers[0]
        elif name == names.PRIOR:
            usual = Counter(self._of_type(item)).most_common(1)
            answer = usual[0][0] if usual else ""
        elif name == names.CONSTANT:
            asked = (other for other in self.bench.asked if other.type == item.type)
            answer = Counter(most_usual(other.answers) for other in asked).most_common(1)[0][0]
        elif name == names.VISION:
            answer = self._by_vision(row, item)
        else:
            answer = sentence(likeliest(self.words.of(row.words, item), TEMPLATE_WORDS))
        return {"answer": answer, "method": None, "tokens": 0, "weighed": 0, "usage": Usage().to_dict(), "note": ""}

    def _copied(self, item: Question) -> str:
        nearest = self.bench.nearest(item)
        if nearest is None:
            raise CapabilityError("not available: the set's own examples stand in no order of nearness")
        return most_usual(nearest.answers) if self.config.task == "answers" else most_central(nearest.answers)

    def _of_type(self, item: Question) -> list[str]:
        """The answers to questions of the same type about other pictures."""
        return [
            most_usual(other.answers)
            for other in self.bench.others(item)
            if other.type == item.type and other.question is not None
        ]

    def _by_vision(self, row: Row, item: Question) -> str:
        """What fused answering says with the frequency of an answer in the place of the LLM."""
        chances = self.words.chances(row.words, item)
        known = Counter(normal_form(answer) for answer in self._of_type(item))
        offered = candidates(item.question, chances, self._of_type(item), "")
        weight = float(self.config.every_option["vision_weight"]) if speaks(item.question) else 0.0
        rates = word_rates(self.words.tokenizer(row.words))
        every = len(offered) + sum(known.values())

        def score(answer: str) -> float:
            return math.log((1 + known[normal_form(answer)]) / every) + weight * log_vision(answer, chances, rates)

        return max(offered, key=score) if offered else ""

    def _tokens(self, line: str) -> int:
        """Tokens of a line for this LLM; estimated where it cannot count."""
        try:
            return run_sync(self.llm.count_tokens(line)) if line else 0
        except CapabilityError:
            return count_tokens(line, self.llm.profile.name).tokens

    def _shown(self) -> dict[str, Any]:
        """items.json: what is asked, and the examples before it, by id."""
        return {
            "format_version": FORMAT_VERSION,
            "set": self.bench.name,
            "items": [
                {
                    "id": item.id,
                    "pictures": sorted(names_of(item)),
                    "type": item.type,
                    "question": item.question,
                    "answers": list(item.answers if self.config.task == "answers" else references(item)),
                    "examples": [example.id for example in self.bench.examples(item)],
                }
                for item in self.items
            ],
        }

    def _refuse_other_words(self, run: Run) -> None:
        """Raises RunMismatchError where a row of the run was made with other words than it would be now."""
        made = {line["row"]: line["made_with"] for _, line in read_results(run.folder)}
        for row in self.rows:
            if row.name in made and made[row.name] != self.made_with(row):
                raise RunMismatchError(
                    f"the row {row.name!r} of {str(run.folder)!r} was made with another tokenizer of the name "
                    f"{row.words.tokenizer!r}; choose another folder"
                )


_NOTED = (PromptTooLongError, CapabilityError, TemplateError, MissingExtraError)
"""Errors that say that a row cannot be had, of this item or any: a note in the table, never a failure."""


def item_id(row: Row, item: Question) -> str:
    """What a (row, item) is called in the journal."""
    return f"{row.name}/{item.id}"


def sentence(words: Sequence[str]) -> str:
    """A fixed sentence around words: "a dog with a man, a ball and a beach". Of five forms and one to five words it was
    the best by CIDEr-D on 100 pictures for training."""
    said = [f"a {word}" for word in words]
    rest = " and ".join([", ".join(said[1:-1]), said[-1]]) if len(said) > 2 else "".join(said[1:])
    return "".join(said[:1]) + (f" with {rest}" if rest else "")


def _spent(lines: Sequence[dict[str, Any]]) -> Usage:
    return sum((Usage(**line["usage"]) for line in lines), Usage())
