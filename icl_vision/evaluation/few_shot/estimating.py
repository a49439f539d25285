"""What a benchmark would ask: the first episode of each series is prepared as it would be, and nobody is asked.

Knows: what one episode stands for, and what a run has already. Refuses to know: where episodes come from, and money.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING

from icl_vision.evaluation.few_shot.config import Estimate
from icl_vision.evaluation.few_shot.items import item_id
from icl_vision.evaluation.kit.journalling import Failed

if TYPE_CHECKING:
    from icl_vision.evaluation.few_shot.episodes.drawing import Episode
    from icl_vision.evaluation.few_shot.items import ItemMaker
    from icl_vision.evaluation.few_shot.settings import Setting
    from icl_vision.evaluation.few_shot.shared_answers import UnaskedLLM


def estimate(
    maker: ItemMaker,
    llm: UnaskedLLM,
    firsts: Mapping[int, Episode],
    settings: Sequence[Setting],
    *,
    episodes: int,
    done: Collection[str] = (),
) -> Estimate:
    """What is left to ask.

    Args:
        maker: of items, with ``llm`` in place of every LLM.
        llm: counts.
        firsts: ways -> the series' first episode, which stands for the others.
        settings: every episode is asked in those of its ways.
        episodes: in each series.
        done: ids of items that a run has already.

    Raises:
        ImageError: an image of the first episodes cannot be used.
    """
    items = requests = tokens = saved = written = lacking = 0
    # Asked once as an episode with controls and once as one without, each standing for those like it.
    controlled = min(episodes, maker.variant_episodes) if maker.variants else 0
    for ways, episode in firsts.items():
        own = [setting for setting in settings if setting.ways == ways]
        for number, alike in ((0, range(controlled)), (maker.variant_episodes, range(controlled, episodes))):
            missing = [[setting for setting in own if item_id(other, setting) not in done] for other in alike]
            counts = Counter(setting for settings_of in missing for setting in settings_of)
            lacking += sum(map(bool, missing))
            before = llm.fixed_tokens
            for setting, document in maker.items(number, episode, [setting for setting in own if counts[setting]]):
                if isinstance(document, Failed):
                    raise document.error
                count, usage = counts[setting], document["usage"]
                items += count
                requests += count * usage["requests"]
                tokens += count * usage["prompt_tokens"]
                written += count * usage["completion_tokens"]
                saved += count * (llm.fixed_tokens - before)
                before = llm.fixed_tokens
            llm.forget()
    return Estimate(items, requests, tokens, tokens - saved, written, llm.exact, lacking)
