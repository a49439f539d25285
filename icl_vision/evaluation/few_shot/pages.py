"""From a few-shot report to its page.

Knows: which value of a report goes where on the page. Refuses to know: HTML (that is ``viz``), and files but images.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from icl_vision.evaluation.few_shot.evaluation import MEANING, EpisodeResult, FewShotReport
from icl_vision.viz.few_shot_page import (
    EpisodeView,
    FewShotPage,
    PromptView,
    QueryTile,
    SupportTile,
    render_few_shot_page,
)

if TYPE_CHECKING:
    from icl_vision.evaluation.few_shot.episodes.drawing import ImageFolder

NOTES: Mapping[str, str] = {
    "channel": "After these lines each label is put in turn, followed by the words of the photograph. The label after "
    "which the words are likeliest wins (noisy channel); the percentages are the labels' shares.",
    "direct": "After this, the likelihood of each label decides; the percentages are the labels' shares.",
    "constrained": "The model continues here, and can write nothing but one of the labels.",
    "parse": "The model continues here; a label is looked for in what it writes.",
}


def few_shot_page(
    report: FewShotReport,
    folder: ImageFolder,
    *,
    title: str,
    llm: str,
    facts: Mapping[str, object] | None = None,
    attribution: str = "",
) -> str:
    """The report as one self-contained HTML page.

    Args:
        report: finished episodes and their accuracies.
        folder: where the images lie.
        title: the page's title.
        llm: the LLM's name for people.
        facts: name -> value, for the foot of the page.
        attribution: whose photographs these are.
    """
    return render_few_shot_page(
        FewShotPage(
            title=title,
            llm=llm,
            result=report.result.to_dict(),
            baselines={name: accuracy.to_dict() for name, accuracy in report.baselines.items()},
            legend=MEANING,
            episodes=[_episode(result, folder) for result in report.episodes],
            prompt=_prompt(_shown(report)) if report.episodes else None,
            facts=facts or {},
            attribution=attribution,
        )
    )


def _episode(result: EpisodeResult, folder: ImageFolder) -> EpisodeView:
    return EpisodeView(
        result.episode.labels,
        [
            SupportTile(folder.path(item), words, item.label)
            for item, words in zip(result.episode.support, result.support_words, strict=True)
        ],
        [
            QueryTile(
                folder.path(query.item),
                query.words,
                query.item.label,
                query.classification.label,
                query.classification.probabilities,
            )
            for query in result.queries
        ],
    )


def _shown(report: FewShotReport) -> EpisodeResult:
    """The first episode with a right answer, else the first: the one whose query heads the page."""
    return next((one for one in report.episodes if one.queries[one.example].right), report.episodes[0])


def _prompt(result: EpisodeResult) -> PromptView:
    question, answer = result.question, result.queries[result.example].classification
    shares = answer.probabilities or {}
    first = question.pairs[0][0]
    if question.shown:
        # Each example alone: the prompts one under the other, and what they came to for each label.
        return PromptView(str(question), [(label, shares.get(label)) for label in question.labels], NOTES["channel"])
    if question.method == "channel":
        asked = [
            (prompt.query + continuation, shares.get(label))
            for label, (prompt, continuation) in zip(question.labels, question.pairs, strict=True)
        ]
        return PromptView(first.prefix, asked, NOTES["channel"])
    if question.method == "direct":
        asked = [
            (continuation, shares.get(label))
            for label, (_, continuation) in zip(question.labels, question.pairs, strict=True)
        ]
        return PromptView(first.text, asked, NOTES["direct"])
    return PromptView(first.text, [(answer.text, None)], NOTES[question.method])
