"""Drawings by rows from the same noise: what is chosen, kept, gone on with, read, compared and shown."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from icl_vision.errors import LLMUnavailableError, RunError, UsageError
from icl_vision.evaluation.text_to_image.evaluation import (
    BATCH,
    Row,
    Settings,
    TextToImageConfig,
    TextToImageEvaluation,
    Wanted,
    pictures_of,
)
from icl_vision.evaluation.text_to_image.page import render_page
from icl_vision.evaluation.text_to_image.summary import drawings_of, render, summarise
from icl_vision.files.runs import Run

LOW, HIGH = Settings(1.0, "ddim", 5), Settings(3.0, "ddim", 5)


class GreyReader:
    """Reads a digit from how light a picture is: what ``painted`` put there."""

    name = "grey reader"

    def read(self, images: Sequence[Image.Image]) -> list[str]:
        return [str(int(np.asarray(image.convert("L")).mean() // 25)) for image in images]


def painted(digit: int) -> Image.Image:
    return Image.new("RGB", (8, 8), (digit * 25 + 12,) * 3)


class Painter:
    """Draws the last character of a text; with low guidance always a 0. calls: what it was asked."""

    def __init__(self, wrong: int = 0) -> None:
        self.wrong = wrong
        self.calls: list[tuple[list[str], list[int], Settings]] = []

    def __call__(self, texts: Sequence[str], seeds: Sequence[int], settings: Settings) -> list[Image.Image]:
        self.calls.append((list(texts), list(seeds), settings))
        if settings.guidance <= 1:
            return [painted(0) for _ in texts]
        return [painted((int(text[-1]) + self.wrong) % 10) for text in texts]


def wanted(number: int, start: str = "draw") -> tuple[Wanted, ...]:
    return tuple(Wanted(f"{start} {place} {place % 10}", str(place % 10)) for place in range(number))


def evaluation(rows: Sequence[Row], *, number: int = 30, candidates: tuple[Settings, ...] = (LOW, HIGH)) -> Any:
    config = TextToImageConfig(
        {"plain": wanted(number), "other": wanted(10, "other")}, wanted(20, "check"), candidates, rows[0].name, seed=4
    )
    return TextToImageEvaluation(rows, GreyReader(), config)


def rows_of() -> tuple[list[Row], dict[str, Painter]]:
    painters = {name: Painter(wrong) for name, wrong in (("good", 0), ("bad", 1), ("shuffled", 0))}
    return [Row(name, f"it is {name}", one, shuffled=name == "shuffled") for name, one in painters.items()], painters


def opened(folder: Path, *, resume: bool = False) -> Run:
    return Run.open(folder, "eval text-to-image", {"n": 30}, seed=4, resume=resume)


def test_settings_are_chosen_on_validation_and_every_row_draws_with_them_from_the_same_noise(tmp_path: Path) -> None:
    rows, painters = rows_of()
    with opened(tmp_path / "run") as run:
        assert evaluation(rows).draw(run) == HIGH
        drawings, tried, seconds = drawings_of(run)
    assert {name: sum(one["right"] for one in shown) for name, shown in tried.items()} == {
        "ddim-5-1": 2,
        "ddim-5-3": 20,
    }
    first, second = (painters[name].calls for name in ("good", "bad"))
    measured = [call for call in first if call[0][0].startswith(("draw", "other"))]
    assert [call[1:] for call in measured] == [call[1:] for call in second] and {call[2] for call in second} == {HIGH}
    seeds = [seed for call in second[:2] for seed in call[1]]
    assert seeds == [4 * 1_000_003 + place for place in range(30)]
    assert {name: len(drawings["plain"][name]) for name in painters} == dict.fromkeys(painters, 30)
    assert set(seconds) == set(painters)


def test_of_settings_that_do_alike_the_fewest_steps_and_then_the_least_guidance_are_chosen(tmp_path: Path) -> None:
    rows, _ = rows_of()
    alike = tuple(Settings(guidance, "ddim", steps) for steps in (9, 5) for guidance in (4.0, 3.0))
    with opened(tmp_path / "run") as run:
        assert evaluation(rows, candidates=(LOW, *alike)).draw(run) == Settings(3.0, "ddim", 5)


def test_shuffled_prompts_are_those_of_the_set_dealt_out_anew_and_judged_by_their_own_digit(tmp_path: Path) -> None:
    rows, _ = rows_of()
    with opened(tmp_path / "run") as run:
        evaluation(rows, number=200).draw(run)
        shown = drawings_of(run)[0]["plain"]["shuffled"]
    assert sorted(one["shown"] for one in shown) == sorted(one["text"] for one in shown)
    assert sum(one["shown"] == one["text"] for one in shown) < 10
    assert all(one["read"] == one["shown"][-1] and one["right"] == (one["read"] == one["digit"]) for one in shown)
    assert sum(one["right"] for one in shown) < 50


def test_a_run_goes_on_where_it_stopped_and_rows_may_be_added(tmp_path: Path) -> None:
    rows, painters = rows_of()
    whole = tmp_path / "whole"
    with opened(whole) as run:
        evaluation(rows).draw(run)
        expected = dict(run.results())
    rows, painters = rows_of()
    asked = painters["bad"]
    calls = 0

    def failing(texts: Sequence[str], seeds: Sequence[int], settings: Settings) -> list[Image.Image]:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise LLMUnavailableError("gone")
        return asked(texts, seeds, settings)

    broken = [rows[0], Row("bad", "it is bad", failing)]
    with opened(tmp_path / "run") as run, pytest.raises(LLMUnavailableError):
        evaluation(broken).draw(run)
    before = len(painters["good"].calls)
    with opened(tmp_path / "run", resume=True) as run:
        assert evaluation(rows).draw(run) == HIGH
        again = dict(run.results())
    assert len(painters["good"].calls) == before
    assert {item: result["drawings"] for item, result in again.items()} == {
        item: result["drawings"] for item, result in expected.items()
    }


def test_drawings_are_kept_as_pictures_and_a_lost_one_is_named(tmp_path: Path) -> None:
    rows, _ = rows_of()
    with opened(tmp_path / "run") as run:
        evaluation(rows).draw(run)
    kept = pictures_of(tmp_path / "run", "plain/bad/001", 30 - BATCH)
    assert [np.asarray(image)[0, 0, 0] for image in kept] == [((place + 1) % 10) * 25 + 12 for place in range(10)]
    shutil.rmtree(tmp_path / "run" / "drawn")
    with pytest.raises(RunError, match="is gone, which the run"):
        pictures_of(tmp_path / "run", "plain/bad/001", 10)


class Brightness:
    """A distance between sets: of their mean brightness."""

    name = "brightness"

    def gather(self, batches: Any) -> float:
        return float(np.concatenate([batch.reshape(-1) for batch in batches]).mean())

    def distance(self, real: float, made: float) -> float:
        return abs(real - made)

    def score(self, made: float) -> None:
        return None


class Says:
    """Whether a picture is as light as its caption's last digit says."""

    name = "says"

    def __call__(self, pixels: Any, captions: Sequence[str]) -> Any:
        return [float(one.mean() // 25 == int(text[-1])) for one, text in zip(pixels, captions, strict=True)]


def test_rows_are_summed_up_compared_in_pairs_and_shown(tmp_path: Path) -> None:
    rows, _ = rows_of()
    with opened(tmp_path / "run") as run:
        chosen = evaluation(rows).draw(run)
        real = [painted(digit) for digit in range(10)]
        summary = summarise(
            run, rows, "grey reader", compared_with="good", distance=Brightness(), real=real,
            others=[painted(9), painted(9)], similarity=Says(),
        )  # fmt: skip
        drawings, _, _ = drawings_of(run)
    plain, other = summary["sets"]
    assert (plain["name"], other["name"]) == ("plain", "other")
    good, bad, _ = plain["rows"]
    assert (good["read_right"]["accuracy"], good["read_right"]["n"]) == (1.0, 30) and good["meaning"] == "it is good"
    assert bad["read_right"]["accuracy"] == 0 and bad["by_digit"]["3"]["n"] == 3
    assert good["distance"] == {"name": "brightness", "value": pytest.approx(0.0)}
    among = summary["real"]
    assert (among["n"], among["of"], among["distance"]["value"]) == (2, 10, pytest.approx(112.5)), "9 from all ten"
    fits = [row["caption_similarity"] for row in plain["rows"]]
    assert [one["mean"] for one in fits[:2]] == [1.0, 0.0] and fits[0]["n"] == 30 and fits[0]["name"] == "says"
    assert fits[2]["mean"] < 1, "captions that were asked for, not those that were shown"
    against = {pair["rows"][1]: pair for pair in plain["comparisons"]}
    assert against["bad"]["only_a"] == 30 and against["bad"]["difference"] == 1.0
    assert against["bad"]["p"] == pytest.approx(2 * 0.5**30) and against["bad"]["verdict"] == "better"
    assert [trial["settings"] for trial in summary["validation"]] == ["ddim-5-1", "ddim-5-3"]
    results = {
        **summary,
        "title": "Digits <drawn>",
        "attribution": "somebody",
        "settings": {"guidance": chosen.guidance, "sampler": chosen.sampler, "steps": chosen.steps},
    }
    text = render(results)
    assert "guidance 3, ddim, 5 steps" in text and "good +100.0%" in text and "brightness" in text
    assert "says 1.000" in text and "2 real digits to 10 others: brightness 112.5" in text
    page = render_page(results, drawings, tmp_path / "run")
    assert "Digits &lt;drawn&gt;" in page and page.count("data:image/png;base64,") == 6
    assert "http:" not in page and "https:" not in page


def test_one_candidate_is_used_without_validation(tmp_path: Path) -> None:
    rows, painters = rows_of()
    with opened(tmp_path / "run") as run:
        assert evaluation(rows, candidates=(LOW,)).draw(run) == LOW
        assert drawings_of(run)[1] == {}
    assert all(not text.startswith("check") for call in painters["good"].calls for text in call[0])


def test_of_settings_that_draw_alike_the_least_guidance_is_taken(tmp_path: Path) -> None:
    rows, _ = rows_of()
    more = Settings(9.0, "ddim", 5)
    with opened(tmp_path / "run") as run:
        assert evaluation(rows, candidates=(more, HIGH)).draw(run) == HIGH


def test_mistakes_are_refused() -> None:
    rows, _ = rows_of()
    with pytest.raises(UsageError, match="different names, without slashes; got good, good"):
        evaluation([rows[0], rows[0]])
    with pytest.raises(UsageError, match="without slashes; got a/b"):
        evaluation([Row("a/b", "", Painter())])
    with pytest.raises(UsageError, match="chosen on a caption that is measured, 'draw 0 0'"):
        TextToImageConfig({"plain": wanted(3)}, wanted(1), (LOW,), "good")
    with pytest.raises(UsageError, match="a set has captions"):
        TextToImageConfig({"plain": ()}, (), (LOW,), "good")
    with pytest.raises(UsageError, match="at least one guidance"):
        TextToImageConfig({"plain": wanted(3)}, (), (), "good")
    config = TextToImageConfig({"plain": wanted(3)}, (), (LOW, HIGH), "none")
    with pytest.raises(UsageError, match="by a row that is drawn, on validation captions; got 'none', 0 captions"):
        TextToImageEvaluation(rows, GreyReader(), config)
