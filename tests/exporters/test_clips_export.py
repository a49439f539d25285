"""A tiny SPAE of clips through the exporter: the same words and frames as the module's, and a card that says clip."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
import torch

from icl_vision.codebook import Codebook
from icl_vision.errors import UsageError
from icl_vision.exporters import clips as exporter
from icl_vision.exporters.artefact import to_onnx
from icl_vision.exporters.checkpoint import Export
from icl_vision.exporters.checkpoint import _measured as measured
from icl_vision.models.clips import ClipsConfig, ClipSPAE
from icl_vision.models.quantizers.motion_words import MOTIONS, MotionWords
from icl_vision.models.rounding import round_to_fp16, round_to_int8
from icl_vision.tokenizers.artefact import DECODER_FILE, ENCODER_FILE
from icl_vision.tokenizers.parts import whole_graph
from icl_vision.tokenizers.pixels import Preprocessing
from icl_vision.tokenizers.sessions import CPU, cpu_settings
from icl_vision.vocabulary import read_card

PHOTO = ClipsConfig(
    net="photo3d", frames=4, side=16, grids=((1, 1, 1), (2, 2, 2), (2, 2, 2)), dim=128, width=8, blocks=1,
    quantizer="projected", projection=4,
)  # fmt: skip
CNN = ClipsConfig(
    frames=4, side=16, grids=((1, 1, 1), (2, 4, 4)), dim=128, filters=8, multipliers=(1, 2, 2), halvings=(True, False),
    blocks=1,
)  # fmt: skip


def tiny(config: ClipsConfig) -> ClipSPAE:
    torch.manual_seed(3)
    return ClipSPAE(config, torch.from_numpy(np.array(Codebook.load().vectors))).eval()


def pixels(count: int = 7, frames: int = 4) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, frames, 16, 16, 3), dtype=np.uint8)


def job(weights: str = "fp16") -> Export:
    return Export("tiny", Codebook.load(), Preprocessing(16), pixels(), {"licence": "MIT"}, weights=weights)  # type: ignore[arg-type]  # a str of two


def run(folder: Path, file: str, output: str, feeds: dict[str, np.ndarray]) -> np.ndarray:
    session = ort.InferenceSession(whole_graph(folder, read_card(folder), file), cpu_settings(), providers=[CPU])
    return np.asarray(session.run([output], {**feeds, "codebook": Codebook.load().vectors})[0])


@pytest.mark.slow
@pytest.mark.parametrize(("config", "weights"), [(PHOTO, "int8"), (CNN, "int8"), (CNN, "fp16")])
def test_words_and_frames_are_those_of_the_module(tmp_path: Path, config: ClipsConfig, weights: str) -> None:
    folder = tmp_path / "tiny"
    card = exporter.export_clips(tiny(config), folder, job(weights))
    assert card["modality"] == "clip" and card["frames"] == 4 and card["kind"] == "pyramid"
    assert card["layout"]["grids"] == [list(grid) for grid in config.grids]
    assert card["metrics"]["parity"]["mismatches"] == 0
    module = round_to_fp16(tiny(config))
    if weights == "int8":
        round_to_int8(module)
    some = pixels(3)
    ids = run(folder, ENCODER_FILE, "ids", {"pixels": some})
    clips = torch.from_numpy(some).movedim(-1, -3).float() / 255
    with torch.inference_mode():
        truth = module.encode_ids(clips)  # type: ignore[operator]  # round_to_fp16 says Module
        assert np.array_equal(ids, torch.cat([layer.flatten(1) for layer in truth], 1).numpy())
        for layers in range(1, len(config.grids) + 1):
            made = run(folder, DECODER_FILE, "pixels", {"ids": ids, "layers": np.array([layers])})
            wanted = (module.decode_ids(truth, layers) * 255).round().movedim(-3, -1).numpy()  # type: ignore[operator]  # as above
            assert made.shape == some.shape and np.abs(made - wanted).max() <= 1


def test_clips_to_compare_on_move_and_are_the_same_every_time() -> None:
    first = exporter.parity_clips(Preprocessing(16), 4)
    assert first.shape == (8, 4, 16, 16, 3) and first.dtype == np.uint8
    assert np.array_equal(first, exporter.parity_clips(Preprocessing(16), 4))
    assert all(not np.array_equal(clip[0], clip[3]) for clip in first)


def test_pictures_of_another_size_are_refused() -> None:
    with pytest.raises(UsageError, match="frames after N"):
        Export("tiny", Codebook.load(), Preprocessing(32), pixels())
    with pytest.raises(UsageError, match="N >= 7"):
        Export("tiny", Codebook.load(), Preprocessing(16), pixels(3))


def test_what_was_measured_on_clips_stands_on_the_card_without_the_other_rows(tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [
        {"row": name, "k": k, "groups": {"all": {"psnr": {"mean": 20.0}}}, "what": "text"}
        for name, k in (("5 words", 5), ("mean frame", None), ("middle frame", None))
    ]
    results = tmp_path / "results.json"
    document = {"kind": "clip reconstruction", "n": 70, "groups": {"all": 70}, "rows": rows, "words": []}
    results.write_text(json.dumps({**document, "config": {"data": "clips.tar"}}), encoding="utf-8")
    said = measured(results)
    assert said["data"] == "clips.tar" and said["n"] == 70
    assert [row["row"] for row in said["rows"]] == ["5 words", "mean frame"]
    assert "what" not in said["rows"][0]


class _MotionGraph(torch.nn.Module):
    """uint8 pixels [B, T, S, S, 3] -> the word of motion, int32 [B, 1]."""

    def __init__(self) -> None:
        super().__init__()
        self.motion = MotionWords(32)
        self.motion.say(range(100, 100 + len(MOTIONS)))

    def forward(self, clips: torch.Tensor) -> torch.Tensor:
        words: torch.Tensor = self.motion(clips.movedim(-1, -3).to(torch.float32) / 255)
        return words.flatten(1).to(torch.int32)


@pytest.mark.slow
def test_the_rule_of_motion_says_the_same_as_a_graph() -> None:
    square = np.zeros((8, 32, 32, 3), dtype=np.uint8)
    for number in range(8):
        square[number, 10:18, 4 + 2 * number : 12 + 2 * number] = 255
    some = np.stack([square, square[::-1], square.transpose(0, 2, 1, 3), np.repeat(square[:1], 8, axis=0)])
    graph = to_onnx(
        _MotionGraph().eval(),
        {"clips": torch.from_numpy(some[:2].copy())},
        ["words"],
        {"clips": {0: torch.export.Dim("batch")}},
    )
    session = ort.InferenceSession(graph.SerializeToString(), cpu_settings(), providers=[CPU])
    words = np.asarray(session.run(["words"], {"clips": some})[0]).ravel() - 100
    assert [MOTIONS[word] for word in words] == ["right", "left", "downward", "still"]
