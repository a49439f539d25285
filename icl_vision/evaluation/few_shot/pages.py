"""From the items of some episodes to a page that shows every one of them.

Knows: which value of an item goes where on the page. Refuses to know: HTML (that is ``viz``), and files but images.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from icl_vision.evaluation.few_shot.baselines import ROWS
from icl_vision.evaluation.few_shot.scorers import LADDER
from icl_vision.viz.few_shot_page import (
    EpisodeView,
    FewShotPage,
    PromptView,
    QueryTile,
    SupportTile,
    render_few_shot_page,
)

if TYPE_CHECKING:
    from icl_vision.contracts import ScoringMethod
    from icl_vision.evaluation.few_shot.episodes.drawing import ImageFolder
    from icl_vision.evaluation.kit.metrics import Accuracy

NOTES: Mapping[str, str] = {
    "channel": "The words of the photograph are scored after each label, one by one where | stands between them. The "
    "label after which they are likeliest wins (noisy channel); the percentages are the labels' shares.",
    "direct": "After this, the likelihood of each label decides; the percentages are the labels' shares.",
    "constrained": "The model continues here, and can write nothing but one of the labels.",
    "parse": "The model continues here; a label is looked for in what it writes.",
}

Item = Mapping[str, Any]
"""An item as ``items.ItemMaker`` makes it."""


def few_shot_page(
    episodes: Sequence[Sequence[Item]],
    folder: ImageFolder,
    *,
    method: ScoringMethod,
    result: Accuracy,
    baselines: Mapping[str, Accuracy],
    title: str,
    llm: str,
    facts: Mapping[str, object] | None = None,
    attribution: str = "",
) -> str:
    """The episodes and what they came to as one self-contained HTML page.

    Args:
        episodes: the items of each: one a query, one at least.
        folder: where the images lie.
        method: the rung of the classifier's ladder by which the LLM was asked: the row ``LADDER[method]`` is shown.
        result: of that row. baselines: row -> accuracy.
        title: the page's title.
        llm: the LLM's name for people.
        facts: name -> value, for the foot of the page.
        attribution: whose photographs these are.
    """
    row = LADDER[method].name
    items = [item for episode in episodes for item in episode]
    # The one whose photograph heads the page: answered rightly, where any was.
    shown = next((item for item in items if item["answers"][row]["right"]), items[0] if items else None)
    return render_few_shot_page(
        FewShotPage(
            title=title,
            llm=llm,
            result=result.to_dict(),
            baselines={name: accuracy.to_dict() for name, accuracy in baselines.items()},
            legend={name: ROWS[name].meaning for name in baselines},
            episodes=[_episode(queries, row, folder) for queries in episodes],
            prompt=None if shown is None else _prompt(shown, row, method),
            facts=facts or {},
            attribution=attribution,
        )
    )


def _episode(items: Sequence[Item], row: str, folder: ImageFolder) -> EpisodeView:
    return EpisodeView(
        items[0]["labels"],
        [SupportTile(folder.path(tile["image"]), tile["words"], tile["label"]) for tile in items[0]["support"]],
        [
            QueryTile(
                folder.path(item["query"]["image"]),
                item["query"]["words"],
                item["query"]["label"],
                item["answers"][row]["label"],
                item["answers"][row]["probabilities"],
            )
            for item in items
        ],
    )


def _prompt(item: Item, row: str, method: ScoringMethod) -> PromptView:
    """The prompt as sent, and what it came to: the share of each label, or what the LLM wrote."""
    result = item["answers"][row]
    shares = result["probabilities"]
    weighed = [(result["raw"] or "", None)] if shares is None else [(label, shares[label]) for label in sorted(shares)]
    return PromptView(item["prompts"]["channel" if row == "likelihood" else "open"], weighed, NOTES[method])
