"""`icl-vision build words`: a tokenizer from a tiny, randomly initialised CLIP or SigLIP on disk, parity included."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from icl_vision.cli import main
from icl_vision.tokenizers import ImageTokenizer

pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("onnx")

WORDS = ["red", "green", "blue", "cat", "dog", "boat", "tree", "sky", "hand", "noise"]


def _save_tokenizer(folder: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    tokens = ["<pad>", "<s>", "</s>", "<unk>", "a", "photo", "of", ".", *WORDS]
    backend = Tokenizer(models.WordLevel({token: place for place, token in enumerate(tokens)}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="<pad>", bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    ).save_pretrained(folder)


def _save_clip(folder: Path) -> None:
    import torch
    from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPModel

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
    _save_tokenizer(folder)


def _save_siglip(folder: Path) -> None:
    import torch
    from transformers import SiglipConfig, SiglipImageProcessorPil, SiglipModel

    torch.manual_seed(1)
    small = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = SiglipConfig(
        text_config={**small, "vocab_size": 24, "max_position_embeddings": 12, "projection_size": 32},
        vision_config={**small, "image_size": 32, "patch_size": 8},
    )
    SiglipModel(config).save_pretrained(folder)
    SiglipImageProcessorPil(size={"height": 32, "width": 32}).save_pretrained(folder)
    _save_tokenizer(folder)


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["build", "words", *arguments])


@pytest.fixture(scope="module")
def words_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("words") / "words.txt"
    path.write_text("\n".join(WORDS) + "\n\n")
    return path


@pytest.fixture(scope="module", params=["clip", "siglip"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp(request.param)
    {"clip": _save_clip, "siglip": _save_siglip}[request.param](folder)
    return folder


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::FutureWarning:copyreg", "ignore::DeprecationWarning")  # torch.export's own
def test_build_makes_a_tokenizer_that_equals_torch(model: Path, words_file: Path, tmp_path: Path, photo: Any) -> None:
    out = tmp_path / "mine"
    result = run("--encoder", str(model), "--out", str(out), "--words", str(words_file), "--licence", "MIT", "--json")
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    parity = document["card"]["metrics"]["parity"]
    assert parity["batches"] == [1, 2, 7]
    assert parity["mismatches"] == 0
    assert parity["ids"] == 3 * 32 * len(WORDS)
    assert document["card"]["licence"] == "MIT"

    tokenizer = ImageTokenizer.from_pretrained(str(out))
    pyramid = tokenizer.encode(photo, k=3)[0]
    assert len(pyramid.words(1)) == 3
    assert set(pyramid.words(1)) <= set(WORDS)
    assert tokenizer.codebook is not None
    vector = tokenizer.embed(photo)[0]
    # what the graph chose is what the vectors say
    cosine = tokenizer.codebook @ vector / np.linalg.norm(tokenizer.codebook, axis=1)
    assert pyramid.words(1) == [WORDS[place] for place in np.argsort(-cosine, kind="stable")[:3]]

    import torch
    from PIL import Image

    from icl_vision.models.words.clip_words import load_clip

    parts = load_clip(model)
    pixels = torch.from_numpy(parts.preprocessing.batch([Image.fromarray(photo)])).permute(0, 3, 1, 2) / 255
    mean, std = (torch.tensor(value).view(1, 3, 1, 1) for value in (parts.mean, parts.std))
    with torch.inference_mode():
        theirs = parts.model.get_image_features(pixel_values=(pixels - mean) / std).pooler_output[0]
    theirs = torch.nn.functional.normalize(theirs, dim=0).numpy()
    assert vector @ theirs > 0.999  # the stored weights are rounded to fp16
    # again into the same folder: replaced, not refused
    assert run("--encoder", str(model), "--out", str(out), "--words", str(words_file), "--quiet").exit_code == 0


def test_encoder_that_is_not_there_is_one_clear_line(words_file: Path, tmp_path: Path) -> None:
    result = run("--encoder", "no/such-model", "--out", str(tmp_path / "x"), "--words", str(words_file))
    assert result.exit_code == 1
    assert "no CLIP-like model 'no/such-model'" in result.stderr
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "x").exists()


def test_encoder_without_text_features_is_refused(words_file: Path, tmp_path: Path) -> None:
    from transformers import CLIPImageProcessorPil, ViTConfig, ViTModel

    folder = tmp_path / "vit"
    config = ViTConfig(hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=1, image_size=16)
    ViTModel(config).save_pretrained(folder)
    CLIPImageProcessorPil().save_pretrained(folder)
    _save_tokenizer(folder)
    result = run("--encoder", str(folder), "--out", str(tmp_path / "x"), "--words", str(words_file))
    assert result.exit_code == 1
    assert "is a ViTModel; it needs both image and text features, as CLIP has" in result.stderr


def test_processor_that_cannot_be_repeated_is_refused(words_file: Path, tmp_path: Path) -> None:
    from transformers import CLIPImageProcessorPil

    _save_clip(tmp_path / "clip")
    CLIPImageProcessorPil(size={"shortest_edge": 40}, do_center_crop=False).save_pretrained(tmp_path / "clip")
    result = run("--encoder", str(tmp_path / "clip"), "--out", str(tmp_path / "x"), "--words", str(words_file))
    assert result.exit_code == 1
    assert "neither a square resize nor a resize of the short side and a centre crop" in result.stderr


def test_bad_template_and_bad_name(tmp_path: Path, words_file: Path) -> None:
    result = run("--encoder", "x", "--out", str(tmp_path / "x"), "--words", str(words_file), "--template", "a photo")
    assert result.exit_code == 1
    assert "each template needs one {} where the word goes; got ['a photo']" in result.stderr
    result = run("--encoder", "x", "--out", str(tmp_path / "a b"), "--words", str(words_file))
    assert "a tokenizer's name is made of letters, digits" in result.stderr
