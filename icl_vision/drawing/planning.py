"""What drawing would send and cost, without asking anything.

Knows: requests and tokens of each pass, which of them a prefix cache would serve. Refuses to know: answers.

Expected, not at most: every segment is taken to be answered at the first request, in as many tokens as the longest
example. Asking again adds to that, up to ``asks`` requests a segment and candidate. Pictures, and candidates, are taken
to be different: where their words turn out alike, what was asked about one of them is not asked again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import groupby

from icl_vision.asking.plan import Plan
from icl_vision.contracts import Constraint, TextLLM, Usage
from icl_vision.drawing.passes import Pass, SegmentPrompts
from icl_vision.drawing.stages import Decoding
from icl_vision.llms.cost import PriceTable
from icl_vision.llms.wrappers.dry import DryLLM
from icl_vision.llms.wrappers.wrapped import llama_lead, places_apart

ADVICE = "use fewer queries or examples, a larger stride, fewer layers, or a smaller window (given=Near())"
REMARKS = {
    "requests": "more where an answer has to be asked for again, fewer where words are alike",
    "  of them cached": "estimate: the fixed part of all but each pass's first",
}


@dataclass(frozen=True, slots=True)
class PassPlan:
    """One pass: its number, stage (from 1), layer of its first word, words, words shown, wave (from 1); its requests
    and the tokens of its longest prompt."""

    number: int
    stage: int
    layer: int
    words: int
    shown: int
    wave: int
    requests: int
    longest_prompt: int


def plan_of(
    prompts: SegmentPrompts,
    llm: TextLLM,
    *,
    word_by_word: Callable[[Decoding, bool], bool],
    constraint: Callable[[Pass, int], Constraint | None] = lambda pass_, number: None,
    scored: bool = True,
    prices: PriceTable | None = None,
    done: Callable[[str], bool] = lambda item: False,
) -> Plan:
    """The plan of all passes; ``Plan.passes`` holds a ``PassPlan`` for each.

    Args:
        llm: who would be asked; it is not.
        word_by_word: whether words are chosen by their log-probabilities, from settings and whether there is guidance.
        constraint: what an answer about a segment of a query (from 0) is restricted to.
        scored: whether the best of several candidates is chosen by likelihood, which asks once more for each.
        prices: of models, by name; None knows none.
        done: whether a run folder has the answer of an item already.
    """
    dry = DryLLM(llm)
    profile = llm.profile
    kept = profile.prompt_cache is not None or profile.prefix_cache
    dry.whole = frozenset(prompts.vocabulary.words)
    bag = 1 if getattr(llm, "tells_shares", False) else 2 if profile.scores_bags else None
    if bag == 2 and llama_lead(llm) == "always":
        bag = 3
    apart = places_apart(llm)
    usage = Usage()
    passes: list[PassPlan] = []
    drawn: set[int] = set()
    inquiries = 0
    for pass_ in prompts.passes:
        asked = [
            number
            for number, query in enumerate(prompts.queries)
            if prompts.wanted(pass_, query) and not done(prompts.item(number, pass_))
        ]
        drawn.update(asked)
        inquiries += len(asked)
        best_of = prompts.stages[pass_.stage].decoding.best_of
        fixed, longest, used = 0, 0, Usage()
        guided: set[tuple[str, tuple[str, ...]]] = set()  # distributions that are asked for, once each
        for number in asked:
            prompt = prompts.stand_in(pass_, prompts.queries[number])
            tokens, written = dry.count_prompt(prompt), prompts.segment_tokens(pass_)
            fixed, longest = dry.count(prompt.prefix) if prompt.prefix else 0, max(longest, tokens)
            against = prompts.stand_in_against(pass_, prompts.queries[number])
            if word_by_word(prompts.stages[pass_.stage].decoding, against is not None):
                # Word by word: one request gives the shares of all words of a place, or two their probabilities, or
                # each has one of its own. All queries and candidates share a distribution as long as nothing before it
                # was chosen; what is chosen is taken to be different every time.
                texts = {shown.text for shown in (prompt, against) if shown is not None}
                asks, new, said, chosen = 0, 0, "", False
                for words in prompts.sets(pass_, number):
                    if len(words) > 1:
                        keys = {(text + said, words) for text in texts}
                        if not (pass_.shown or chosen):
                            keys -= guided
                            guided |= keys
                        asks += len(keys) * (bag or len(words)) * (best_of if chosen else 1)
                        new, chosen = max(new, len(keys)), True
                    else:
                        said += f" {words[0]}"
                # Beyond the fixed part a prompt is read once; each word then adds itself.
                read_once = new * (tokens - fixed) + asks
                used += Usage(asks, asks * tokens, max(0, asks * tokens - read_once) if kept else 0, asks)
            else:
                asks = (_runs(constraint(pass_, number)) if apart else 1) * best_of
                used += Usage(asks, tokens * best_of, 0, written * best_of) if asks else Usage()
            if scored and best_of > 1:
                continuation = prompts.example_words(pass_)[0]
                used += sum((dry.scored(prompt, [continuation]) for _ in range(best_of)), Usage())
        if kept and used.requests > 1 and fixed >= profile.prompt_cache_minimum:
            held = max(used.cached_tokens, fixed * (used.requests - 1))
            used = replace(used, cached_tokens=min(held, used.prompt_tokens - fixed))
        usage += used
        passes.append(
            PassPlan(
                number=pass_.number,
                stage=pass_.stage + 1,
                layer=pass_.segment.layer,
                words=len(pass_.segment),
                shown=len(pass_.shown),
                wave=pass_.wave + 1,
                requests=used.requests,
                longest_prompt=longest,
            )
        )
    waves = len({pass_.wave for pass_ in passes if pass_.requests})
    return Plan(
        model=profile.name,
        queries=len(drawn),
        inquiries=inquiries,
        usage=usage,
        exact=dry.exact,
        counted_by=dry.how,
        cost=(prices or PriceTable()).cost(profile.name, usage),
        longest_prompt=max((pass_.longest_prompt for pass_ in passes), default=0),
        passes=tuple(passes),
        facts={"queries": len(drawn), "passes": len(passes), "waves": waves},
        lines=(
            ("pictures", f"{len(drawn):,}"),
            ("segments", f"{len(passes):,} a picture, in {waves:,} waves"),
        ),
        remarks=REMARKS,
        subject="drawing",
        advice=ADVICE,
    )


def _runs(constraint: Constraint | None) -> int:
    """Requests of an answer where each run of places with the same words takes one, and a single word none."""
    if constraint is None or not constraint.places:
        return 1
    return sum(len(words) > 1 for words, _ in groupby(constraint.places))
