"""The heads of describe-photo in torch, on small random weights: order, formulas, regions, what a file gives back."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from icl_vision.errors import UsageError
from icl_vision.models.words import photo
from icl_vision.models.words.describe import (
    REGIONS,
    DescribeHeads,
    SaidHead,
    region_means,
)

F, C, T, S, WIDTH = 20, 12, 90, 7, 8


def unit(rows: int, columns: int, seed: int) -> torch.Tensor:
    values = torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.normalize(values)


@pytest.fixture
def classifier() -> torch.Tensor:
    return 4 * unit(C, F, 1)


@pytest.fixture
def heads(classifier: torch.Tensor) -> DescribeHeads:
    torch.manual_seed(0)
    return DescribeHeads(classifier, unit(C, WIDTH, 2), SaidHead(F, C, S, rank=3), rank=C)


@pytest.fixture
def seen(classifier: torch.Tensor) -> dict[str, torch.Tensor]:
    """What a trunk gives for three pictures, with a codebook and no class withheld."""
    map = torch.rand(3, F, 7, 7, generator=torch.Generator().manual_seed(3))
    features = map.mean((2, 3))
    return {
        "map": map,
        "features": features,
        "logits": features @ classifier.T,
        "codebook": unit(T, WIDTH, 4),
        "class_bias": torch.zeros(C),
    }


def test_shapes_and_ranges(heads: DescribeHeads, seen: dict[str, torch.Tensor]) -> None:
    ids, right, said, region_ids, region_right = heads(**seen)
    assert (ids.shape, right.shape, said.shape) == ((3, 64), (3, 64), (3, S))
    assert region_ids.shape == region_right.shape == (3, len(REGIONS), 8)
    assert ids.dtype == region_ids.dtype == torch.int32
    for probabilities in (right, said, region_right):
        assert probabilities.dtype == torch.float32
        assert bool(((probabilities >= 0) & (probabilities <= 1)).all())


@pytest.mark.parametrize("withheld", [[], [2, 5]])
def test_what_is_words_photo_in_its_order(withheld: list[int]) -> None:
    from icl_vision.models.nets.efficientnet import EfficientNetLite0

    torch.manual_seed(0)
    trunk = EfficientNetLite0(C).fold()
    vectors, codebook, bias = unit(C, WIDTH, 2), unit(T, WIDTH, 4), torch.zeros(C)
    bias[withheld] = photo.WITHHELD
    pixels = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), dtype=np.uint8))
    heads = DescribeHeads(trunk.classifier.weight, vectors, SaidHead(1280, C, S, rank=3))
    with torch.inference_mode():
        expected, _ = photo.WordsPhoto(trunk, vectors.numpy())(pixels, codebook, bias)
        logits, features = trunk(pixels.permute(0, 3, 1, 2).float())
        ids = heads(torch.rand(2, 1280, 7, 7), features, logits, codebook, bias)[0]
    assert torch.equal(ids, expected)


def test_probabilities_of_what_are_the_formula(heads: DescribeHeads, seen: dict[str, torch.Tensor]) -> None:
    heads.calibration.copy_(torch.tensor([0.3, 0.7, -0.2]))
    heads.sayable.copy_(unit(1, WIDTH, 5)[0])
    ids, right, *_ = heads(**seen)
    best, index = photo.best_classes(seen["logits"], seen["class_bias"])
    shares = photo.class_words(best, index, heads, seen["codebook"], seen["class_bias"])
    for row, places in enumerate(ids.tolist()):
        for rank, place in enumerate(places, start=1):
            z = 0.3 + 0.7 * shares[row, place].log() - 0.2 * np.log(rank) + seen["codebook"][place] @ heads.sayable
            assert right[row, rank - 1].item() == pytest.approx(torch.sigmoid(z).item(), rel=1e-4)


def test_regions_of_a_picture_that_is_the_same_everywhere_are_the_whole(
    heads: DescribeHeads, seen: dict[str, torch.Tensor]
) -> None:
    flat = seen | {"map": seen["features"][:, :, None, None].expand(-1, -1, 7, 7)}
    ids, _, _, region_ids, _ = heads(**flat)
    for region in range(len(REGIONS)):
        assert torch.equal(region_ids[:, region, :3], region_ids[:, 0, :3])
    assert torch.equal(region_ids[:, 0, 0], ids[:, 0])


def test_regions_are_the_classifier_on_the_region(
    heads: DescribeHeads, seen: dict[str, torch.Tensor], classifier: torch.Tensor
) -> None:
    """At full rank, the low-rank stand-in is the classifier."""
    left = seen["map"][:, :, :, :3].mean((2, 3))
    torch.testing.assert_close(region_means(seen["map"])[:, REGIONS.index("left")], left)
    centre = seen["map"][:, :, 2:5, 2:5].mean((2, 3))
    torch.testing.assert_close(region_means(seen["map"])[:, REGIONS.index("centre")], centre)
    logits = 0.5 * seen["logits"] + 0.5 * left @ classifier.T
    best = (logits / photo.CLASS_TEMPERATURE).softmax(1).topk(C).indices
    words = (
        (logits.gather(1, best) / photo.CLASS_TEMPERATURE).softmax(1).unsqueeze(1)
        @ photo.words_of_classes(best, heads, seen["codebook"])
    ).squeeze(1)
    assert torch.equal(heads(**seen)[3][:, REGIONS.index("left")], words.topk(8).indices.to(torch.int32))


def test_low_rank_regions_lose_least_on_the_differences_given(classifier: torch.Tensor) -> None:
    heads = DescribeHeads(classifier, unit(C, WIDTH, 2), SaidHead(F, C, S, rank=3), rank=2)
    differences = torch.randn(40, 2) @ torch.randn(2, F)  # two directions only: rank 2 is enough
    before = (heads.region_up(heads.region_down(differences)) - differences @ classifier.T).abs().max()
    heads.fit_regions(classifier, differences)
    after = (heads.region_up(heads.region_down(differences)) - differences @ classifier.T).abs().max()
    assert after < 1e-3 < before


def test_fewer_pictures_than_the_rank_will_do(classifier: torch.Tensor) -> None:
    heads = DescribeHeads(classifier, unit(C, WIDTH, 2), SaidHead(F, C, S, rank=3), rank=8)
    difference = torch.randn(1, F, generator=torch.Generator().manual_seed(0))
    heads.fit_regions(classifier, difference)
    torch.testing.assert_close(
        heads.region_up(heads.region_down(difference)), difference @ classifier.T, rtol=1e-3, atol=1e-3
    )


def test_a_withheld_class_leaves_no_trace(heads: DescribeHeads, seen: dict[str, torch.Tensor]) -> None:
    seen["class_bias"][4] = photo.WITHHELD
    first = heads(**seen)
    heads.class_vectors[4] *= -1  # whatever the class is called
    seen["logits"][:, 4] += 3.0  # and however sure the trunk is
    for before, after in zip(first, heads(**seen), strict=True):
        torch.testing.assert_close(before, after)


def test_weights_come_back(heads: DescribeHeads, seen: dict[str, torch.Tensor]) -> None:
    again = DescribeHeads.from_weights(heads.state_dict())
    for ours, theirs in zip(again(**seen), heads(**seen), strict=True):
        assert torch.equal(ours, theirs)
    with pytest.raises(UsageError, match="not the weights of describe-photo's heads"):
        DescribeHeads.from_weights({"class_vectors": torch.zeros(3, 2)})


def test_class_vectors_that_do_not_fit_are_refused(classifier: torch.Tensor) -> None:
    with pytest.raises(UsageError, match=r"class_vectors must be \[12, c\]; got shape \[3, 8\]"):
        DescribeHeads(classifier, unit(3, WIDTH, 0), SaidHead(F, C, S, rank=3))


def test_the_export_takes_any_batch(heads: DescribeHeads, seen: dict[str, torch.Tensor]) -> None:
    program = torch.export.export(
        heads,
        (),
        kwargs=seen,
        dynamic_shapes={
            name: ({0: torch.export.Dim("batch")} if name in ("map", "features", "logits") else {}) for name in seen
        },
    )
    one = {name: value[:1] if name in ("map", "features", "logits") else value for name, value in seen.items()}
    for ours, theirs in zip(program.module()(**one), heads(**one), strict=True):
        torch.testing.assert_close(ours, theirs)
