"""Few-shot classification of images by a frozen text LLM, in the manner of a scikit-learn classifier.

Knows: the order of the line (images, words, examples, prompt, LLM, label) and what a user may set.
Refuses to know: how any one step works.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, Self, get_args

import numpy as np
import numpy.typing as npt

from icl_vision.asking.inquiries import Inquiry, Reply
from icl_vision.asking.jobs import progress_bar
from icl_vision.asking.plan import Plan
from icl_vision.checks import choice, count, flag
from icl_vision.contracts import Classification, ScoringMethod, TextLLM, Tokenizer, Usage
from icl_vision.errors import CapabilityError, UsageError
from icl_vision.images import ImageSource
from icl_vision.llms.cost import PriceTable
from icl_vision.llms.loop import hop, run_sync
from icl_vision.llms.word_tables import learns
from icl_vision.llms.wrappers.dry import DryLLM
from icl_vision.probabilities import ProbabilityMap
from icl_vision.spelling import composed
from icl_vision.tasks.base import Task
from icl_vision.tasks.classify import calibrating
from icl_vision.tasks.classify.ensemble import Ensemble
from icl_vision.tasks.classify.fitted import FittedClassifier, Lot, builder_of
from icl_vision.tasks.classify.prompts import CHANNEL, Example
from icl_vision.tasks.classify.scoring import EnsembleOption, Scoring, verdict
from icl_vision.tasks.classify.selection import Support, SupportExample
from icl_vision.tasks.inputs import (
    Label,
    as_labels,
    as_sources,
    check_folder,
    check_name,
    check_support,
    encode,
    is_folder,
    read_classes,
    sorted_classes,
)
from icl_vision.tasks.saving import SavedForm
from icl_vision.tasks.tools import Tool, classifying
from icl_vision.tokenizers.taking import IMAGES, taken_by
from icl_vision.wording import counted

if TYPE_CHECKING:
    from icl_vision.pyramid import TokenPyramid

SCORINGS = get_args(Scoring)

MOST_NAMED = 8
"""Classes that a printed classifier names."""

Selection = Literal["all", "random", "nearest"]
Images = ImageSource | Iterable[ImageSource]


class FewShotClassifier(Task[FittedClassifier]):
    """Classifies images by showing an LLM a few labelled examples, all as words.

    Args:
        llm: what answers: a ``connect`` string ("local", "openai-compatible:MODEL@URL" ...) or any ``TextLLM``.
        tokenizer: what turns images into words: a name or folder, as for ``ImageTokenizer.from_pretrained``, or a
            tokenizer.
        k: words per image; None for the tokenizer's default.
        shots: at most so many examples of each class are shown; None shows all.
        repeats: how many times more each example is shown.
        induction: begin the prompt with a line that names the labels (task induction).
        selection: which examples are shown: "all" (of each class the first ``shots``, in the order given), "random"
            (a draw of ``shots`` of each class, by ``order_seed``, the same for every image) or "nearest" (for each
            image, the ``shots`` of each class with the closest words). "nearest" gives every image its own prompt:
            nothing is shared, so an LLM's prefix cache no longer helps.
        scoring: "auto", or a rung of the ladder in ``icl_vision.tasks.classify.scoring``: "channel", "direct",
            "constrained", "parse".
        ensemble: "examples": with scoring by channel, every example stands alone in a prompt of its own, every word of
            the image is scored by itself, and a class is the mixture of its examples; their order then does not
            matter. None: one prompt with all examples. "auto": "examples" where the channel is scored by an LLM to
            which many words after one prompt cost little more than one (local, a llama.cpp server), else None.
        calibration: None, or "contextual": subtract what the prompt says of each label for inputs without content
            (Zhao et al. 2021). Needs a scoring by log-probabilities; costs a few questions more per prompt.
        probabilities: "calibrated": as sure as they turn out right, where a map is known: for the embedded LLM with
            the packaged prompts and tokenizers, and for any LLM after ``calibrate_probabilities``; elsewhere, and with
            "raw", the LLM's own, which are mostly far too sure. ``Classification.calibrated`` says which they are;
            labels are the same (docs/probabilities.md). Read at each call: it may be changed after ``fit``.
        order_seed: order of the examples in the prompt (classes interleaved; None keeps the order given), and the
            draw of "random".
        template: prompt template, by name (``icl-vision prompts list``).
        templates: a folder of your own templates, looked in first.
        on_unknown: where the LLM's answer is no label: "abstain" (None) or "raise" (``UnknownAnswerError``).
        errors: an image that cannot be used, or whose question fails: "raise", or "return" a ``Classification`` with
            its ``error`` in place and go on with the others.
        batch_size: images held in memory at once while they become words.
        concurrency: requests to the LLM at the same time.
        progress: show a progress bar on stderr; None only at a terminal.

    The constructor only stores; ``fit`` checks. What is changed afterwards holds from the next ``fit`` on, but for
    ``on_unknown``, ``errors``, ``probabilities``, ``batch_size``, ``concurrency`` and ``progress``, which each call
    reads.

    Attributes after ``fit``: ``classes_`` (list of labels, sorted),
    ``examples_`` (the support set as words), ``llm_``, ``tokenizer_``, ``method_`` (the rung in use),
    ``probability_map_`` (what calibrates probabilities, None where nothing does), ``fit_usage_`` (what ``fit`` asked).

    With the embedded LLM and an ensemble, ``fit`` has it learn what every example's prompt says of the words to expect,
    and keeps that in the user's cache: later images then take hardly any request, and the same examples fitted again
    none. ``icl_vision.llms.word_tables`` says how, and how to do without.

    >>> clf = FewShotClassifier(llm="local", k=5).fit(images, labels)  # doctest: +SKIP
    >>> clf.predict(["unknown.jpg"])  # doctest: +SKIP
    ['cat']
    """

    form = SavedForm(
        "icl_vision.FewShotClassifier",
        1,
        {"classes": list, "examples": list},
        "classifier",
        otherwise="not be comparable",
    )
    twin = CHANNEL

    def __init__(
        self,
        llm: str | TextLLM = "local",
        tokenizer: str | os.PathLike[str] | Tokenizer = "words-photo",
        k: int | None = 5,
        *,
        shots: int | None = None,
        repeats: int = 0,
        induction: bool = True,
        selection: Selection = "all",
        scoring: Scoring = "auto",
        ensemble: EnsembleOption = "auto",
        calibration: Literal["contextual"] | None = None,
        probabilities: Literal["calibrated", "raw"] = "calibrated",
        order_seed: int | None = 0,
        template: str = "classification",
        templates: str | os.PathLike[str] | None = None,
        on_unknown: Literal["abstain", "raise"] = "abstain",
        errors: Literal["raise", "return"] = "raise",
        batch_size: int = 32,
        concurrency: int = 8,
        progress: bool | None = None,
    ) -> None:
        self.llm = llm
        self.tokenizer = tokenizer
        self.k = k
        self.shots = shots
        self.repeats = repeats
        self.induction = induction
        self.selection = selection
        self.scoring = scoring
        self.ensemble = ensemble
        self.calibration = calibration
        self.probabilities = probabilities
        self.order_seed = order_seed
        self.template = template
        self.templates = templates
        self.on_unknown = on_unknown
        self.errors = errors
        self.batch_size = batch_size
        self.concurrency = concurrency
        self.progress = progress

    # The support set.

    def fit(
        self, images: Iterable[ImageSource] | str | os.PathLike[str], labels: Iterable[Label] | None = None
    ) -> Self:
        """Turn labelled images into words, once, and make sure that they fit the LLM's window.

        Args:
            images: the support images (paths, bytes, file objects, PIL images, arrays), or, without ``labels``, a
                folder with one sub-folder of images for each class, named as the class.
            labels: one str or int per image; at least two classes.

        Raises:
            UsageError: an argument (here or in the constructor) that cannot work; the message says which would.
            LabelError: a label that must not enter a prompt.
            ImageError: an image that cannot be used (whatever ``errors`` says: a support set is not guessed).
            CapabilityError, TemplateError: ``scoring`` asks what the LLM or the template does not offer.
            PromptTooLongError: the examples do not fit the LLM's window.
        """
        self.check()
        takes = self._takes()
        if labels is None:
            if not is_folder(images):
                raise UsageError("fit needs labels, one for each image; only a folder of class folders goes without")
            images, labels = read_classes(images, takes=takes)  # type: ignore[arg-type]  # is_folder saw to it
        sources = as_sources(images, single=False, takes=takes)
        names = as_labels(labels)
        check_support(sources, names)
        classes = sorted_classes(names)
        tokenizer = self._connect_tokenizer()
        llm = self._connect_llm()
        # Before any image is opened: labels, template and scoring may already be wrong.
        builder, _ = builder_of(self.get_params(), llm, [str(label) for label in classes])
        texts = [composed(str(label)) for label in classes]
        builder.prepare([Example("word", text) for text in texts], texts)
        known = [calibrating.known_content(source, takes) for source in sources]
        sources = [source for _, source in known]
        with progress_bar(len(sources), "words", self.progress) as done:
            pyramids = encode(tokenizer, sources, self.k, batch_size=self.batch_size, keep_errors=False, done=done)
        examples = [
            SupportExample(pyramid, tokenizer.to_text(pyramid), classes.index(label), digest)
            for pyramid, label, (digest, _) in zip(pyramids, names, known, strict=True)
            if not isinstance(pyramid, Exception)  # none is: errors were not kept
        ]
        self._fitted = fitted = self._assembled(llm, tokenizer, Support(tuple(classes), tuple(examples)))
        prompts = fitted.asker.shared.prompts if isinstance(fitted.asker.shared, Ensemble) else ()
        with progress_bar(len(prompts) if learns(llm) else 0, "examples", self.progress) as done:
            self._fitted = replace(fitted, usage=run_sync(fitted.asker.learn(done)))
        return self

    def _check(self) -> None:
        count("k", self.k, none="the tokenizer's default")
        count("shots", self.shots, none="all examples")
        count("repeats", self.repeats, least=0)
        flag("induction", self.induction)
        choice("selection", self.selection, ("all", "random", "nearest"))
        choice("scoring", self.scoring, SCORINGS)
        choice("ensemble", self.ensemble, (None, "auto", "examples"))
        choice("calibration", self.calibration, (None, "contextual"))
        count("order_seed", self.order_seed, least=0, none="the order given")
        check_name("template", self.template, "a prompt template")
        check_folder("templates", self.templates)
        if self.selection == "nearest" and self.shots is None:
            raise UsageError("selection='nearest' needs `shots`, the number of examples of each class; got None")

    def _assembled(self, llm: TextLLM, tokenizer: Tokenizer, kept: Support) -> FittedClassifier:
        return FittedClassifier.of(self._params_now(), llm, tokenizer, kept)

    @property
    def classes_(self) -> list[Label]:
        """The labels, sorted."""
        return list(self.fitted.kept.classes)

    @property
    def examples_(self) -> list[SupportExample]:
        """The support set as words, in the order given."""
        return list(self.fitted.kept.examples)

    @property
    def method_(self) -> ScoringMethod:
        """The rung of the ladder in use."""
        return self.fitted.method

    @property
    def probability_map_(self) -> ProbabilityMap | None:
        """What calibrates probabilities; None where nothing does."""
        return self.fitted.probability_map

    @property
    def fit_usage_(self) -> Usage:
        """What ``fit`` asked."""
        return self.fitted.usage

    # What is asked of a fitted classifier.

    def predict(self, images: Images) -> list[Label | None]:
        """A label for each image, as given to ``fit``; None where it abstains (or failed, with ``errors="return"``).

        Args:
            images: a sequence of images; one image counts as a list of one.
        """
        return self._own_labels(self.classify(images))

    async def apredict(self, images: Images) -> list[Label | None]:
        """``predict`` as a coroutine."""
        return self._own_labels(await self.aclassify(images))

    def classify(self, images: Images) -> list[Classification]:
        """``predict`` with everything known about each answer: probabilities, words, method, raw text, usage, error.

        Labels are texts here (an int label 3 is "3"); ``predict`` gives back the labels of ``fit``.

        Raises:
            NotFittedError: before ``fit``.
            ImageError, LLMError, PromptTooLongError, UnknownAnswerError: unless ``errors="return"``.
        """
        return run_sync(self.ask(self.read(images)))

    async def aclassify(self, images: Images) -> list[Classification]:
        """``classify`` as a coroutine: images become words in a thread, questions run on the library's event loop."""
        return await hop(self.ask(await asyncio.to_thread(self.read, images)))

    def predict_proba(self, images: Images) -> npt.NDArray[np.float64]:
        """Probabilities, float64 [N, classes], columns as ``classes_``; a row of NaN for an image that failed.

        Raises:
            CapabilityError: the scoring in use gives no probabilities.
        """
        classes = len(self.ready().kept.classes)
        if self.method_ not in ("channel", "direct"):
            raise CapabilityError(
                f"scoring by {self.method_!r} gives no probabilities; use an LLM that scores text (local does) with "
                "scoring='auto', 'direct' or 'channel'"
            )
        rows = [
            [np.nan] * classes if result.probabilities is None else list(result.probabilities.values())
            for result in self.classify(images)
        ]
        return np.asarray(rows, dtype=np.float64).reshape(len(rows), classes)

    def calibrate_probabilities(
        self,
        images: Iterable[ImageSource],
        labels: Iterable[Label],
        *,
        out: str | os.PathLike[str] | None = None,
        resume: bool = False,
    ) -> Self:
        """Fit the map from this classifier's scores to probabilities to labelled images of one's own.

        For LLMs, templates and tokenizers without a packaged map, and in place of one. The images are asked about as by
        ``classify``, every one is used, and labels stay as they were. The map is kept by ``save`` until the next
        ``fit``; ``probability_map_.measured`` says what it does on images it was not fitted to, by cross-validation.

        Args:
            images: at least 50 different ones, none of the support set (by content), of the kind that will be asked
                about later: photographs unlike them may be answered with other certainty. A few hundred are better.
            labels: the true class of each.
            out: a run folder (as of ``icl_vision.tasks.classify_many``) where every answer is kept as soon as it is
                there; None keeps them in memory only.
            resume: go on with the run in ``out``: what has an answer there is not asked again.

        What it will ask is told beforehand by ``plan_calibration``; a budget is the LLM's, as ever
        (``connect(..., meter=...)``).

        Raises:
            NotFittedError: before ``fit``. CapabilityError: the scoring in use gives no probabilities.
            UsageError: a support image, too few images, a label that is no class, or a classifier from a file of
                version 0.1.0, which does not say which its support images were.
            ImageError, LLMError: an image or question that fails; the map stays as it was, and with ``out`` what was
                answered is kept.
        """
        fitted = self.ready()
        sources, truths = calibrating.check_images(self, images, labels)
        twin = calibrating.raw_twin(self)
        if out is None:
            shares = calibrating.shares_of(twin.classify(sources))
        else:
            from icl_vision.tasks.many import classify_many

            shares = calibrating.shares_in(classify_many(twin, sources, out, resume=resume, progress=self.progress))
        own = calibrating.map_of(shares, truths, fitted.llm)
        self._fitted = replace(fitted, kept=replace(fitted.kept, own_map=own), probability_map=own)
        return self

    async def acalibrate_probabilities(
        self,
        images: Iterable[ImageSource],
        labels: Iterable[Label],
        *,
        out: str | os.PathLike[str] | None = None,
        resume: bool = False,
    ) -> Self:
        """``calibrate_probabilities`` as a coroutine."""
        return await asyncio.to_thread(self.calibrate_probabilities, images, labels, out=out, resume=resume)

    def score(self, images: Images, labels: Iterable[Label]) -> float:
        """Accuracy on labelled images; an abstention counts as wrong."""
        takes = IMAGES if self._fitted is None else taken_by(self._fitted.tokenizer)
        sources, expected = as_sources(images, single=True, takes=takes), as_labels(labels)
        if len(sources) != len(expected) or not sources:
            raise UsageError(
                f"score needs as many labels as images, and at least one; got "
                f"{counted(len(sources), 'image')} and {counted(len(expected), 'label')}"
            )
        # Truths may be spelled in other characters than those of ``fit`` (names of folders are, on some file systems).
        own = {_spelling(label): label for label in self.classes_} if self._fitted is not None else {}
        wanted = [own.get(_spelling(label), label) for label in expected]
        return float(np.mean([got == want for got, want in zip(self.predict(sources), wanted, strict=True)]))

    def __call__(self, images: Images) -> Label | list[Label | None] | None:
        """The label of one image, or a list of labels for a sequence."""
        labels = self.predict(images)
        return labels[0] if taken_by(self.ready().tokenizer).is_source(images) else labels

    def __str__(self) -> str:
        if self._fitted is None:
            return f"{self!r}, not fitted: call fit(images, labels), or fit(folder) with a sub-folder for each class"
        classes, words = self.classes_, self._fitted.params["k"]
        names = ", ".join(str(label) for label in classes[:MOST_NAMED])
        more = f" and {len(classes) - MOST_NAMED} more" if len(classes) > MOST_NAMED else ""
        k = "" if words is None else f", k={words}"
        return (
            f"{type(self).__name__} of {counted(len(classes), 'class', 'classes')} ({names}{more}) from "
            f"{counted(len(self.examples_), 'example')}: words of {self.tokenizer_.name}{k}, read by "
            f"{self.llm_.profile.name}, scoring {self.method_}"
        )

    def _repr_html_(self) -> str:
        from icl_vision.viz.notebook import classifier_html  # the named lazy exception: what is shown is viz's

        return classifier_html(self)

    def words_of(self, image: ImageSource) -> list[list[str]]:
        """The words of one image, a list per layer."""
        return [list(layer) for layer in _layers(self._pyramid_of(image))]

    def prompt_for(self, image: ImageSource) -> Inquiry:
        """What would be sent to the LLM about this image; ``print`` shows it. Nothing is sent."""
        pyramid, fitted = self._pyramid_of(image), self.fitted
        prepared = fitted.shown_for(pyramid)
        return fitted.asker.inquiry(prepared, fitted.text_of(pyramid, prepared))

    def _pyramid_of(self, image: ImageSource) -> TokenPyramid:
        fitted = self.ready()
        (pyramid,) = fitted.tokenizer.encode([image], fitted.params["k"])
        return pyramid

    # Keeping it: how is ``Task``'s, what is here.

    def to_document(self) -> dict[str, Any]:
        """What ``save`` writes, as plain JSON.

        Raises:
            NotFittedError: before ``fit``.
        """
        document, used = super().to_document(), self.fitted.builder.template
        # As the template in use was when the classifier was fitted, whatever its file says by now.
        document["templates"][used.info.name] = hashlib.sha256(used.source.encode()).hexdigest()
        return document

    def _tool(self) -> Tool:
        return classifying(self)

    def _kept_to_dict(self) -> dict[str, Any]:
        return self.fitted.kept.to_dict()

    @classmethod
    def _kept_from_dict(cls, document: Mapping[str, Any], tokenizer: Tokenizer) -> Support:
        return Support.from_dict(document, tokenizer)

    @classmethod
    def _params_of(cls, params: Mapping[str, Any]) -> dict[str, Any]:
        # Files of version 0.1.0 know nothing of calibrated probabilities and go on giving the numbers they gave.
        return {"probabilities": "raw", **params}

    # For runs over many images, and what they would cost.

    def read(self, images: Images) -> Lot:
        """Everything that happens before the LLM is asked: the words of each image, and which share a prompt.

        For runs and plans; ``classify`` does this, then ``ask``.

        Raises:
            NotFittedError: before ``fit``. ImageError: an image that cannot be used, unless ``errors="return"``.
        """
        fitted = self.ready()
        sources = as_sources(images, single=True, takes=taken_by(fitted.tokenizer))
        with progress_bar(len(sources), "words", self.progress) as done:
            words = encode(
                fitted.tokenizer,
                sources,
                fitted.params["k"],
                batch_size=self.batch_size,
                keep_errors=self.errors == "return",
                done=done,
            )
        return fitted.lot(words)

    async def ask(
        self, lot: Lot, on_result: Callable[[int, Classification], Awaitable[None]] | None = None
    ) -> list[Classification]:
        """Ask about images that were read; for runs, see ``read``. To be awaited on the library's event loop.

        on_result: awaited with each image's number and result as soon as it is known, before anything else is asked in
            its stead; what it raises ends everything.

        Raises:
            LLMError, PromptTooLongError, UnknownAnswerError: unless ``errors="return"``.
        """
        fitted = lot.fitted
        keep_errors, on_unknown = self.errors == "return", self.on_unknown
        labels, method, calibration = fitted.asker.labels, fitted.asker.method, self._map_in_use(fitted)
        spelled = [str(label) for label in fitted.kept.classes]
        # What the prompts name in composed characters, as the user spelled it.
        own = dict(zip(labels, spelled, strict=True)) if list(labels) != spelled else None
        results = [Classification(None, None, (), None) for _ in lot.words]

        async def keep(number: int, result: Classification) -> None:
            results[number] = result
            if on_result is not None:
                await on_result(number, result)

        async def judge(group: int, query: int, reply: Reply | Exception) -> None:
            number = lot.together[group].numbers[query]
            pyramid = lot.words[number]
            assert not isinstance(pyramid, Exception)  # it would be in no group
            known = on_unknown == "raise"
            result = verdict(reply, _layers(pyramid), method, labels, unknown_is_error=known, calibration=calibration)
            if own is not None:
                result = replace(
                    result,
                    label=None if result.label is None else own[result.label],
                    probabilities=result.probabilities
                    and {own[label]: share for label, share in result.probabilities.items()},
                )
            await keep(number, result)
            if result.error is not None and not keep_errors:
                raise result.error  # now: what is still to be asked would be paid for and thrown away

        unusable = lot.unusable
        for number, result in unusable:
            await keep(number, result)
        with progress_bar(len(lot.words) - len(unusable), "answers", self.progress) as done:
            await fitted.asker.ask(
                lot.inquiries, concurrency=self.concurrency, keep_errors=keep_errors, done=done, read=judge
            )
        return results

    def plan(self, images: Images, prices: PriceTable | None = None) -> Plan:
        """What ``classify`` would send and cost, call by call, without asking anything; and ``fit``, where that had the
        LLM learn the examples.

        Tokens are estimated, and on the high side: every answer is taken to be as long as it may be.

        Args:
            images: to be asked about, as by ``classify``. Those that cannot be are in ``Plan.unusable``.
            prices: of models, by name; None knows none.

        Raises:
            NotFittedError: before ``fit``.
            UsageError: this was fitted with another LLM than a ``DryLLM``; that nothing can be asked by mistake.
        """
        fitted = self.ready()
        llm = fitted.llm
        if not isinstance(llm, DryLLM):
            raise UsageError(f"a plan needs a classifier fitted with llm=DryLLM(connect(...)); got {llm!r}")
        llm.begin()
        lot = self.quietly().read(images)
        if fitted.tokenizer.vocabulary is not None:
            llm.whole = frozenset(fitted.tokenizer.vocabulary)
        unusable = [result for _, result in lot.unusable]
        return fitted.asker.plan(llm, lot.inquiries, unusable, prices, concurrency=self.concurrency)

    def plan_calibration(
        self, images: Iterable[ImageSource], labels: Iterable[Label], prices: PriceTable | None = None
    ) -> Plan:
        """What ``calibrate_probabilities(images, labels)`` would send and cost; it refuses what that would refuse.

        Raises:
            UsageError, CapabilityError, ImageError: as ``calibrate_probabilities``, and as ``plan``.
        """
        self.ready()
        sources, _ = calibrating.check_images(self, images, labels)
        return self.plan(sources, prices)

    def run_config(self) -> dict[str, Any]:
        """What decides the answers of this fitted classifier, as plain JSON: a run goes on only with the same.

        Raises:
            NotFittedError: before ``fit``.
        """
        fitted = self.ready()
        return fitted.run_config(self._map_in_use(fitted), on_unknown=self.on_unknown)

    @property
    def at_once(self) -> int:
        """Requests that may be in flight together."""
        self.ready()
        return self.concurrency

    def _map_in_use(self, fitted: FittedClassifier) -> ProbabilityMap | None:
        """What makes probabilities of scores in this call; None leaves them raw."""
        return fitted.probability_map if self.probabilities == "calibrated" else None

    def _own_labels(self, results: Sequence[Classification]) -> list[Label | None]:
        assert self._fitted is not None  # it was asked
        own = {str(label): label for label in self._fitted.kept.classes}
        return [None if result.label is None else own[result.label] for result in results]


def _spelling(label: Label) -> Label:
    return composed(label) if isinstance(label, str) else label


def _layers(pyramid: TokenPyramid) -> tuple[tuple[str, ...], ...]:
    return tuple(tuple(pyramid.words(layer)) for layer in range(1, len(pyramid.ids) + 1))
