"""The rows of an evaluation on tiny random parts: which states each draws from; captions that are measured."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny_t2i import TableEncoder, tiny_llm, tiny_parts

from icl_vision.errors import UsageError
from icl_vision.evaluation.text_to_image.evaluation import Settings
from icl_vision.text_to_image.captions import (
    COGNATES,
    TRAINED,
    UNSEEN,
    VALIDATION,
    Caption,
    trained_captions,
    training_captions,
)
from icl_vision.text_to_image.measured import BARE, SETS, captions_of, validation, wanted
from icl_vision.text_to_image.parts import save_parts
from icl_vision.text_to_image.pipeline import LLMTextToImage
from icl_vision.text_to_image.repadapter import AdapterConfig
from icl_vision.text_to_image.rows import (
    ENCODER,
    NEAREST_CHARACTERS,
    NEAREST_ENCODER,
    NEAREST_MAPPED,
    RANDOM,
    ROWS,
    SHUFFLED,
    STAGE1,
    STAGE2,
    OtherSystems,
    SystemRows,
)

ADAPTERS = AdapterConfig(blocks=1, hidden=4)
SETTINGS = Settings(2.0, "ddim", 2)
KNOWN = [
    Caption("draw seven", 7, "draw seven", "en", "draw {}"),
    Caption("the number zwei", 2, "the number two", "de", "the number {}"),
    Caption("the digit 3", 3, "the digit 3", "en", "the digit {}"),
]


def parts_in(folder: Path, *, adapters: bool = True, seed: int = 0) -> Path:
    """Random parts for the tiny LLM and the table of states."""
    return save_parts(folder, tiny_parts(adapters=adapters, kind="queries", seed=seed))


@pytest.fixture
def rows(tmp_path: Path) -> SystemRows:
    system = LLMTextToImage.from_pretrained(parts_in(tmp_path / "parts"), llm=tiny_llm())
    return SystemRows(system, TableEncoder(), KNOWN)


def drawn(rows: SystemRows, name: str, texts: list[str], seeds: list[int]) -> list[bytes]:
    return [image.tobytes() for image in rows.row(name).draw(texts, seeds, SETTINGS)]


def test_every_row_draws_and_from_other_states(rows: SystemRows) -> None:
    assert rows.names() == ROWS
    pictures = {name: drawn(rows, name, ["draw the number 5"], [3])[0] for name in ROWS}
    assert pictures[SHUFFLED] == pictures[STAGE2]  # the evaluation deals the captions out
    assert rows.row(SHUFFLED).shuffled and not rows.row(STAGE2).shuffled
    assert len({pictures[name] for name in (ENCODER, STAGE1, STAGE2, RANDOM)}) == 4
    assert rows.row(STAGE1).draw(["draw the number 5"], [3], SETTINGS)[0].size == (32, 32)


def test_stage_1_is_the_system_without_its_adapters_which_work_again_afterwards(rows: SystemRows) -> None:
    system = rows.system
    before = system.states(["draw seven"])
    plain = drawn(rows, STAGE1, ["draw seven"], [1])
    assert torch.equal(system.states(["draw seven"]), before)
    with system.unadapted():
        states = system.states(["draw seven"])
    own = system.draw_states(states, system.mapper.null, seed=[1], guidance=2.0, steps=2)
    assert [image.tobytes() for image in own] == plain


def test_what_is_drawn_away_from_comes_from_where_the_states_come_from(rows: SystemRows) -> None:
    encoder = rows.encoder
    assert encoder is not None
    own = rows.system.draw_states(
        encoder.encode(["draw seven"]), encoder.encode([""])[0], seed=[1], guidance=2.0, steps=2
    )
    assert drawn(rows, ENCODER, ["draw seven"], [1]) == [image.tobytes() for image in own]


def test_the_nearest_caption_is_drawn_by_its_english(rows: SystemRows) -> None:
    zwei = drawn(rows, ENCODER, ["the number two"], [1])
    assert drawn(rows, NEAREST_CHARACTERS, ["a number zwo"], [1]) == zwei
    assert drawn(rows, NEAREST_ENCODER, ["the number zwei"], [1]) == zwei
    targets = {caption.english: drawn(rows, ENCODER, [caption.english], [1])[0] for caption in KNOWN}
    (mapped,) = drawn(rows, NEAREST_MAPPED, ["the number zwei"], [1])
    states = rows.system.states(["the number zwei"])
    assert rows.encoder is not None
    distances = {one: float((rows.encoder.encode([one]) - states).square().sum()) for one in targets}
    assert mapped == targets[min(distances, key=distances.__getitem__)]


def test_a_mapper_that_was_never_trained_is_the_same_for_a_seed_and_tells_texts_apart(rows: SystemRows) -> None:
    state = torch.get_rng_state()
    first = drawn(rows, RANDOM, ["draw seven", "the number 3"], [1, 1])
    assert torch.equal(torch.get_rng_state(), state)
    assert first[0] != first[1]
    again = SystemRows(rows.system, TableEncoder(), KNOWN)
    assert drawn(again, RANDOM, ["draw seven", "the number 3"], [1, 1]) == first
    other = SystemRows(rows.system, TableEncoder(), KNOWN, seed=1)
    assert drawn(other, RANDOM, ["draw seven", "the number 3"], [1, 1]) != first


def test_rows_that_cannot_be_had_are_left_out(tmp_path: Path) -> None:
    bare = LLMTextToImage.from_pretrained(parts_in(tmp_path / "bare", adapters=False), llm=tiny_llm())
    rows = SystemRows(bare)
    assert rows.names() == (STAGE1, RANDOM, SHUFFLED)
    with pytest.raises(UsageError, match="there is no row 'stage 2' here; there are stage 1, random mapper"):
        rows.row(STAGE2)
    assert NEAREST_CHARACTERS not in SystemRows(bare, TableEncoder()).names()


def test_of_further_systems_one_at_a_time_is_open(tmp_path: Path) -> None:
    folders = [parts_in(tmp_path / name, seed=number, adapters=name != "c") for number, name in enumerate("abc")]
    met: list[Path] = []

    def open_one(folder: Path) -> LLMTextToImage:
        met.append(folder)
        return LLMTextToImage.from_pretrained(folder, llm=tiny_llm())

    others = OtherSystems(open_one)
    made = [others.row(folder.name, folder) for folder in folders]
    assert met == []
    pictures = [row.draw(["draw seven"], [1], SETTINGS)[0].tobytes() for row in made]
    made[2].draw(["draw seven"], [1], SETTINGS)
    assert met == folders and len(set(pictures)) == 3
    fair = others.row("fair", folders[0], ENCODER, TableEncoder())
    assert fair.draw(["draw seven"], [1], SETTINGS)[0].tobytes() not in pictures


# Captions -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SETS)
def test_captions_of_a_set_are_even_and_a_larger_number_has_those_of_a_smaller(name: str) -> None:
    everything = captions_of(name)
    few, more = wanted(name, 40), wanted(name, 60)
    assert set(few) <= set(more) and len(more) == min(60, len(everything))
    assert name in BARE or len(set(more)) == len(more)  # words alone are drawn from several seeds
    assert {one.digit for one in more} == {str(caption.digit) for caption in everything}
    if name in ("plain", "id"):
        counts = [sum(one.digit == str(digit) for one in few) for digit in range(10)]
        assert counts == [4] * 10


def test_targets_have_the_captions_they_ask_for() -> None:
    assert len(captions_of("id")) >= 300 and len({caption.template for caption in captions_of("id")}) >= 5
    assert len(captions_of("plain")) >= 300 and {caption.digit for caption in captions_of("id")} == set(range(10))
    assert {caption.language for caption in captions_of("cognates")} == set(COGNATES)
    assert not set(UNSEEN) & set(VALIDATION)
    measured = {one.text for name in SETS for one in wanted(name, 10_000)}
    assert not measured & {one.text for one in validation(10_000)} and len(validation(100)) == 100


def test_words_of_trained_languages_mean_one_digit_in_wordings_that_are_unseen() -> None:
    found = captions_of("trained")
    assert {caption.template for caption in found} == set(UNSEEN)
    assert len({caption.language for caption in found}) == len(TRAINED) - 1
    shown = {caption.text for caption in training_captions(20, 4)}
    assert not shown & {caption.text for caption in found}
    assert "zero" not in {caption.text for caption in trained_captions(["{}"])}, "an English word too"


def test_an_unknown_set_is_refused() -> None:
    with pytest.raises(UsageError, match="set must be one of 'plain'"):
        wanted("plane", 10)


def test_draws_of_captions_change_with_the_seed() -> None:
    assert wanted("plain", 40, 0) != wanted("plain", 40, 1)
    assert wanted("plain", 40, 1) == wanted("plain", 40, 1)


def test_the_same_parts_stand_in_a_row_of_their_own_and_in_one_of_the_text_encoder(tmp_path: Path) -> None:
    folder = parts_in(tmp_path / "parts", adapters=False)
    others = OtherSystems(lambda path: LLMTextToImage.from_pretrained(path, llm=tiny_llm()))
    own, encoded = others.row("own", folder), others.row("encoded", folder, ENCODER, TableEncoder())
    pictures = [row.draw(["draw seven"], [1], SETTINGS)[0].tobytes() for row in (own, encoded, own)]
    assert pictures[0] == pictures[2] != pictures[1]
