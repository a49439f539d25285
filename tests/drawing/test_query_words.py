"""A query's own words beside those of its stage (``Query.also``), and run folders where conditions are pictures."""

from __future__ import annotations

from pathlib import Path

import pytest
from drawn_pictures import SMALL, WORDS, picture

from icl_vision.drawing import Pair, ProgressiveDecoder, Query, Stage
from icl_vision.errors import UnknownWordError, UsageError
from icl_vision.llms.fake import FakeLLM

PAIRS = [Pair(picture(seed, SMALL), picture(seed + 10, SMALL)) for seed in range(3)]
STAGES = (Stage(stride=2, allowed="place", condition="same"),)


def test_only_its_own_query_may_have_them_and_on_their_layer_only() -> None:
    own = next(word for word in WORDS.words if all(word not in pair.target.words() for pair in PAIRS))
    llm = FakeLLM(own, constraint="logit_bias")
    decoder = ProgressiveDecoder(llm, STAGES, asks=1, errors="return")
    with_it = Query(picture(5, SMALL), name="with", also={1: [own]})
    drawings = decoder.decode_sync(PAIRS, [with_it, Query(picture(5, SMALL), name="without")])
    assert drawings[0].words[0] == own and drawings[0].words[1] is None
    assert drawings[1].words[0] is None


def test_a_run_folder_takes_conditions_that_are_pictures(tmp_path: Path) -> None:
    decoder = ProgressiveDecoder(FakeLLM(constraint="logit_bias"), STAGES)
    queries = [Query(picture(5, SMALL))]
    with decoder.open_run(tmp_path, PAIRS) as run:
        (drawing,) = decoder.decode_sync(PAIRS, queries, run=run)
    with decoder.open_run(tmp_path, PAIRS, resume=True) as run:
        assert decoder.decode_sync(PAIRS, queries, run=run)[0].words == drawing.words


def test_bad_input() -> None:
    decoder = ProgressiveDecoder(FakeLLM(), STAGES)
    with pytest.raises(UsageError, match="also gives words by layer, 1 to 2; got layer 3"):
        decoder.plan(PAIRS, [Query(picture(5, SMALL), also={3: ["ball"]})])
    with pytest.raises(UnknownWordError, match="nonesuch"):
        decoder.plan(PAIRS, [Query(picture(5, SMALL), also={1: ["nonesuch"]})])
