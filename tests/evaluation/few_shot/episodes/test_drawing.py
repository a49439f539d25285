"""Episodes: seeded, never asking about the support set, saved and read back, and clear about what is missing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from icl_vision.errors import UsageError
from icl_vision.evaluation.few_shot.episodes.drawing import (
    Draw,
    Episode,
    ImageFolder,
    Item,
    display_label,
)
from icl_vision.evaluation.few_shot.episodes.sets import load_episodes, save_episodes


def make_folder(root: Path, classes: dict[str, int]) -> ImageFolder:
    for name, count in classes.items():
        (root / name).mkdir(parents=True)
        for number in range(count):
            (root / name / f"{number:03d}.jpg").write_bytes(b"x")
    return ImageFolder(root)


@pytest.fixture
def folder(tmp_path: Path) -> ImageFolder:
    names = ("ant", "wild_cat", "Leopards", "sea_horse", "tick", "emu")
    return make_folder(tmp_path / "photos", dict.fromkeys(names, 8))


def test_labels_are_the_folder_names_with_spaces(folder: ImageFolder) -> None:
    assert folder.labels == ("Leopards", "ant", "emu", "sea horse", "tick", "wild cat")
    assert display_label("garden_hose_2-B") == "garden hose 2-B"


def test_other_files_are_passed_over(tmp_path: Path) -> None:
    root = tmp_path / "photos"
    make_folder(root, {"ant": 2, "bee": 2, ".git": 2, "empty": 0})
    (root / "ant" / "notes.txt").write_text("no image")
    (root / "ant" / "._000.jpg").write_bytes(b"x")
    (root / "README.md").write_text("no class")
    assert ImageFolder(root).classes == {"ant": ("ant/000.jpg", "ant/001.jpg"), "bee": ("bee/000.jpg", "bee/001.jpg")}


PINNED_SHUFFLE = [2, 0, 5, 6, 9, 4, 1, 8, 7, 3]


def test_draws_are_pinned() -> None:
    """The same on every Python version: these values may never change."""
    assert Draw("episode", 0, 0).shuffled(range(10)) == PINNED_SHUFFLE
    assert Draw("episode", 0, 1).shuffled(range(10)) != PINNED_SHUFFLE


def test_same_seed_same_episode(folder: ImageFolder) -> None:
    first = folder.sample(3, ways=3, shots=2, seed=7)
    assert folder.sample(3, ways=3, shots=2, seed=7) == first
    assert folder.sample(3, ways=3, shots=2, seed=8) != first
    assert folder.sample(4, ways=3, shots=2, seed=7) != first


@settings(max_examples=60, deadline=None)
@given(ways=st.integers(2, 6), shots=st.integers(1, 5), queries=st.integers(1, 12), seed=st.integers(0, 10**6))
def test_episode_shape_and_no_leak(
    tmp_path_factory: pytest.TempPathFactory, ways: int, shots: int, queries: int, seed: int
) -> None:
    root = tmp_path_factory.getbasetemp() / "shape"
    names = {f"class_{letter}": 12 for letter in "abcdef"}
    folder = ImageFolder(root) if root.exists() else make_folder(root, names)
    episode = folder.sample(0, ways=ways, shots=shots, queries=queries, seed=seed)
    assert (episode.ways, episode.shots, len(episode.queries)) == (ways, shots, queries)
    assert not {item.path for item in episode.support} & {item.path for item in episode.queries}
    assert len({item.path for item in episode.support}) == ways * shots
    assert len({item.path for item in episode.queries}) == queries
    assert [item.label for item in episode.support] == list(episode.labels) * shots
    counts = [sum(item.label == label for item in episode.queries) for label in episode.labels]
    assert max(counts) - min(counts) <= 1
    assert all(item.path.startswith(item.label.replace(" ", "_")) for item in episode.support + episode.queries)


def test_one_query_comes_from_any_class(folder: ImageFolder) -> None:
    episodes = folder.episodes(60, ways=3, shots=1, queries=1)
    positions = {episode.labels.index(episode.queries[0].label) for episode in episodes}
    assert positions == {0, 1, 2}


def test_fewer_shots_keep_queries_and_nest(folder: ImageFolder) -> None:
    episode = folder.sample(0, ways=3, shots=5)
    smaller = episode.with_shots(2)
    assert smaller.support == episode.support[:6] and smaller.queries == episode.queries and smaller.shots == 2
    with pytest.raises(UsageError, match="between 1 and 5 for this episode; got 6"):
        episode.with_shots(6)


def test_fresh_queries_are_never_repeated_and_the_series_extends(folder: ImageFolder) -> None:
    series = folder.episodes(9, ways=5, shots=3, fresh=True, seed=1)
    asked = [item.path for episode in series for item in episode.queries]
    assert len(asked) == len(set(asked)) == 45
    assert folder.episodes(4, ways=5, shots=3, fresh=True, seed=1) == series[:4]


def test_fresh_queries_run_out_with_a_message(folder: ImageFolder) -> None:
    with pytest.raises(UsageError, match="images not yet asked about; ask for fewer episodes"):
        folder.episodes(11, ways=5, shots=3, fresh=True)


def test_episodes_survive_json(folder: ImageFolder, tmp_path: Path) -> None:
    episodes = folder.episodes(3, ways=3, shots=2)
    save_episodes(tmp_path / "episodes.json", episodes)
    assert load_episodes(tmp_path / "episodes.json") == episodes
    assert Episode.from_dict(json.loads(json.dumps(episodes[0].to_dict()))) == episodes[0]


def test_too_few_classes_are_named(folder: ImageFolder) -> None:
    with pytest.raises(UsageError, match=r"7 ways need 7 classes, but .* has 6: Leopards, ant"):
        folder.sample(0, ways=7, shots=1)


def test_too_few_images_are_named(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "photos", {"ant": 9, "bee": 3, "cat": 2})
    with pytest.raises(
        UsageError, match=r"3 shots and 1 queries per class need 4 images; too few are in 'bee' \(3\), 'cat' \(2\)"
    ):
        folder.sample(0, ways=2, shots=3)


@pytest.mark.parametrize(
    "wrong", [{"ways": 1, "shots": 1}, {"ways": 2, "shots": 0}, {"ways": 2, "shots": 1, "queries": 0}]
)
def test_senseless_sizes_are_refused(folder: ImageFolder, wrong: dict[str, int]) -> None:
    with pytest.raises(UsageError, match=f"ways >= 2, shots >= 1 and queries >= 1; got ways={wrong['ways']}"):
        folder.sample(0, **wrong)  # type: ignore[arg-type]  # wrong on purpose
    with pytest.raises(UsageError, match="number of episodes must be a whole number of 1 or more; got 0"):
        folder.episodes(0, ways=2, shots=1)


def test_folders_that_cannot_work(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is not a folder"):
        ImageFolder(tmp_path / "none")
    with pytest.raises(UsageError, match="holds no class folder with images"):
        ImageFolder(tmp_path)
    with pytest.raises(UsageError, match="'sea horse' and 'sea_horse' both stand for the label 'sea horse'"):
        make_folder(tmp_path / "same", {"sea_horse": 1, "sea horse": 1})


def items(*pairs: tuple[str, str]) -> tuple[Item, ...]:
    return tuple(Item(*pair) for pair in pairs)


def test_an_episode_checks_itself() -> None:
    support = items(("a/0.jpg", "a"), ("b/0.jpg", "b"))
    with pytest.raises(UsageError, match=r"asks for images of its own support set: \['a/0.jpg'\]"):
        Episode(0, 0, ("a", "b"), support, items(("a/0.jpg", "a")))
    with pytest.raises(UsageError, match=r"holds images of \['c'\]"):
        Episode(0, 0, ("a", "b"), support, items(("c/0.jpg", "c")))
    with pytest.raises(UsageError, match="unequal number of support images"):
        Episode(0, 0, ("a", "b"), support[:1], items(("a/1.jpg", "a")))
    with pytest.raises(UsageError, match="2 or more different labels"):
        Episode(0, 0, ("a", "a"), support, ())


def test_episode_files_that_cannot_be_read(tmp_path: Path) -> None:
    path = tmp_path / "episodes.json"
    with pytest.raises(UsageError, match="cannot be read"):
        load_episodes(path)
    path.write_text("{ half")
    with pytest.raises(UsageError, match="cannot be read"):
        load_episodes(path)
    path.write_text('{"format_version": 99}')
    with pytest.raises(UsageError, match="not an episode file of format version 1"):
        load_episodes(path)
    path.write_text('{"format_version": 1, "episodes": [{"number": 0}]}')
    with pytest.raises(UsageError, match="not an episode"):
        load_episodes(path)


@pytest.mark.parametrize("field", ["number", "seed"])
@pytest.mark.parametrize("value", ["", "one", float("inf"), None, []])
def test_an_episode_whose_numbers_are_none_is_no_episode(field: str, value: object) -> None:
    support = [{"path": f"{label}/0.jpg", "label": label} for label in "ab"]
    document = {"number": 0, "seed": 0, "labels": ["a", "b"], "support": support, "queries": []}
    assert Episode.from_dict(document).number == 0
    with pytest.raises(UsageError, match="not an episode: "):
        Episode.from_dict(document | {field: value})


def test_episode_paths_cannot_leave_the_folder() -> None:
    document = {
        "number": 0,
        "seed": 0,
        "labels": ["a", "b"],
        "support": [{"path": "../../etc/passwd", "label": "a"}, {"path": "b/0.jpg", "label": "b"}],
        "queries": [],
    }
    with pytest.raises(UsageError, match="must stay inside its folder"):
        Episode.from_dict(document)
