"""Few-shot classification of images by a frozen text LLM, in the manner of a scikit-learn classifier.

Knows: the order of the line (images, words, examples, prompt, LLM, label) and what a user may set.
Refuses to know: how any one step works.
"""

from __future__ import annotations

import asyncio
import copy
import hashlib
import os
import warnings
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
import numpy.typing as npt

from icl_vision.asking.inquiries import Inquiry, Reply
from icl_vision.asking.plan import Plan
from icl_vision.asking.progress import progress_bar
from icl_vision.contracts import Classification, ScoringMethod, TextLLM, Tokenizer, Usage
from icl_vision.errors import CapabilityError, DroppedGuaranteeWarning, NotFittedError, UsageError
from icl_vision.images import ImageSource, is_image_source
from icl_vision.llms import connect
from icl_vision.llms.cost import PriceTable
from icl_vision.llms.loop import hop, run_sync
from icl_vision.llms.word_tables import learns
from icl_vision.llms.wrappers.dry import DryLLM
from icl_vision.probabilities import ProbabilityMap
from icl_vision.prompting import PromptSize
from icl_vision.spelling import composed
from icl_vision.tasks.checks import (
    Label,
    as_labels,
    as_sources,
    check_choice,
    check_count,
    check_flag,
    check_options,
    check_support,
    sorted_classes,
)
from icl_vision.tasks.classify import calibrating
from icl_vision.tasks.classify import scoring as ladder
from icl_vision.tasks.classify import selection as choosing
from icl_vision.tasks.classify.asking import Asker
from icl_vision.tasks.classify.ensemble import Ensemble
from icl_vision.tasks.classify.prompts import Example, PromptBuilder
from icl_vision.tasks.classify.scoring import EnsembleOption, Scoring, Shown
from icl_vision.tasks.classify.selection import SupportExample
from icl_vision.tasks.classify.verdicts import verdict
from icl_vision.tasks.encoding import encode
from icl_vision.tasks.folders import is_folder, read_classes
from icl_vision.tasks.params import Parameters, hidden
from icl_vision.tokenizers.likely import likely_words
from icl_vision.tokenizers.wrapping import fingerprint
from icl_vision.wording import counted

if TYPE_CHECKING:
    from icl_vision.integrations.langchain import TaskTool
    from icl_vision.pyramid import TokenPyramid

MOST_NAMED = 8
"""Classes that a printed classifier names."""

Selection = Literal["all", "random", "nearest"]
Images = ImageSource | Iterable[ImageSource]


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


class FewShotClassifier(Parameters):
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

    The constructor only stores; ``fit`` checks. What ``set_params`` changes afterwards holds from the next ``fit`` on,
    but for ``on_unknown``, ``errors``, ``probabilities``, ``batch_size`` and ``progress``, which each call reads.

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

    classes_: list[Label]
    examples_: list[SupportExample]
    llm_: TextLLM
    tokenizer_: Tokenizer
    method_: ScoringMethod
    probability_map_: ProbabilityMap | None
    fit_usage_: Usage

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
        check_options(self.get_params())
        if labels is None:
            if not is_folder(images):
                raise UsageError("fit needs labels, one for each image; only a folder of class folders goes without")
            images, labels = read_classes(images)  # type: ignore[arg-type]  # is_folder saw to it
        sources = as_sources(images, single=False)
        names = as_labels(labels)
        check_support(sources, names)
        classes = sorted_classes(names)
        tokenizer = self._connect_tokenizer()
        llm = self._connect_llm()
        # Before any image is opened: labels, template and scoring may already be wrong.
        builder, _ = self._plan(llm, [str(one) for one in classes])
        texts = [composed(str(label)) for label in classes]
        builder.prepare([Example("word", text) for text in texts], texts)
        known = [calibrating.known_content(source) for source in sources]
        sources = [source for _, source in known]
        with progress_bar(len(sources), "words", self.progress) as done:
            pyramids = encode(tokenizer, sources, self.k, batch_size=self.batch_size, keep_errors=False, done=done)
        examples = [
            SupportExample(pyramid, tokenizer.to_text(pyramid), classes.index(label), digest)
            for pyramid, label, (digest, _) in zip(pyramids, names, known, strict=True)
            if not isinstance(pyramid, Exception)  # none is: errors were not kept
        ]
        self._finish(llm, tokenizer, classes, examples)
        prompts = self._asker.shared.prompts if isinstance(self._asker.shared, Ensemble) else ()
        with progress_bar(len(prompts) if learns(llm) else 0, "examples", self.progress) as done:
            self.fit_usage_ = run_sync(self._asker.learn(done))
        return self

    def _finish(self, llm: TextLLM, tokenizer: Tokenizer, classes: list[Label], examples: list[SupportExample]) -> None:
        """Build what ``predict`` needs; attributes change only when all went well."""
        builder, method = self._plan(llm, [str(one) for one in classes])
        if self.scoring == "auto" and method == "direct" and (lost := builder.lost_channel()) is not None:
            warnings.warn(lost, DroppedGuaranteeWarning, stacklevel=3)
        texts = tuple(composed(str(label)) for label in classes)
        asker = Asker(
            llm=llm,
            method=method,
            labels=texts,
            calibrate=self.calibration is not None,
            size=PromptSize(self.shots, self.k, self.repeats, self.selection),
            seed=int(self.order_seed or 0) % 2**31,
            concurrency=self.concurrency,
            words=tuple(
                dict.fromkeys(map(composed, likely_words(tokenizer, self.k, (example.text for example in examples))))
            )
            if ladder.choose_ensemble(self.ensemble, method, llm.profile) and getattr(llm, "learns_words", False)
            else (),
        )
        neighbours = None
        if self.selection == "nearest":
            assert self.shots is not None  # check_options saw to it
            codebook = None if tokenizer.vocabulary is None else tokenizer.codebook
            neighbours = choosing.Neighbours(examples, codebook)
            # The largest prompt that could ever be asked is the one to measure.
            chosen = choosing.longest_of_each(examples, self.shots)
        elif self.selection == "random" and self.shots is not None:
            chosen = choosing.random_of_each(examples, self.shots, self.order_seed)
        else:
            chosen = choosing.first_of_each(examples, self.shots)
        alone = ladder.choose_ensemble(self.ensemble, method, llm.profile)
        prepared = _prepare(builder, chosen, texts, alone=alone)
        if neighbours is None:
            asker.shared = prepared
        longest = max((example.text for example in examples), key=len)
        run_sync(asker.prepare(asker.inquiry(prepared, longest)))
        self.llm_, self.tokenizer_, self.method_ = llm, tokenizer, method
        self.classes_, self.examples_, self.fit_usage_ = classes, examples, Usage()
        self.probability_map_ = calibrating.packaged_map(
            llm,
            tokenizer,
            builder,
            chosen,
            method=method,
            ensemble=alone,
            contextual=self.calibration is not None,
            selection=self.selection,
        )
        # What set_params changes afterwards must not reach into a fitted state: words of one k, queries of another.
        self._builder, self._asker, self._neighbours, self._fitted = builder, asker, neighbours, self.get_params()

    # What is asked of a fitted classifier.

    def predict(self, images: Images) -> list[Label | None]:
        """A label for each image, as given to ``fit``; None where it abstains (or failed, with ``errors="return"``).

        Args:
            images: a sequence of images; one image counts as a list of one.
        """
        return [self._own_label(one) for one in self.classify(images)]

    async def apredict(self, images: Images) -> list[Label | None]:
        """``predict`` as a coroutine."""
        return [self._own_label(one) for one in await self.aclassify(images)]

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
        self._check_fitted()
        if self.method_ not in ("channel", "direct"):
            raise CapabilityError(
                f"scoring by {self.method_!r} gives no probabilities; use an LLM that scores text (local does) with "
                "scoring='auto', 'direct' or 'channel'"
            )
        table = np.full((0, len(self.classes_)), np.nan)
        rows = [
            [np.nan] * len(self.classes_) if one.probabilities is None else list(one.probabilities.values())
            for one in self.classify(images)
        ]
        return np.asarray(rows, dtype=np.float64) if rows else table

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
        self._check_fitted()
        sources, truths = calibrating.check_images(self, images, labels)
        twin = calibrating.raw_twin(self)
        if out is None:
            shares = calibrating.shares_of(twin.classify(sources))
        else:
            from icl_vision.tasks.many import classify_many

            shares = calibrating.shares_in(classify_many(twin, sources, out, resume=resume, progress=self.progress))
        self.probability_map_ = calibrating.map_of(shares, truths, self.llm_)
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
        sources, expected = as_sources(images, single=True), as_labels(labels)
        if len(sources) != len(expected) or not sources:
            raise UsageError(
                f"score needs as many labels as images, and at least one; got "
                f"{counted(len(sources), 'image')} and {counted(len(expected), 'label')}"
            )
        # Truths may be spelled in other characters than those of ``fit`` (names of folders are, on some file systems).
        own = {_spelling(label): label for label in self.classes_} if hasattr(self, "classes_") else {}
        wanted = [own.get(_spelling(label), label) for label in expected]
        return float(np.mean([got == want for got, want in zip(self.predict(sources), wanted, strict=True)]))

    def __call__(self, images: Images) -> Label | list[Label | None] | None:
        """The label of one image, or a list of labels for a sequence."""
        labels = self.predict(images)
        return labels[0] if is_image_source(images) else labels

    def __str__(self) -> str:
        if not hasattr(self, "classes_"):
            return f"{self!r}, not fitted: call fit(images, labels), or fit(folder) with a sub-folder for each class"
        names = ", ".join(str(label) for label in self.classes_[:MOST_NAMED])
        more = f" and {len(self.classes_) - MOST_NAMED} more" if len(self.classes_) > MOST_NAMED else ""
        k = "" if self._fitted["k"] is None else f", k={self._fitted['k']}"
        return (
            f"{type(self).__name__} of {counted(len(self.classes_), 'class', 'classes')} ({names}{more}) from "
            f"{counted(len(self.examples_), 'example')}: words of {self.tokenizer_.name}{k}, read by "
            f"{self.llm_.profile.name}, scoring {self.method_}"
        )

    def _repr_html_(self) -> str:
        from icl_vision.viz.notebook import classifier_html  # the named lazy exception: what is shown is viz's

        return classifier_html(self)

    def words_of(self, image: ImageSource) -> list[list[str]]:
        """The words of one image, a list per layer."""
        self._check_fitted()
        (pyramid,) = self.tokenizer_.encode([image], self._fitted["k"])
        return [list(layer) for layer in _layers(pyramid)]

    def prompt_for(self, image: ImageSource) -> Inquiry:
        """What would be sent to the LLM about this image; ``print`` shows it. Nothing is sent."""
        self._check_fitted()
        (pyramid,) = self.tokenizer_.encode([image], self._fitted["k"])
        return self._asker.inquiry(self._prepared_for(pyramid), self.tokenizer_.to_text(pyramid))

    def as_tool(
        self,
        name: str = "classify_image",
        description: str | None = None,
        *,
        images: Mapping[str, ImageSource] | None = None,
        root: str | os.PathLike[str] | None = None,
        allow_paths: bool = False,
    ) -> TaskTool:
        """This classifier as a LangChain tool: one argument ``image``, an answer in words, and a ``Classification``.

        What its argument may name is decided here, since a language model writes it: ids of ``images``; with ``root``,
        image files in that folder too; with ``allow_paths``, any file. Everything else is refused, in words the model
        can act on, as is an image that cannot be used. An LLM that fails is raised.

        Args:
            name, description: what the agent's model reads; None describes the task by the labels.
            images: an ``icl_vision.integrations.langchain.ImageRegistry``, or any mapping of ids to images; None makes
                an empty registry, to be filled through the tool's ``images``.
            root: a folder; its files are named by their path relative to it.
            allow_paths: let the model open any image file that this process can read.

        Raises:
            NotFittedError: before ``fit``. MissingExtraError: LangChain is not installed.
            UsageError: a name that providers refuse, or a root that is no folder.
        """
        from icl_vision.integrations.langchain import classifier_tool

        self._check_fitted()
        return classifier_tool(self, name, description, images=images, root=root, allow_paths=allow_paths)

    # For runs over many images, and what they would cost.

    def read(self, images: Images) -> Lot:
        """Everything that happens before the LLM is asked: the words of each image, and which share a prompt.

        For runs and plans; ``classify`` does this, then ``ask``.

        Raises:
            NotFittedError: before ``fit``. ImageError: an image that cannot be used, unless ``errors="return"``.
        """
        self._check_fitted()
        sources = as_sources(images, single=True)
        with progress_bar(len(sources), "words", self.progress) as done:
            words = encode(
                self.tokenizer_,
                sources,
                self._fitted["k"],
                batch_size=self.batch_size,
                keep_errors=self.errors == "return",
                done=done,
            )
        groups: dict[str, Together] = {}
        for number, pyramid in enumerate(words):
            if not isinstance(pyramid, Exception):
                prepared = self._prepared_for(pyramid)
                # By what is sent, so that images for which "nearest" chose the same examples share a prefix after all.
                group = groups.setdefault(prepared.context, Together(prepared))
                group.numbers.append(number)
                group.texts.append(self.tokenizer_.to_text(pyramid))
        return Lot(words, [*groups.values()])

    async def ask(
        self, lot: Lot, on_result: Callable[[int, Classification], Awaitable[None]] | None = None
    ) -> list[Classification]:
        """Ask about images that were read; for runs, see ``read``. To be awaited on the library's event loop.

        on_result: awaited with each image's number and result as soon as it is known, before anything else is asked in
            its stead; what it raises ends everything.

        Raises:
            LLMError, PromptTooLongError, UnknownAnswerError: unless ``errors="return"``.
        """
        self._check_fitted()
        keep_errors, on_unknown = self.errors == "return", self.on_unknown
        labels, calibration = self._asker.labels, self._calibration()
        spelled = [str(label) for label in self.classes_]
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
            result = verdict(
                reply, _layers(pyramid), self.method_, labels, unknown_is_error=known, calibration=calibration
            )
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

        for number, result in lot.unusable:
            await keep(number, result)
        with progress_bar(len(lot.words) - len(lot.unusable), "answers", self.progress) as done:
            await self._asker.ask(lot.inquiries, keep_errors=keep_errors, done=done, read=judge)
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
        self._check_fitted()
        llm = self.llm_
        if not isinstance(llm, DryLLM):
            raise UsageError(f"a plan needs a classifier fitted with llm=DryLLM(connect(...)); got {llm!r}")
        llm.begin()
        lot = self.quietly().read(images)
        if self.tokenizer_.vocabulary is not None:
            llm.whole = frozenset(self.tokenizer_.vocabulary)
        return self._asker.plan(llm, lot.inquiries, [result for _, result in lot.unusable], prices)

    def plan_calibration(
        self, images: Iterable[ImageSource], labels: Iterable[Label], prices: PriceTable | None = None
    ) -> Plan:
        """What ``calibrate_probabilities(images, labels)`` would send and cost; it refuses what that would refuse.

        Raises:
            UsageError, CapabilityError, ImageError: as ``calibrate_probabilities``, and as ``plan``.
        """
        self._check_fitted()
        sources, _ = calibrating.check_images(self, images, labels)
        return self.plan(sources, prices)

    def run_config(self) -> dict[str, Any]:
        """What decides the answers of this fitted classifier, as plain JSON: a run goes on only with the same.

        Raises:
            NotFittedError: before ``fit``.
        """
        self._check_fitted()
        options, asker, calibration = self._fitted, self._asker, self._calibration()
        prepared = asker.shared or self._prepared_of(choosing.first_of_each(self.examples_, options["shots"]))
        examples = [[example.label, example.text] for example in self.examples_]
        # A prompt with everything in it: template, induction, order, repeats.
        prompt = str(asker.inquiry(prepared, self.examples_[0].text))
        return {
            "llm": str(getattr(self.llm_, "identity", self.llm_.profile.name)),
            "tokenizer": {"name": self.tokenizer_.name, "hash": fingerprint(self.tokenizer_)},
            "k": options["k"],
            "method": asker.method,
            "calibration": options["calibration"],
            "selection": options["selection"],
            "shots": options["shots"],
            "on_unknown": self.on_unknown,
            "order_seed": options["order_seed"],
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

    @property
    def at_once(self) -> int:
        """Requests that may be in flight together, as it was fitted."""
        self._check_fitted()
        return self._asker.concurrency

    # Keeping it.

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the options, classes and words to a JSON file (no images, no keys), whole or not at all.

        An LLM or tokenizer given as an object is written by its name; see ``load``.

        Raises:
            NotFittedError: before ``fit``. StorageError: the file cannot be written.
        """
        from icl_vision.tasks.classify.saving import save

        self._check_fitted()
        save(self, path)

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        *,
        llm: str | TextLLM | None = None,
        tokenizer: str | os.PathLike[str] | Tokenizer | None = None,
        templates: str | os.PathLike[str] | None = None,
        trust: bool = False,
    ) -> Self:
        """The classifier that ``save`` wrote, fitted.

        Args:
            llm, tokenizer: used instead of those written; needed where they were objects that a name cannot bring back.
            templates: a folder of templates, used instead of the one written, whatever its texts say.
            trust: follow the file's names wherever they lead. Without it only packaged things, ``openai:MODEL`` and
                ``anthropic:MODEL`` are taken from the file; a server, a LangChain model, a path or a hub id is yours
                to pass, since a file from somebody else could name any.

        Raises:
            UntrustedNameError: the file names something that leads elsewhere.
            TemplateError: a template says something else than when the file was saved.
            StorageError: no such file, damaged, or of a version this library does not read.
            ArtefactError: the tokenizer is not the one that made the words (by hash).
        """
        from icl_vision.tasks.classify.saving import load

        return load(cls, path, llm=llm, tokenizer=tokenizer, templates=templates, trust=trust)

    def __getstate__(self) -> dict[str, Any]:
        """For pickle (joblib, processes): options, classes and words; connections and sessions are made anew."""
        if not hasattr(self, "classes_"):
            return super().__getstate__()
        kept = ("classes_", "examples_", "probability_map_", "_fitted")
        state: dict[str, Any] = hidden(self.get_params() | {name: getattr(self, name) for name in kept})
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        if "_fitted" in state:
            # As it was fitted, not as set_params may have left it since.
            self.__dict__.update(state["_fitted"])
            self._finish(self._connect_llm(), self._connect_tokenizer(), self.classes_, self.examples_)
            self.__dict__.update({name: state[name] for name in self._fitted})
            self.probability_map_ = state["probability_map_"]

    def __copy__(self) -> Self:
        twin = type(self).__new__(type(self))
        twin.__dict__.update(self.__dict__)
        return twin

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        # An LLM and a tokenizer are shared, as by scikit-learn's clone; nothing fitted is ever changed in place.
        return self.__copy__()

    # Steps.

    def quietly(self) -> Self:
        """The same classifier, fitted as it is, that returns errors in place and shows no progress of its own."""
        twin = copy.copy(self)
        twin.errors, twin.progress = "return", False
        return twin

    def _connect_llm(self) -> TextLLM:
        return connect(self.llm)

    def _connect_tokenizer(self) -> Tokenizer:
        if isinstance(self.tokenizer, str | os.PathLike):
            from icl_vision.tokenizers import ImageTokenizer

            return ImageTokenizer.from_pretrained(os.fspath(self.tokenizer))
        # Not isinstance(..., Tokenizer): that would look at every property, and a codebook may be slow to load.
        if isinstance(self.tokenizer, type) or not all(
            callable(getattr(self.tokenizer, name, None)) for name in ("encode", "to_text")
        ):
            raise UsageError(
                f"tokenizer must be a name, a folder or an ImageTokenizer; got {type(self.tokenizer).__name__}"
            )
        return self.tokenizer

    def _plan(self, llm: TextLLM, labels: Sequence[str]) -> tuple[PromptBuilder, ScoringMethod]:
        builder = PromptBuilder(
            self.template,
            folder=self.templates,
            induction=self.induction,
            repeats=int(self.repeats),
            order_seed=None if self.order_seed is None else int(self.order_seed),
        )
        method = ladder.choose_method(self.scoring, llm.profile, builder, labels)
        if self.calibration is not None and method not in ("channel", "direct"):
            raise CapabilityError(
                f"calibration={self.calibration!r} needs log-probabilities, but scoring is {method!r} "
                f"with the LLM {llm.profile.name!r}; use calibration=None, or an LLM that scores text (local does)"
            )
        ladder.choose_ensemble(
            self.ensemble, method, llm.profile
        )  # raises, before any image is opened, where it cannot be had
        return (builder.channel() if method == "channel" else builder), method

    def _check_fitted(self) -> None:
        if not hasattr(self, "classes_"):
            raise NotFittedError(f"this {type(self).__name__} is not fitted yet; call fit(images, labels) first")
        # What a call reads anew; everything else is as it was fitted, whatever set_params says since.
        check_choice("on_unknown", self.on_unknown, ("abstain", "raise"))
        check_choice("errors", self.errors, ("raise", "return"))
        check_count("batch_size", self.batch_size, least=1)
        check_flag("progress", self.progress, none=True)

    def _calibration(self) -> ProbabilityMap | None:
        """What makes probabilities of scores in this call; None leaves them raw."""
        check_choice("probabilities", self.probabilities, ("calibrated", "raw"))
        return self.probability_map_ if self.probabilities == "calibrated" else None

    def _own_label(self, one: Classification) -> Label | None:
        return None if one.label is None else self.classes_[[str(label) for label in self.classes_].index(one.label)]

    def _prepared_of(self, examples: Sequence[SupportExample]) -> Shown:
        alone = ladder.choose_ensemble(self._fitted["ensemble"], self.method_, self.llm_.profile)
        return _prepare(self._builder, examples, self._asker.labels, alone=alone)

    def _prepared_for(self, pyramid: TokenPyramid) -> Shown:
        if self._neighbours is not None:
            return self._prepared_of(self._neighbours.of(pyramid, self._fitted["shots"]))
        assert self._asker.shared is not None  # all share one unless selection="nearest"
        return self._asker.shared


def _prepare(
    builder: PromptBuilder, examples: Sequence[SupportExample], labels: Sequence[str], *, alone: bool
) -> Shown:
    """All examples in one prompt, or each alone in its own."""
    shown = [Example(one.text, labels[one.label]) for one in examples]
    return Ensemble.of(builder, shown, labels) if alone else builder.prepare(shown, labels)


def _spelling(label: Label) -> Label:
    return composed(label) if isinstance(label, str) else label


def _layers(pyramid: TokenPyramid) -> tuple[tuple[str, ...], ...]:
    return tuple(tuple(pyramid.words(layer)) for layer in range(1, len(pyramid.ids) + 1))
