"""Runs few-shot episodes: the same questions to an LLM and to its baselines, one report.

Knows: how episodes, the classifier and the baselines are put together, and what a report holds.
Refuses to know: commands, folders of results, how a page looks.

Every accuracy of a report is over the very same queries.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from icl_vision.errors import UsageError
from icl_vision.evaluation.few_shot import baselines
from icl_vision.evaluation.few_shot.episodes.drawing import Episode, ImageFolder, Item
from icl_vision.evaluation.kit.metrics import Accuracy
from icl_vision.evaluation.kit.remember import RememberingTokenizer
from icl_vision.llms.word_tables import word_tables
from icl_vision.tasks.classify.classifier import FewShotClassifier
from icl_vision.tasks.classify.prompts import Example, PromptBuilder

if TYPE_CHECKING:
    from icl_vision.contracts import Classification, TextLLM, Tokenizer
    from icl_vision.pyramid import TokenPyramid
    from icl_vision.tasks.classify.scoring import Question

BASELINES = ("blind", "prior", "words_prototype", "image_prototype", "label_name")
DEFAULT_BASELINES = ("blind", "prior", "words_prototype")

SCORER_OF_METHOD: Mapping[str, str] = {
    "channel": "likelihood",
    "direct": "likelihood",
    "constrained": "constrained output",
    "parse": "tolerant parse",
}
"""How ``Accuracy.scorer`` names the rungs of the classifier's ladder."""

SCORER_OF_BASELINE: Mapping[str, str] = {
    "prior": "constant",
    "words_prototype": "nearest prototype",
    "image_prototype": "nearest prototype",
    "label_name": "nearest label name",
}

MEANING: Mapping[str, str] = {
    "blind": "the same model and examples, the words of the photograph withheld",
    "prior": "always the most frequent label of the examples (on a tie, the first)",
    "words_prototype": "no language model: the class whose examples' words are nearest on average",
    "image_prototype": "no words: the class whose examples' image vectors are nearest on average",
    "label_name": "no examples: the label whose name is nearest to the words",
}
"""One line on each baseline, for people."""


@dataclass(frozen=True, slots=True)
class QueryResult:
    """One question and everybody's answer. baselines: name -> label, None where it named none."""

    item: Item
    classification: Classification
    baselines: Mapping[str, str | None] = field(default_factory=dict)

    @property
    def right(self) -> bool:
        return self.classification.label == self.item.label

    @property
    def words(self) -> tuple[str, ...]:
        """The image's words, all layers in order."""
        return tuple(word for layer in self.classification.words for word in layer)

    def to_dict(self) -> dict[str, Any]:
        return {
            "image": self.item.path,
            "truth": self.item.label,
            "right": self.right,
            **self.classification.to_dict(),
            "baselines": dict(self.baselines),
        }


@dataclass(frozen=True, slots=True)
class EpisodeResult:
    """One finished episode.

    support_words: the words of every support image, in the episode's order. example: which query stands for the others,
    the first answered rightly, else 0. question: what was sent about it.
    """

    episode: Episode
    support_words: tuple[tuple[str, ...], ...]
    queries: tuple[QueryResult, ...]
    example: int
    question: Question

    def to_dict(self) -> dict[str, Any]:
        return {
            "number": self.episode.number,
            "seed": self.episode.seed,
            "labels": list(self.episode.labels),
            "support": [
                {"image": item.path, "label": item.label, "words": list(words)}
                for item, words in zip(self.episode.support, self.support_words, strict=True)
            ],
            "queries": [query.to_dict() for query in self.queries],
        }


class FewShotEvaluation:
    """Asks a ``FewShotClassifier`` and the baselines the queries of episodes.

    Args:
        folder: where the episodes' images lie.
        llm: a connected LLM.
        tokenizer: any tokenizer; each image is encoded once however often it appears.
        k: words per image.
        baselines: which of ``BASELINES`` to compute. The blind one costs one LLM call an episode;
            those the tokenizer cannot give (no codebook, no image vectors, label words unknown) are left out.
        **options: passed to ``FewShotClassifier`` (scoring, calibration, induction, repeats, template, ...).
    """

    def __init__(
        self,
        folder: ImageFolder,
        *,
        llm: TextLLM,
        tokenizer: Tokenizer,
        k: int | None = 5,
        baselines: Sequence[str] = DEFAULT_BASELINES,
        **options: Any,
    ) -> None:
        unknown = [name for name in baselines if name not in BASELINES]
        if unknown:
            raise UsageError(f"no baseline is called {unknown[0]!r}; there are {', '.join(BASELINES)}")
        self.folder = folder
        self.llm = llm
        self.tokenizer = tokenizer if isinstance(tokenizer, RememberingTokenizer) else RememberingTokenizer(tokenizer)
        self.k = k
        self.baselines = tuple(baselines)
        self.options = options

    def run(self, episodes: Sequence[Episode]) -> Iterator[EpisodeResult]:
        """Episodes in order, each as soon as it is finished."""
        for episode in episodes:
            yield self.run_episode(episode)

    def classifier(self, episode: Episode) -> FewShotClassifier:
        """The classifier, fitted on the episode's support set."""
        classifier = FewShotClassifier(llm=self.llm, tokenizer=self.tokenizer, k=self.k, **self.options)
        return classifier.fit(self._paths(episode.support), [item.label for item in episode.support])

    def run_episode(self, episode: Episode) -> EpisodeResult:
        """All queries of one episode. Its examples come up once, so nothing is learnt of them beforehand."""
        with word_tables("off"):
            return self._run_episode(episode)

    def _run_episode(self, episode: Episode) -> EpisodeResult:
        support = self.tokenizer.encode(self._paths(episode.support), self.k)
        queries = self.tokenizer.encode(self._paths(episode.queries), self.k)
        classifier = self.classifier(episode)
        answers = classifier.classify(self._paths(episode.queries))
        # In the classifier's own order of labels, so that the blind prompt differs by the withheld words alone.
        guesses = self._baselines(episode, support, queries, [str(label) for label in classifier.classes_])
        right = [answer.label == item.label for answer, item in zip(answers, episode.queries, strict=True)]
        example = right.index(True) if any(right) else 0
        return EpisodeResult(
            episode,
            tuple(tuple(pyramid.words()) for pyramid in support),
            tuple(
                QueryResult(item, answer, {name: labels[index] for name, labels in guesses.items()})
                for index, (item, answer) in enumerate(zip(episode.queries, answers, strict=True))
            ),
            example,
            classifier.prompt_for(self._paths(episode.queries)[example]),
        )

    def _paths(self, items: Sequence[Item]) -> list[str]:
        return [str(self.folder.path(item)) for item in items]

    def _baselines(
        self, episode: Episode, support: Sequence[TokenPyramid], queries: Sequence[TokenPyramid], classes: list[str]
    ) -> dict[str, list[str | None]]:
        labels = [item.label for item in episode.support]
        count = len(episode.queries)
        guesses: dict[str, list[str | None]] = {}
        for name in self.baselines:
            if name == "blind":
                guesses[name] = [self._blind(episode, support, classes)] * count
            elif name == "prior":
                guesses[name] = [baselines.prior(labels)] * count
            elif name == "words_prototype" and self.tokenizer.codebook is not None:
                guesses[name] = [*baselines.words_prototype(support, labels, queries, self.tokenizer.codebook)]
            elif name == "image_prototype" and self.tokenizer.can_embed:
                vectors = self.tokenizer.embed(self._paths([*episode.support, *episode.queries]))
                guesses[name] = [*baselines.nearest_prototype(vectors[: len(labels)], labels, vectors[len(labels) :])]
            elif name == "label_name":
                found = baselines.label_name(episode.labels, self.tokenizer, queries)
                if found is not None:
                    guesses[name] = [*found]
        return guesses

    def _blind(self, episode: Episode, support: Sequence[TokenPyramid], classes: Sequence[str]) -> str | None:
        names = ("template", "induction", "repeats", "order_seed")
        options = {name: self.options[name] for name in names if name in self.options}
        builder = PromptBuilder(folder=self.options.get("templates"), **options)
        examples = [
            Example(words=self.tokenizer.to_text(pyramid), label=item.label)
            for pyramid, item in zip(support, episode.support, strict=True)
        ]
        return baselines.blind(self.llm, builder.prepare(examples, classes), classes)


def scorer_name(method: str | None) -> str:
    """``Accuracy.scorer`` for a rung of the classifier's ladder."""
    return SCORER_OF_METHOD.get(method or "", "none")


@dataclass(frozen=True, slots=True)
class FewShotReport:
    """Accuracy of the LLM and of the baselines over the same queries.

    result and baselines are ``Accuracy`` objects; a baseline that lacks an answer to some query (an episode
    whose label words the codebook does not hold) is left out rather than counted on fewer questions.
    """

    result: Accuracy
    baselines: Mapping[str, Accuracy]
    ways: int
    shots: int
    episodes: tuple[EpisodeResult, ...]

    @classmethod
    def of(cls, results: Sequence[EpisodeResult]) -> FewShotReport:
        """Sum up finished episodes of one size.

        Raises:
            UsageError: no episode, or episodes of different ways or shots.
        """
        sizes = {(result.episode.ways, result.episode.shots) for result in results}
        if len(sizes) != 1:
            raise UsageError(f"a report needs episodes of one size; got (ways, shots) = {sorted(sizes)}")
        ways, shots = sizes.pop()
        queries = [query for result in results for query in result.queries]
        scorers = sorted({scorer_name(query.classification.method) for query in queries})
        scorer = " / ".join(scorers)
        names = [name for name in BASELINES if queries and all(name in query.baselines for query in queries)]
        blind_scorer = scorer if scorer == "likelihood" else "prefix"
        return cls(
            Accuracy.of((query.right for query in queries), scorer),
            {
                name: Accuracy.compare(
                    [query.baselines[name] for query in queries],
                    [query.item.label for query in queries],
                    SCORER_OF_BASELINE.get(name, blind_scorer),
                )
                for name in names
            },
            ways,
            shots,
            tuple(results),
        )

    def to_dict(self) -> dict[str, Any]:
        """The summary: {result, ways, shots, episodes (how many), baselines}."""
        return {
            "result": self.result.to_dict(),
            "ways": self.ways,
            "shots": self.shots,
            "episodes": len(self.episodes),
            "baselines": {name: accuracy.to_dict() for name, accuracy in self.baselines.items()},
        }
