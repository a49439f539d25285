"""The fit on made-up pictures: it learns, rare words learn from likely ones, the exported layers are the fit."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from icl_vision.errors import UsageError
from icl_vision.models.words.describe import LEAST_SHARE
from icl_vision.training.said import calibrating, fitting

RECIPE = fitting.Recipe(axes=8, rank=4, steps=40)


@pytest.fixture
def made() -> dict:
    """Forty pictures of two kinds; word 0 is said of the first, 1 of the second, 2 of one picture of the first kind."""
    generator = torch.Generator().manual_seed(0)
    kinds = torch.arange(40) % 2
    views = torch.nn.functional.one_hot(kinds, 6).float() + 0.2 * torch.randn(40, 6, generator=generator)
    said = torch.stack([kinds == 0, kinds == 1, torch.arange(40) == 0], dim=1).float()
    vectors = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.98, 0.199]])
    return {"views": views, "logs": torch.zeros(40, 3), "said": said, "weights": torch.ones(40), "vectors": vectors}


def test_the_fit_tells_kinds_apart(made: dict) -> None:
    linear = fitting.fit(**made, recipe=RECIPE)
    logits = linear.logits(made["views"], made["logs"])
    first = made["said"][:, 0].bool()
    assert logits[first, 0].min() > logits[~first, 0].max()
    assert logits[~first, 1].min() > logits[first, 1].max()


def test_a_rare_word_learns_from_one_that_means_the_same(made: dict) -> None:
    """Shared maps only: what is seen of word 0 is seen of word 2, whose vector is nearly the same."""
    shared = fitting.Recipe(axes=8, rank=4, steps=40, own=1e3)
    logits = fitting.fit(**made, recipe=shared).logits(made["views"], made["logs"])
    first = made["said"][:, 0].bool()
    assert logits[first, 2].mean() > logits[~first, 2].mean() + 0.5


def test_what_class_words_say_counts(made: dict) -> None:
    blind = made | {"views": torch.zeros(40, 6), "logs": made["said"] * 2.0}
    linear = fitting.fit(**blind, recipe=RECIPE)
    assert linear.gain[0] > 0.3
    assert linear.logits(blind["views"], blind["logs"])[0, 0] > linear.logits(blind["views"], blind["logs"])[1, 0]


def test_the_module_is_the_fit(made: dict) -> None:
    linear = fitting.fit(**made, recipe=RECIPE).scaled(torch.tensor([1.0, 2.0, 0.5]), torch.tensor([0.1, 0.0, -1.0]))
    ids = torch.tensor([4, 0, 2])
    head = linear.head(ids, features=2)
    features, logits = torch.rand(3, 2), torch.rand(3, 4)
    shares = torch.rand(3, 5)
    shares[0, 4] = 0.0  # a word that no class knows
    from icl_vision.models.words.describe import views

    expected = linear.logits(views(features, logits), shares[:, ids].clamp(min=LEAST_SHARE).log())
    torch.testing.assert_close(head(features, logits, shares), expected)


def test_pictures_of_small_sets_count_more() -> None:
    sets = torch.tensor([0] * 8 + [1] * 4 + [2])
    assert fitting.picture_weights(sets, 3.0).tolist() == [1.0] * 8 + [2.0] * 4 + [3.0]


def test_one_picture_is_too_few(made: dict) -> None:
    one = {key: value[:1] if key != "vectors" else value for key, value in made.items()}
    with pytest.raises(UsageError, match="at least two captioned pictures; got 1"):
        fitting.fit(**one, recipe=RECIPE)


def test_calibration_mends_what_is_too_sure() -> None:
    generator = torch.Generator().manual_seed(0)
    truth = torch.randn(4000, 2, generator=generator)
    said = torch.rand(4000, 2, generator=generator) < truth.sigmoid()
    logits = truth * 3 + 1  # three times too sure, and shifted
    logits[0, 0] = torch.nan  # a word that this picture's fit did not know
    groups = torch.tensor([1, 3])
    scale, shift = calibrating.by_group(logits, said, torch.ones(4000), groups)
    assert scale.tolist() == pytest.approx([1 / 3] * 2, abs=0.04)
    assert shift.tolist() == pytest.approx([-1 / 3] * 2, abs=0.1)


def test_calibration_never_turns_an_order_round() -> None:
    logits = torch.linspace(-2, 2, 50).unsqueeze(1)
    scale, _ = calibrating.by_group(logits, logits < 0, torch.ones(50), torch.tensor([2]))
    assert scale.tolist() == [0.0]


def test_groups_by_frequency() -> None:
    said = torch.zeros(1000, 4, dtype=torch.bool)
    for word, often in enumerate((5, 20, 60, 400)):
        said[:often, word] = True
    assert calibrating.group_of(said).tolist() == [0, 1, 2, 3]


def test_class_words_learn_which_words_people_use() -> None:
    """Words of the first direction are right half the time, the others never; both parts have the same say."""
    codebook = torch.eye(2)
    ids = torch.tensor([[0, 1]]).expand(200, 2)
    right = torch.stack([torch.arange(200) % 2 == 0, torch.zeros(200, dtype=torch.bool)], dim=1)
    words = calibrating.Words(torch.full((200, 2), 0.3), ids, right)
    places = calibrating.Words(words.shares.unsqueeze(1), ids.unsqueeze(1), right.unsqueeze(1))
    what, regions, sayable = calibrating.by_words(words, places, torch.ones(200), codebook)
    from icl_vision.models.words.describe import word_chances

    chances = word_chances(words.shares, (codebook @ sayable)[ids], what)
    assert chances[0].tolist() == pytest.approx([0.5, 0.0], abs=0.05)
    assert word_chances(places.shares, (codebook @ sayable)[ids.unsqueeze(1)], regions)[0, 0, 0] > 0.4
