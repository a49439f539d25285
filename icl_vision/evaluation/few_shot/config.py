"""What a few-shot benchmark asks, as values: settings, its configuration, and the estimate of what that will take.

A setting is one cell of the tables of the Frozen, LQAE and SPAE papers, or any other by name. A table has seven columns
for 2-way and seven for 5-way (LQAE, arXiv 2302.00902, table 2; SPAE, arXiv 2306.17842, tables 1 and 2): without task
induction once, with it for 1, 3 and 5 inner shots, and for 1, 3 and 5 repeats of a single shot. "repeats r" shows every
example r + 1 times.

Knows: ways, inner shots, repeats, task induction, names of rows, defaults, what cannot work. Refuses to know: images,
prompts, how anything is asked.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from icl_vision import checks
from icl_vision.checks import count
from icl_vision.errors import UsageError
from icl_vision.evaluation.few_shot.baselines import ROWS
from icl_vision.evaluation.few_shot.controls.controls import CONTROLS
from icl_vision.evaluation.few_shot.scorers import LLM_ROWS
from icl_vision.files.typed import check_fields
from icl_vision.llms.tokens import how_counted
from icl_vision.tasks.classify.classifier import FewShotClassifier
from icl_vision.tasks.classify.prompts import Example, PromptBuilder

_ID = re.compile(r"(?:(?P<ways>\d+)w-)?(?P<shots>\d+)s-(?P<repeats>\d+)r-(?P<induction>[in])")

COLUMNS: tuple[tuple[bool, int, int], ...] = (
    (False, 1, 0),
    (True, 1, 0),
    (True, 3, 0),
    (True, 5, 0),
    (True, 1, 1),
    (True, 1, 3),
    (True, 1, 5),
)
"""(task induction, inner shots, repeats) of the papers' seven columns, in their order."""

WAYS = (2, 5)
"""The ways of the papers' tables."""


@dataclass(frozen=True, slots=True)
class Setting:
    """One cell of the table: how many classes, how many examples of each, how often shown, announced or not.

    ways: classes, 2 or more. shots: inner shots, examples of each class, 1 or more. repeats: how many times more each
    example is shown, 0 or more. induction: the prompt begins by naming the labels (task induction).

    >>> Setting(5, 1).id
    '5w-1s-0r-i'
    """

    ways: int
    shots: int
    repeats: int = 0
    induction: bool = True

    def __post_init__(self) -> None:
        for name, least in (("ways", 2), ("shots", 1), ("repeats", 0)):
            checks.count(f"{name} of a setting", getattr(self, name), least=least)

    @property
    def id(self) -> str:
        """``5w-1s-0r-i``: 5 ways, 1 inner shot, 0 repeats, with task induction (``-n``: without)."""
        return f"{self.ways}w-{self.column}"

    @property
    def column(self) -> str:
        """The id without the ways: which of the columns it is."""
        return f"{self.shots}s-{self.repeats}r-{'i' if self.induction else 'n'}"

    @property
    def images(self) -> int:
        """Images in a prompt: ways x shots x (repeats + 1) examples and the query."""
        return self.ways * self.shots * (self.repeats + 1) + 1

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready: {id, ways, shots, repeats, induction}."""
        return {
            "id": self.id,
            "ways": self.ways,
            "shots": self.shots,
            "repeats": self.repeats,
            "induction": self.induction,
        }

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> Setting:
        """Read what ``to_dict`` wrote.

        Raises:
            UsageError: a field is missing or has a value that cannot work.
        """
        try:
            return cls(document["ways"], document["shots"], document["repeats"], bool(document["induction"]))
        except KeyError as error:
            raise UsageError(f"not a setting: {error} is missing in {dict(document)!r}") from error

    @classmethod
    def parse(cls, text: str) -> Setting:
        """The setting of an ``id``.

        Raises:
            UsageError: not an id.
        """
        match = _ID.fullmatch(text.strip())
        if match is None or match["ways"] is None:
            raise UsageError(f"{text!r} is no setting; write WAYSw-SHOTSs-REPEATSr-i (or -n), as in '5w-1s-0r-i'")
        return cls(int(match["ways"]), int(match["shots"]), int(match["repeats"]), match["induction"] == "i")

    def __str__(self) -> str:
        return self.id


def settings_of(ways: int) -> tuple[Setting, ...]:
    """The seven columns for one number of ways, in the papers' order."""
    return tuple(Setting(ways, shots, repeats, induction) for induction, shots, repeats in COLUMNS)


SETTINGS: tuple[Setting, ...] = tuple(setting for ways in WAYS for setting in settings_of(ways))
"""The 14 settings of the papers, in their order: seven 2-way, seven 5-way."""


def parse_settings(texts: Iterable[str], ways: Iterable[int] = WAYS) -> tuple[Setting, ...]:
    """The settings that a user names.

    Args:
        texts: "all" (the seven columns), ids ("5w-1s-0r-i"), or columns without ways ("1s-0r-i"), which stand for one
            setting per number of ways.
        ways: the numbers of ways of "all" and of columns; an id with other ways than these is refused.

    Returns:
        The settings, each once: ways in the order given, inside them the papers' columns first, in their order, then
        others in the order named.

    Raises:
        UsageError: a text that names no setting, none at all, or ways that are no use.
    """
    numbers = tuple(dict.fromkeys(ways))
    if not numbers:
        raise UsageError("give at least one number of ways, for instance 2 and 5")
    settings: list[Setting] = []
    for text in texts:
        name = text.strip()
        if name == "all":
            settings.extend(setting for number in numbers for setting in settings_of(number))
            continue
        match = _ID.fullmatch(name)
        if match is None:
            raise UsageError(
                f"{text!r} is no setting; write 'all', WAYSw-SHOTSs-REPEATSr-i as in '5w-1s-0r-i' (-n: without task "
                "induction), or a column as in '1s-0r-i'"
            )
        if match["ways"] is not None and int(match["ways"]) not in numbers:
            listed = ", ".join(map(str, numbers))
            raise UsageError(f"the setting {name!r} has {match['ways']} ways, but the run has {listed}: change ways")
        for number in (int(match["ways"]),) if match["ways"] else numbers:
            settings.append(Setting(number, int(match["shots"]), int(match["repeats"]), match["induction"] == "i"))
    if not settings:
        raise UsageError("give at least one setting, or 'all'")
    columns = [Setting(2, shots, repeats, induction).column for induction, shots, repeats in COLUMNS]

    def order(setting: Setting) -> tuple[int, int]:
        known = columns.index(setting.column) if setting.column in columns else len(columns)
        return numbers.index(setting.ways), known

    return tuple(sorted(dict.fromkeys(settings), key=order))


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
