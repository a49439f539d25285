"""A plan counts what would be sent, prices it by the user's table, and asks nothing."""

from __future__ import annotations

import pytest

from icl_vision.contracts import Profile
from icl_vision.errors import UsageError
from icl_vision.llms import Price, PriceTable, connect
from icl_vision.llms.base import BaseLLM
from icl_vision.llms.loop import run_sync
from icl_vision.llms.tokens import count_tokens
from icl_vision.llms.wrappers.dry import DryLLM
from icl_vision.tasks import FewShotClassifier


class Remote(BaseLLM):
    """Looks like a provider's model from outside; asking it is a mistake."""

    def __init__(self, **facts):
        self.facts = facts

    @property
    def profile(self):
        return Profile("somewhere:model", **self.facts)

    def most_tokens(self, max_tokens, constraint):
        return max_tokens + 100

    def marks_prefix(self, prompt):
        return self.facts.get("prompt_cache") == "cache_control"

    async def _complete(self, prompt, **settings):
        raise AssertionError("a plan must not ask")

    async def _score(self, pairs, *, terminator):
        raise AssertionError("a plan must not ask")


@pytest.fixture
def planned(support, tokenizer, queries):
    def make(llm, prices=None, images=None, **options):
        clf = FewShotClassifier(DryLLM(llm), tokenizer, k=3, progress=False, **options).fit(*support)
        return clf.plan(queries[0] if images is None else images, prices), clf

    return make


def total(clf, images, count):
    prompts = [question.pairs[0][0] for question in map(clf.prompt_for, images)]
    return sum(count(prompt.prefix) + count(prompt.query) for prompt in prompts), count(prompts[0].prefix)


def estimated(text):
    return count_tokens(text, "somewhere:model").tokens


def test_what_a_writing_llm_would_be_sent(planned, queries):
    found, clf = planned(Remote())
    prompts, _ = total(clf, queries[0], estimated)
    room = clf.fitted.asker.room
    assert (found.queries, found.usage.requests, found.facts["method"]) == (4, 4, "parse")
    assert found.usage.prompt_tokens == prompts
    assert found.usage.completion_tokens == 4 * (room + 100)
    assert found.usage.cached_tokens == found.usage.cache_write_tokens == 0  # nothing is known of a cache
    assert not found.exact and found.counted_by == "estimate"
    assert found.cost.amount is None and "no price for 'somewhere:model'" in found.cost.reason
    document = found.to_dict()
    assert document["cost_at_most"]["amount"] is None and "no price" in document["cost_at_most"]["reason"]
    assert document["requests"] == 4 and document["tokens_exact"] is False
    assert "estimated: the model's own tokenizer was not asked" in str(found) and "unknown (no price for" in str(found)


def test_the_fixed_part_is_read_from_the_cache_by_all_but_the_first(planned, queries):
    table = PriceTable({"model": Price(10, 100, cache_read=1, cache_write=20)})
    found, clf = planned(Remote(prompt_cache="cache_control", prompt_cache_minimum=10), table)
    prompts, fixed = total(clf, queries[0], estimated)
    usage = found.usage
    assert usage.cached_tokens == 3 * fixed and usage.cache_write_tokens == fixed
    money = (prompts - 4 * fixed) * 10 + 3 * fixed * 1 + fixed * 20 + usage.completion_tokens * 100
    assert found.cost.amount == pytest.approx(money / 1e6)
    assert found.cost_uncached.amount == pytest.approx((prompts * 10 + usage.completion_tokens * 100) / 1e6)
    assert f"at most {found.cost.amount:.4f}" in str(found)
    small, _ = planned(Remote(prompt_cache="key", prompt_cache_minimum=100_000), table)
    assert small.usage.cached_tokens == 0
    unpriced, _ = planned(Remote(prompt_cache="key"), PriceTable({"model": Price(10, 100)}))
    assert unpriced.usage.cache_write_tokens == 0  # only where the provider is shown the prefix
    assert unpriced.cost.amount is None and "no cache_read price" in unpriced.cost.reason
    assert unpriced.cost_uncached.amount is not None


def test_a_scoring_llm_gets_a_request_for_every_label(planned):
    found, _ = planned(Remote(scores_text=True), ensemble=None)
    assert (found.facts["method"], found.usage.requests, found.usage.completion_tokens) == ("channel", 4 * 3, 0)
    alone, _ = planned(Remote(scores_text=True), ensemble="examples")
    assert (alone.facts["method"], alone.usage.requests) == ("channel", 4 * 6 * 3)  # queries, examples, words
    calibrated, _ = planned(Remote(scores_text=True), calibration="contextual", scoring="direct")
    assert calibrated.usage.requests == (4 + 3) * 3


def test_words_after_one_prompt_take_two_requests_where_the_llm_scores_bags(planned, queries):
    images = queries[0] * 5  # 20 images: two calls, each with every example's prompt once
    found, clf = planned(Remote(scores_text=True, scores_bags=True, prefix_cache=True), images=images)
    prompts = [prompt for prompt, _ in dict.fromkeys(clf.prompt_for(images[0]).pairs)]
    tokens = {prompt.text: estimated(prompt.prefix) + estimated(prompt.query) for prompt in prompts}
    # And what all prompts begin with, before the first call leaves it in the cache.
    assert found.usage.requests == 1 + 2 * 2 * len(tokens) == 1 + 2 * 2 * 6
    assert found.usage.prompt_tokens == 1 + 2 * 2 * sum(tokens.values())
    assert found.usage.prompt_tokens - found.usage.cached_tokens <= 2 * sum(tokens.values())
    # Whole continuations are forced token by token: words, line end and all.
    whole, _ = planned(Remote(scores_text=True, scores_bags=True), images=queries[0][:1], ensemble=None)
    assert whole.usage.requests == 1 + 3 * (3 + 1) and whole.usage.cached_tokens == 0


def test_neighbours_have_a_prefix_each(planned):
    shared, _ = planned(Remote(prefix_cache=True))
    own, _ = planned(Remote(prefix_cache=True), selection="nearest", shots=1)
    assert own.usage.cached_tokens < shared.usage.cached_tokens


def test_images_that_cannot_be_asked_about(planned, queries, tmp_path):
    found, _ = planned(Remote(), images=[*queries[0], tmp_path / "gone.png"])
    assert found.queries == 4 and len(found.unusable) == 1 and "(1 unusable)" in str(found)
    assert "gone.png" in str(found.unusable[0].error)


def test_exact_counts_say_so(planned, monkeypatch):
    from icl_vision.llms import tokens

    monkeypatch.setattr(tokens, "_counter", lambda encoding: lambda text: len(text.split()))
    found, _ = planned(Remote(tokenizer="o200k_base"))
    assert found.exact and found.counted_by == "o200k_base" and "counted with o200k_base" in str(found)


def test_no_key_and_no_network_are_needed(planned, monkeypatch):
    for name in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    for spec in ("openai:gpt-4o-mini", "anthropic:claude-haiku-4-5", "openai-compatible:m@http://127.0.0.1:9/v1"):
        found, _ = planned(connect(spec))
        assert found.usage.requests == 4 and found.usage.prompt_tokens > 100 and found.model == spec


def test_a_dry_llm_never_answers(planned, support, tokenizer):
    llm = DryLLM(Remote(scores_text=True))
    for ask in (llm.complete("x"), llm.score([(llm_prompt(), " y")])):
        with pytest.raises(UsageError, match="'somewhere:model' is only planned with here and is never asked"):
            run_sync(ask)
    clf = FewShotClassifier(Remote(), tokenizer, k=3).fit(*support)
    with pytest.raises(UsageError, match=r"fitted with llm=DryLLM"):
        clf.plan([])


def llm_prompt():
    from icl_vision.contracts import Prompt

    return Prompt("", "", "x")
