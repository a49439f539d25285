"""A classifier as it was fitted: what it asks, whom, with which examples.

Knows: how options, labelled words and an LLM become prepared prompts. Refuses to know: images, how replies are read.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

from icl_vision.contracts import Classification, ScoringMethod, TextLLM, Tokenizer, Usage
from icl_vision.errors import CapabilityError, DroppedGuaranteeWarning
from icl_vision.llms.loop import run_sync
from icl_vision.probabilities import ProbabilityMap
from icl_vision.prompting import PromptSize
from icl_vision.pyramid import TokenPyramid
from icl_vision.spelling import composed
from icl_vision.tasks.base import Fitted
from icl_vision.tasks.classify import calibrating
from icl_vision.tasks.classify import scoring as ladder
from icl_vision.tasks.classify import selection as choosing
from icl_vision.tasks.classify.asking import Asker
from icl_vision.tasks.classify.ensemble import Ensemble
from icl_vision.tasks.classify.prompts import Example, PromptBuilder
from icl_vision.tasks.classify.scoring import Shown
from icl_vision.tasks.classify.selection import Support, SupportExample
from icl_vision.tokenizers.likely import likely_words
from icl_vision.tokenizers.wrapping import fingerprint


@dataclass(slots=True)
class Together:
    """Images that share a prepared prompt: their numbers among those of a lot, and their words as text."""

    prepared: Shown
    numbers: list[int] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Lot:
    """Images that are asked about in one go: the words of each, or why there are none, and who shares a prompt."""

    words: list[TokenPyramid | Exception]
    together: list[Together]

    @property
    def inquiries(self) -> list[tuple[Shown, Sequence[str]]]:
        """What ``Asker`` takes: prepared prompts with the texts of their queries."""
        return [(group.prepared, group.texts) for group in self.together]

    @property
    def unusable(self) -> list[tuple[int, Classification]]:
        """Images that have no words, by number, with the error that says why."""
        return [
            (number, Classification(None, None, (), None, error=words))
            for number, words in enumerate(self.words)
            if isinstance(words, Exception)
        ]


@dataclass(frozen=True, kw_only=True)
class FittedClassifier(Fitted):
    """What a ``FewShotClassifier`` was fitted with.

    builder: of the template in use. alone: whether every example has a prompt of its own. neighbours: None unless each
    image has its own examples. probability_map: what calibrates, None where nothing does. usage: what ``fit`` asked.
    """

    kept: Support
    builder: PromptBuilder
    asker: Asker
    alone: bool
    neighbours: choosing.Neighbours | None
    probability_map: ProbabilityMap | None
    usage: Usage = field(default_factory=Usage)

    @classmethod
    def of(cls, params: Mapping[str, Any], llm: TextLLM, tokenizer: Tokenizer, support: Support) -> Self:
        """The classifier of these options and examples.

        Raises:
            CapabilityError, TemplateError: as ``builder_of``.
            PromptTooLongError: the examples do not fit the LLM's window.
        """
        shots, selection = params["shots"], params["selection"]
        examples, texts = support.examples, tuple(composed(str(label)) for label in support.classes)
        builder, method = builder_of(params, llm, [str(label) for label in support.classes])
        if params["scoring"] == "auto" and method == "direct" and (lost := builder.lost_channel()) is not None:
            warnings.warn(lost, DroppedGuaranteeWarning, stacklevel=4)  # whoever called fit
        alone = ladder.choose_ensemble(params["ensemble"], method, llm.profile)
        likely: tuple[str, ...] = ()
        if alone and getattr(llm, "learns_words", False):
            words = likely_words(tokenizer, params["k"], (example.text for example in examples))
            likely = tuple(dict.fromkeys(map(composed, words)))
        asker = Asker(
            llm=llm,
            method=method,
            labels=texts,
            calibrate=params["calibration"] is not None,
            size=PromptSize(shots, params["k"], params["repeats"], selection),
            seed=int(params["order_seed"] or 0) % 2**31,
            words=likely,
        )
        neighbours = None
        if selection == "nearest":
            codebook = None if tokenizer.vocabulary is None else tokenizer.codebook
            neighbours = choosing.Neighbours(examples, codebook)
            # The largest prompt that could ever be asked is the one to measure.
            chosen = choosing.longest_of_each(examples, shots)
        elif selection == "random" and shots is not None:
            chosen = choosing.random_of_each(examples, shots, params["order_seed"])
        else:
            chosen = choosing.first_of_each(examples, shots)
        prepared = _prepare(builder, chosen, texts, alone=alone)
        if neighbours is None:
            asker.shared = prepared
        run_sync(asker.prepare(asker.inquiry(prepared, max((example.text for example in examples), key=len))))
        return cls(
            params=params,
            llm=llm,
            tokenizer=tokenizer,
            kept=support,
            builder=builder,
            asker=asker,
            alone=alone,
            neighbours=neighbours,
            probability_map=support.own_map
            or calibrating.packaged_map(
                llm,
                tokenizer,
                builder,
                chosen,
                method=method,
                ensemble=alone,
                contextual=params["calibration"] is not None,
                selection=selection,
            ),
        )

    @property
    def method(self) -> ScoringMethod:
        """The rung in use."""
        return self.asker.method

    def shown(self, examples: Sequence[SupportExample]) -> Shown:
        """These examples as a query finds them."""
        return _prepare(self.builder, examples, self.asker.labels, alone=self.alone)

    def shown_for(self, pyramid: TokenPyramid) -> Shown:
        """The examples that an image of these words is asked about with."""
        if self.neighbours is not None:
            return self.shown(self.neighbours.of(pyramid, self.params["shots"]))
        assert self.asker.shared is not None  # all share one unless selection="nearest"
        return self.asker.shared

    def lot(self, words: Sequence[TokenPyramid | Exception]) -> Lot:
        """The images that have these words, by the prompt they share."""
        groups: dict[str, Together] = {}
        for number, pyramid in enumerate(words):
            if not isinstance(pyramid, Exception):
                prepared = self.shown_for(pyramid)
                # By what is sent, so that images for which "nearest" chose the same examples share a prefix after all.
                group = groups.setdefault(prepared.context, Together(prepared))
                group.numbers.append(number)
                group.texts.append(self.tokenizer.to_text(pyramid))
        return Lot(list(words), [*groups.values()])

    def run_config(self, calibration: ProbabilityMap | None, *, on_unknown: str) -> dict[str, Any]:
        """What decides answers, as plain JSON: a run goes on only with the same. calibration: the map in use."""
        params, asker, support = self.params, self.asker, self.kept.examples
        prepared = asker.shared or self.shown(choosing.first_of_each(support, params["shots"]))
        examples = [[example.label, example.text] for example in support]
        # A prompt with everything in it: template, induction, order, repeats.
        prompt = str(asker.inquiry(prepared, support[0].text))
        return {
            "llm": str(getattr(self.llm, "identity", self.llm.profile.name)),
            "tokenizer": {"name": self.tokenizer.name, "hash": fingerprint(self.tokenizer)},
            "k": params["k"],
            "method": asker.method,
            "calibration": params["calibration"],
            "selection": params["selection"],
            "shots": params["shots"],
            "on_unknown": on_unknown,
            "order_seed": params["order_seed"],
            "labels": list(asker.labels),
            "examples": hashlib.sha256(repr(examples).encode()).hexdigest(),
            "prompt": hashlib.sha256(prompt.encode()).hexdigest(),
            # Only where a map is in use: raw answers are those of version 0.1.0, whose runs can be gone on with.
            **(
                {}
                if calibration is None
                else {"probabilities": f"calibrated, temperature {calibration.temperature:.6g}"}
            ),
        }


def builder_of(params: Mapping[str, Any], llm: TextLLM, labels: Sequence[str]) -> tuple[PromptBuilder, ScoringMethod]:
    """The builder of the template in use, and the rung of the ladder; before any image is opened.

    Raises:
        CapabilityError, TemplateError: ``scoring``, ``calibration`` or ``ensemble`` ask what the LLM or the template
            does not offer.
    """
    order_seed = params["order_seed"]
    builder = PromptBuilder(
        params["template"],
        folder=params["templates"],
        induction=params["induction"],
        repeats=int(params["repeats"]),
        order_seed=None if order_seed is None else int(order_seed),
    )
    method = ladder.choose_method(params["scoring"], llm.profile, builder, labels)
    if params["calibration"] is not None and method not in ("channel", "direct"):
        raise CapabilityError(
            f"calibration={params['calibration']!r} needs log-probabilities, but scoring is {method!r} "
            f"with the LLM {llm.profile.name!r}; use calibration=None, or an LLM that scores text (local does)"
        )
    ladder.choose_ensemble(params["ensemble"], method, llm.profile)  # raises where it cannot be had
    return (builder.channel() if method == "channel" else builder), method


def _prepare(
    builder: PromptBuilder, examples: Sequence[SupportExample], labels: Sequence[str], *, alone: bool
) -> Shown:
    """All examples in one prompt, or each alone in its own."""
    shown = [Example(example.text, labels[example.label]) for example in examples]
    return Ensemble.of(builder, shown, labels) if alone else builder.prepare(shown, labels)
