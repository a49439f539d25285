"""What a few-shot benchmark asks, as values: its configuration, and the estimate of what that will take.

Knows: names of rows, defaults, what cannot work. Refuses to know: how anything is asked.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from icl_vision.checks import count
from icl_vision.errors import UsageError
from icl_vision.evaluation.few_shot.baselines import ROWS
from icl_vision.evaluation.few_shot.controls.controls import CONTROLS
from icl_vision.evaluation.few_shot.scorers import LLM_ROWS
from icl_vision.evaluation.few_shot.settings import SETTINGS, Setting
from icl_vision.files.typed import check_fields
from icl_vision.llms.tokens import how_counted
from icl_vision.tasks.classify.classifier import FewShotClassifier
from icl_vision.tasks.classify.prompts import Example, PromptBuilder

OWN_OPTIONS = frozenset(
    {"llm", "tokenizer", "k", "induction", "repeats", "shots", "selection"}
    | {"progress", "errors", "on_unknown", "batch_size", "concurrency"}
)
"""Options of ``FewShotClassifier`` that a benchmark sets itself, or that cannot matter for a single question."""


def open_options() -> tuple[str, ...]:
    """The options of ``FewShotClassifier`` that a benchmark leaves open, sorted."""
    return tuple(sorted(set(FewShotClassifier._defaults()) - OWN_OPTIONS))


@dataclass(frozen=True)
class BenchmarkConfig:
    """What decides a benchmark's results, beside its images, LLM and tokenizer.

    settings: see ``parse_settings``. episodes: of each number of ways; None for 100 drawn ones, or all of a file.
    seed: of the drawn episodes, of made-up names and of what controls deal. k: words per image, None for the
    tokenizer's default. labels: "real" names or "nonsense" ones. scorers: rows of ``LLM_ROWS``. baselines: rows of
    ``ROWS``. controls: of ``CONTROLS``. control_episodes: controls and the untrained row are asked in the first so
    many episodes. control_scorer: the row of ``LLM_ROWS`` that they are asked and judged by. options: of
    ``FewShotClassifier``, for the likelihood row; template, templates and order_seed hold for every row of the LLM,
    probabilities ("calibrated" or "raw") for every row that gives any. quoted: put the figures of publications beside
    the measured ones, marked as quoted.

    Raises:
        UsageError: a value that cannot work, named.
    """

    settings: tuple[Setting, ...] = SETTINGS
    episodes: int | None = None
    seed: int = 0
    k: int | None = 5
    labels: Literal["real", "nonsense"] = "real"
    scorers: tuple[str, ...] = tuple(LLM_ROWS)
    baselines: tuple[str, ...] = tuple(ROWS)
    controls: tuple[str, ...] = ()
    control_episodes: int = 100
    control_scorer: str = "likelihood"
    options: Mapping[str, Any] = field(default_factory=dict)
    quoted: bool = True

    def __post_init__(self) -> None:
        check_fields(self)
        _choice("scorer", self.scorers, LLM_ROWS)
        _choice("baseline", self.baselines, ROWS)
        _choice("control", self.controls, CONTROLS)
        _choice("scorer", (self.control_scorer,), LLM_ROWS)
        if not self.settings:
            raise UsageError("a benchmark needs at least one setting")
        if self.episodes is not None:
            count("episodes", self.episodes)
        count("control_episodes", self.control_episodes)
        for name in self.options:
            if name not in open_options():
                raise UsageError(
                    f"{name!r} is no option of the classifier that a benchmark leaves open; those are "
                    f"{', '.join(open_options())}"
                )
        FewShotClassifier(k=self.k, **self.options).check()

    @property
    def classifier(self) -> dict[str, Any]:
        """Every option of the likelihood row, those left at their defaults too: a default that changes is another run.

        Where templates lie is left out, since it decides nothing; what they say does (``prompt_hash``). Probabilities
        are apart: only where a map may be in use is the run another one than a raw one.
        """
        every = FewShotClassifier(**self.options).get_params()
        return {name: every[name] for name in open_options() if name not in ("templates", "probabilities")}

    @property
    def shots(self) -> dict[int, int]:
        """Ways -> the most inner shots that any setting shows."""
        result: dict[int, int] = {}
        for setting in self.settings:
            result[setting.ways] = max(result.get(setting.ways, 1), setting.shots)
        return result


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a run would ask.

    items: episodes x settings, less those that a run has already. requests: to LLMs. prompt_tokens: of all of them;
    new_tokens: without what an earlier prompt began with, which a prefix cache saves. written_tokens: at most. exact:
    whether the model's own tokenizer counted. episodes: how many have such items; of each number of ways, the first was
    looked at and stands for the others.
    """

    items: int
    requests: int
    prompt_tokens: int
    new_tokens: int
    written_tokens: int
    exact: bool
    episodes: int

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready, a key per field."""
        return asdict(self)

    def __str__(self) -> str:
        how = how_counted(self.exact)
        return (
            f"{self.items:,} questions ({self.episodes:,} episodes), about {self.requests:,} requests to LLMs, "
            f"{self.prompt_tokens:,} prompt tokens ({self.new_tokens:,} of them new to a prefix cache; {how}), "
            f"at most {self.written_tokens:,} written"
        )


def _choice(what: str, names: tuple[str, ...], known: Collection[str]) -> None:
    for name in names:
        if name not in known:
            raise UsageError(f"no {what} is called {name!r}; there are {', '.join(known)}")


def prompt_hash(options: Mapping[str, Any]) -> str:
    """Hex sha256 of prompts with everything in them that a template decides: another wording is another benchmark.

    options: of ``FewShotClassifier``; only ``PROMPT_OPTIONS`` are looked at.
    """
    builder = PromptBuilder(
        options.get("template", "classification"),
        folder=options.get("templates"),
        repeats=1,
        order_seed=options.get("order_seed", 0),
    )
    examples, labels = [Example("one two", "this"), Example("three four", "that")], ["that", "this"]
    texts = []
    for twin in [builder, *([builder.channel()] if builder.kind == "direct" and builder.has_channel() else [])]:
        prepared = twin.prepare(examples, labels)
        query = prepared.query(words="five six") if twin.kind == "direct" else prepared.query(label="this")
        texts.append(query.text)
    return hashlib.sha256(json.dumps(texts).encode()).hexdigest()
