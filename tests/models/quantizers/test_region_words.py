"""Words of the upper layers: from the packaged classifier, region by region."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnx")

from icl_vision.codebook import Codebook
from icl_vision.errors import UsageError
from icl_vision.images import load_image
from icl_vision.models.quantizers.region_words import RegionWords
from icl_vision.models.words.photo import WITHHELD
from icl_vision.tokenizers import ImageTokenizer

PHOTOGRAPHS = Path(__file__).parents[3] / "icl_vision" / "demo_data" / "caltech101-demo12"


@pytest.fixture(scope="module")
def regions() -> RegionWords:
    found = RegionWords((1, 2, 4), 128, 128)
    found.load_packaged()
    return found


@pytest.fixture(scope="module")
def codebook() -> torch.Tensor:
    return torch.tensor(Codebook.load().vectors)


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    paths = sorted(PHOTOGRAPHS.glob("*/*.jpg"))[::40]
    arrays = [np.array(load_image(path).convert("RGB").resize((128, 128))) for path in paths]
    return torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2).float() / 255


def test_no_word_is_said_twice_and_layers_have_their_grids(
    regions: RegionWords, codebook: torch.Tensor, images: torch.Tensor
) -> None:
    ids, vector = regions(images, codebook)
    assert [tuple(one.shape[1:]) for one in ids] == [(1, 1), (2, 2), (4, 4)]
    flat = torch.cat([one.flatten(1) for one in ids], 1)
    assert all(len(row.unique()) == 21 for row in flat)
    torch.testing.assert_close(vector.norm(dim=1), torch.ones(len(images)))
    alone, _ = regions(images[:1], codebook)
    assert torch.equal(alone[2], ids[2][:1])


def test_the_whole_image_is_told_as_words_photo_tells_it(
    regions: RegionWords, codebook: torch.Tensor, images: torch.Tensor
) -> None:
    tokenizer = ImageTokenizer.from_pretrained("words-photo")
    paths = sorted(PHOTOGRAPHS.glob("*/*.jpg"))[::40]
    ids, _ = regions(images, codebook)
    ours = [{int(one) for layer in ids[:2] for one in layer[row].flatten()} for row in range(len(paths))]
    theirs = [{int(one) for one in pyramid.ids[0].ravel()} for pyramid in tokenizer.encode(paths, k=21)]
    shared = sum(len(a & b) for a, b in zip(ours, theirs, strict=True))
    assert shared >= 3 * len(paths)  # of 5 words each; at another size and with a view of regions


def test_a_region_sees_what_is_in_it(regions: RegionWords, images: torch.Tensor) -> None:
    pair = torch.cat([images[:1, :, :, :64], images[1:2, :, :, 64:]], dim=3)  # halves of two photographs
    logits = regions.region_logits(pair)[0]
    left, right = logits[5 : 5 + 16].reshape(4, 4, -1)[:, 0].mean(0), logits[5 : 5 + 16].reshape(4, 4, -1)[:, 3].mean(0)
    whole = regions.region_logits(images[:2])[:, 0]
    classes = [int(one.argmax()) for one in whole]
    assert left[classes[0]] - right[classes[0]] > left[classes[1]] - right[classes[1]]


def test_a_withheld_class_is_not_named(regions: RegionWords, codebook: torch.Tensor, images: torch.Tensor) -> None:
    logits = regions.region_logits(images[:1])
    bias = torch.zeros(1000)
    bias[logits[0].argmax(1)] = WITHHELD
    assert not torch.equal(regions(images[:1], codebook, bias)[0][2], regions(images[:1], codebook)[0][2])


def test_it_stays_frozen(regions: RegionWords) -> None:
    regions.train()
    assert not regions.training
    assert not any(one.requires_grad for one in regions.parameters())


def test_grids_must_fit_the_map() -> None:
    with pytest.raises(UsageError, match=r"grids that divide side / 16; got side 128 and grids \[1, 3\]"):
        RegionWords((1, 3), 128, 128)
    with pytest.raises(UsageError, match="this model needs .*set model.dim to the width of the packaged codebook"):
        RegionWords((1,), 32, 64).load_packaged()
