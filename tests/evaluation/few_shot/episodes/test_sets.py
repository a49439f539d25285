"""Episode files: read back one at a time, images checked by hash, made-up names, series of their own."""

from __future__ import annotations

import json
import shutil
from itertools import chain
from pathlib import Path

import pytest

from icl_vision.errors import UsageError
from icl_vision.evaluation.few_shot.episodes import sets
from icl_vision.evaluation.few_shot.episodes.drawing import Episode, ImageFolder, Item
from icl_vision.evaluation.few_shot.episodes.names import nonsense_names
from icl_vision.evaluation.few_shot.episodes.sets import (
    load_episodes,
    read_episode_file,
    save_episodes,
    stream_episodes,
)
from icl_vision.screening import is_refused


@pytest.fixture
def drawn(class_folder: Path, tmp_path: Path) -> sets.EpisodeSet:
    return sets.draw(ImageFolder(class_folder), tmp_path / "e.json", shots={2: 3, 3: 1}, episodes=4, seed=7)


def test_a_file_is_read_one_episode_at_a_time_or_whole(drawn: sets.EpisodeSet, tmp_path: Path) -> None:
    whole = load_episodes(drawn.path)
    assert list(stream_episodes(drawn.path)) == whole and len(whole) == 8
    again = tmp_path / "indented.json"
    again.write_text(json.dumps(json.loads(drawn.path.read_text()), indent=4))
    assert list(stream_episodes(again)) == whole
    assert read_episode_file(again) == read_episode_file(drawn.path)
    assert read_episode_file(drawn.path).sizes == {2: (4, 3), 3: (4, 1)}
    save_episodes(tmp_path / "empty.json", [])
    assert list(stream_episodes(tmp_path / "empty.json")) == [] == load_episodes(tmp_path / "empty.json")


def test_the_same_seed_draws_the_same_questions(drawn: sets.EpisodeSet, class_folder: Path, tmp_path: Path) -> None:
    folder = ImageFolder(class_folder)
    same = sets.draw(folder, tmp_path / "same.json", shots={2: 3, 3: 1}, episodes=4, seed=7)
    other = sets.draw(folder, tmp_path / "other.json", shots={2: 3, 3: 1}, episodes=4, seed=8)
    assert same.digest == drawn.digest != other.digest
    assert same.path.read_bytes() == drawn.path.read_bytes()
    assert sets.read(drawn.path, trust=True).digest == drawn.digest  # the root it names
    assert sets.read(drawn.path, class_folder).digest == drawn.digest
    assert drawn.save(tmp_path / "copy.json").digest == drawn.digest


def test_series_of_different_ways_are_drawn_apart(class_folder: Path, tmp_path: Path) -> None:
    drawn = sets.draw(ImageFolder(class_folder), tmp_path / "e.json", shots={2: 1, 3: 1}, episodes=30)
    pairs = zip(drawn.series(2, 30), drawn.series(3, 30), strict=True)
    assert any(two.labels != three.labels[:2] for two, three in pairs)
    assert len(list(drawn.series(2, 5))) == 5
    for episode in chain(drawn.series(2, 30), drawn.series(3, 30)):
        assert not {one.path for one in episode.queries} & {one.path for one in episode.support}
        assert len(episode.queries) == 1


def test_another_image_is_refused_by_name(drawn: sets.EpisodeSet, class_folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(class_folder, copy)
    assert sets.read(drawn.path, copy).digest == drawn.digest
    name = next(iter(sorted(drawn.hashes)))
    (copy / name).write_bytes(b"another")
    with pytest.raises(UsageError) as caught:
        sets.read(drawn.path, copy)
    assert repr(name) in str(caught.value) and "sha256 differs" in str(caught.value)
    (copy / name).unlink()
    with pytest.raises(UsageError, match=f"the image {name!r} of the episodes in .* cannot be read"):
        sets.read(drawn.path, copy)


def test_a_file_without_hashes_or_root_is_read_beside_its_images(class_folder: Path, tmp_path: Path) -> None:
    episodes = ImageFolder(class_folder).episodes(2, ways=2, shots=1, queries=1)
    copy = tmp_path / "photos"
    shutil.copytree(class_folder, copy)
    save_episodes(copy / "episodes.json", episodes)
    found = sets.read(copy / "episodes.json")
    assert found.root == copy and set(found.hashes) == {
        item.path for one in episodes for item in (*one.support, *one.queries)
    }


def test_files_that_cannot_be_used_say_why(drawn: sets.EpisodeSet, class_folder: Path, tmp_path: Path) -> None:
    def refused(text: str, message: str) -> None:
        path = tmp_path / "bad.json"
        path.write_text(text)
        with pytest.raises(UsageError, match=message):
            sets.read(path, class_folder)

    refused('{"format_version": 1, "episodes": []}', "holds no episodes")
    refused('{"format_version": 1, "episodes": [], "images": ["a"]}', 'no usable "images"')
    refused('{"format_version": 9}', "is not an episode file of format version 1")
    lines = drawn.path.read_text().splitlines()
    refused("\n".join([*lines[:4], lines[4][:-9], *lines[5:]]), "cannot be read")
    with pytest.raises(UsageError, match=r"should lie in .*nowhere.*, which is no folder; say where they are"):
        sets.read(drawn.path, tmp_path / "nowhere")
    with pytest.raises(UsageError, match=r"the number of episodes must be a whole number of 1 or more; got 0"):
        sets.draw(ImageFolder(class_folder), tmp_path / "x.json", shots={2: 1}, episodes=0)
    with pytest.raises(UsageError, match="holds 4 episodes of 2 ways; 5 are needed"):
        drawn.require(2, shots=1, episodes=5)
    with pytest.raises(UsageError, match="have 3 shots; a setting with 5 inner shots"):
        drawn.require(2, shots=5, episodes=4)


def test_made_up_names_mean_nothing_and_are_repeatable() -> None:
    labels = ["school bus", "vase", "lion"]
    names = nonsense_names(labels, key=(0, 5, 1))
    assert names == nonsense_names(labels, key=(0, 5, 1)) != nonsense_names(labels, key=(0, 5, 2))
    assert list(names) == labels and len(set(names.values())) == 3
    taken = set(names.values())
    assert not taken & set(nonsense_names(labels, key=(0, 5, 1), taken=taken).values())
    many = nonsense_names([str(number) for number in range(5000)], key=("many",)).values()
    assert all(name.isascii() and name.isalpha() and name.islower() and not is_refused(name) for name in many)
    with pytest.raises(UsageError, match="labels need as many made-up names"):
        nonsense_names([str(number) for number in range(20_000)], key=())


def test_an_episode_is_renamed_throughout() -> None:
    episode = Episode(0, 0, ("a", "b"), (Item("1", "a"), Item("2", "b")), (Item("3", "b"),))
    renamed = episode.renamed({"a": "dax", "b": "blicket"})
    assert renamed.labels == ("dax", "blicket") and renamed.queries == (Item("3", "blicket"),)
    assert [item.path for item in renamed.support] == ["1", "2"]
    with pytest.raises(UsageError, match=r"episode 0 cannot be renamed: no name for \['b'\]"):
        episode.renamed({"a": "dax"})
