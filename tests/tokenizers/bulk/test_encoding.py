"""Reading ahead, chunks, journals and shards of bulk encoding, without any model."""

from __future__ import annotations

import errno
import itertools
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scripts import loaded

from icl_vision.errors import (
    ImageArrayError,
    ImageEmptyError,
    ImageError,
    PyramidError,
    RunError,
    RunLockedError,
    RunMismatchError,
    StorageError,
    UsageError,
)
from icl_vision.files.runs import Run
from icl_vision.images import list_images
from icl_vision.pyramid import PyramidLayout, TokenPyramid
from icl_vision.tokenizers import AsciiTokenizer, ImageTokenizer
from icl_vision.tokenizers.bulk.encoding import AHEAD, CHUNK, encode_files
from icl_vision.tokenizers.bulk.files import (
    BulkReport,
    Shard,
    bad_file,
    manifest,
    read_all,
    tokenize_files,
    unfinished,
    write_rows,
)
from icl_vision.tokenizers.bulk.formats import JsonLines, format_of, row_of
from icl_vision.vocabulary import Vocabulary

WORDS = Vocabulary(["dark", "light", "odd"], name="three")


class Levels(ImageTokenizer):
    """One word an image; ``batches`` remembers how many images each call got."""

    name = "levels"

    def __init__(self) -> None:
        self.batches: list[int] = []

    @property
    def layout(self) -> PyramidLayout:
        return PyramidLayout.flat(1)

    @property
    def vocabulary(self) -> Vocabulary | None:
        return WORDS

    def _encode(self, images: list[Image.Image], k: int | None) -> list[TokenPyramid]:
        self.batches.append(len(images))
        values = [int(np.asarray(image).mean()) // 128 for image in images]
        return [TokenPyramid((np.array([[value]]),), self.layout, WORDS) for value in values]


class Choosy(Levels):
    """Refuses white images although they can be read."""

    def _encode(self, images: list[Image.Image], k: int | None) -> list[TokenPyramid]:
        if any(np.asarray(image).min() == 255 for image in images):
            raise ImageArrayError("white says nothing")
        return super()._encode(images, k)


def make(folder: Path, count: int, bad: tuple[int, ...] = ()) -> list[str]:
    folder.mkdir(exist_ok=True)
    paths = []
    for number in range(count):
        path = folder / f"{number:04d}.png"
        if number in bad:
            path.touch()
        else:
            level = (number * 37) % 250
            Image.new("RGB", (3, 3), (level, level, level)).save(path)
        paths.append(str(path))
    return paths


def lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


# The stream


def test_results_come_in_order_and_bad_files_in_their_places(tmp_path: Path) -> None:
    paths = make(tmp_path / "in", 75, bad=(0, 40, 74))
    results = list(encode_files(Levels(), iter(paths)))
    assert [path for path, _ in results] == paths
    assert [number for number, (_, result) in enumerate(results) if isinstance(result, ImageError)] == [0, 40, 74]
    assert isinstance(results[0][1], ImageEmptyError) and "0000.png" in str(results[0][1])
    alone = Levels().encode(paths[1:40])
    assert [result for _, result in results[1:40]] == alone
    assert list(encode_files(Levels(), [])) == []


def test_batches_keep_their_size_though_files_are_bad(tmp_path: Path) -> None:
    paths = make(tmp_path / "in", 2 * CHUNK, bad=(3, 5, CHUNK))
    tokenizer = Levels()
    assert len(list(encode_files(tokenizer, paths))) == 2 * CHUNK
    assert tokenizer.batches == [CHUNK, CHUNK]
    tokenizer.batch_size, tokenizer.batches = 10, []
    assert len(list(encode_files(tokenizer, make(tmp_path / "few", 12, bad=tuple(range(6)))))) == 12
    assert tokenizer.batches == [6], "half of them bad: not made up for"
    tokenizer.batch_size, tokenizer.batches = 8, []
    assert len(list(encode_files(tokenizer, make(tmp_path / "end", CHUNK + 3)))) == CHUNK + 3
    assert tokenizer.batches == [8] * 5, "the last batch is made up for, a chunk is not"


def test_a_tokenizer_may_refuse_a_readable_image(tmp_path: Path) -> None:
    paths = make(tmp_path / "in", 5)
    Image.new("RGB", (3, 3), "white").save(paths[2])
    found = [result for _, result in encode_files(Choosy(), paths)]
    assert [isinstance(result, ImageError) for result in found] == [False, False, True, False, False]
    assert str(found[2]) == "white says nothing"


def test_no_more_is_read_than_a_few_chunks_ahead(tmp_path: Path) -> None:
    paths = make(tmp_path / "in", 2)
    taken = 0

    def many() -> Iterator[str]:
        nonlocal taken
        while True:
            taken += 1
            yield paths[taken % 2]

    stream = encode_files(Levels(), many())
    for _ in range(2 * CHUNK):
        next(stream)
    assert taken <= (2 + AHEAD) * CHUNK
    before = threading.active_count()
    stream.close()
    assert threading.active_count() < before, "the readers end with the stream"


def test_options_that_cannot_be(tmp_path: Path) -> None:
    paths = make(tmp_path / "in", 1)
    for workers in (-1, True, 1.5):
        with pytest.raises(UsageError, match="workers must be a whole number of 0 or more processes; got"):
            list(encode_files(Levels(), paths, workers=workers))  # type: ignore[arg-type]  # wrong on purpose
    with pytest.raises(PyramidError, match="k=7"):
        list(encode_files(Levels(), paths, 7))


@pytest.mark.slow
def test_processes_read_too_and_one_that_dies_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = make(tmp_path / "in", 70, bad=(5,))
    ascii_art = AsciiTokenizer(2, 2)
    ours, theirs = (list(encode_files(ascii_art, paths, workers=workers)) for workers in (0, 2))
    assert [row_of(*pair) for pair in ours] == [row_of(*pair) for pair in theirs]
    monkeypatch.setattr("icl_vision.tokenizers.bulk.encoding.read_part", die)
    with pytest.raises(StorageError, match="a process that reads images died"):
        list(encode_files(ascii_art, paths, workers=1))


def die(paths: object, *, shrink: object) -> None:
    os._exit(9)


class Dying(ThreadPoolExecutor):
    """Readers that die: once so many pieces of work were given to them, when the next is given or when it is due."""

    def __init__(self, after: int, error: BaseException, *, due: bool) -> None:
        super().__init__(1)
        self.left, self.error, self.due = after, error, due

    def submit(self, *args: Any, **options: Any) -> Any:
        self.left -= 1
        if self.left < 0 and not self.due:
            raise self.error
        if self.left < 0:
            failed: Future[Any] = Future()
            failed.set_exception(self.error)
            return failed
        return super().submit(*args, **options)


@pytest.mark.parametrize("after", [0, 1, 4, 19, 20, 23, 27, 35])
@pytest.mark.parametrize("due", [False, True], ids=["given", "due"])
def test_readers_that_die_at_any_point_cost_what_was_in_flight(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int, due: bool
) -> None:
    paths = make(tmp_path / "in", 9 * CHUNK, bad=(3, 77))
    plain = list(encode_files(Levels(), paths))
    with monkeypatch.context() as patch:
        readers = Dying(after, BrokenProcessPool("a child died"), due=due)
        patch.setattr("icl_vision.tokenizers.bulk.encoding._readers", lambda workers: readers)
        told: list[int] = []
        with pytest.raises(StorageError, match="a process that reads images died.*go on with --resume"):
            tokenize_files(Levels(), paths, tmp_path / "words.jsonl", workers=1, progress=told.append)
    again = Levels()
    report = tokenize_files(again, paths, tmp_path / "words.jsonl", resume=True)
    assert report.resumed == sum(told)
    assert list(read_all(report, paths)) == [row_of(*pair) for pair in plain]
    # What was done is not done again. (Batches are filled up, so they may hold more images than there are files.)
    assert len(again.batches) == 9 - report.resumed // CHUNK


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        (OSError(errno.ENOMEM, "Cannot allocate memory"), StorageError, "no more readers .*Cannot allocate memory"),
        (RuntimeError("can't start new thread"), StorageError, "no more readers of images can be started"),
        (TypeError("cannot pickle '_thread.lock' object"), UsageError, "cannot be sent to the processes.*workers=0"),
        (TypeError("something else"), TypeError, "something else"),
    ],
)
def test_readers_that_cannot_be_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, kind: type[Exception], message: str
) -> None:
    paths = make(tmp_path / "in", 40)
    monkeypatch.setattr("icl_vision.tokenizers.bulk.encoding._readers", lambda workers: Dying(2, error, due=False))
    with pytest.raises(kind, match=message):
        list(encode_files(Levels(), paths, workers=1))


def test_what_a_tokenizers_own_code_raises_in_a_reader_is_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dying = Dying(0, RuntimeError("mine"), due=True)
    monkeypatch.setattr("icl_vision.tokenizers.bulk.encoding._readers", lambda workers: dying)
    with pytest.raises(RuntimeError, match="^mine$"):
        list(encode_files(Levels(), make(tmp_path / "in", 3), workers=1))


@pytest.mark.slow
def test_a_reader_killed_between_chunks_is_told_and_resumed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = make(tmp_path / "in", 20 * CHUNK)
    pools: list[ProcessPoolExecutor] = []
    make_pool = ProcessPoolExecutor.__init__

    def remember(self: ProcessPoolExecutor, *args: Any, **options: Any) -> None:
        make_pool(self, *args, **options)
        pools.append(self)

    monkeypatch.setattr(ProcessPoolExecutor, "__init__", remember)
    art = AsciiTokenizer(2, 2)
    done: list[int] = []

    def kill(count: int) -> None:
        done.append(count)
        if sum(done) == 3 * CHUNK:
            # One death may have made the pool end and reap the others: kill() minds that, os.kill does not.
            for process in list(pools[0]._processes.values()):
                process.kill()
                process.join()

    with pytest.raises(StorageError, match="a process that reads images died"):
        tokenize_files(art, paths, tmp_path / "words.jsonl", workers=2, progress=kill)
    report = tokenize_files(art, paths, tmp_path / "words.jsonl", workers=2, resume=True)
    assert 3 * CHUNK <= report.resumed == sum(done) < len(paths)
    assert list(read_all(report, paths)) == [row_of(*pair) for pair in encode_files(art, paths)]


# The file


def test_the_files_that_appear(tmp_path: Path) -> None:
    paths = make(tmp_path / "in", 40, bad=(7,))
    done: list[int] = []
    report = tokenize_files(Levels(), paths, tmp_path / "words.jsonl", progress=done.append)
    assert report == BulkReport(tmp_path / "words.jsonl", images=39, bad=1, resumed=0)
    assert sum(done) == 40
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        *("in", "words.jsonl", "words.jsonl.bad.jsonl", "words.jsonl.run.json")
    ]
    rows = lines(report.out)
    assert rows[0] == {"image": paths[0], "k": 1, "words": [["dark"]]}
    assert [row["image"] for row in rows] == [path for number, path in enumerate(paths) if number != 7]
    (bad,) = lines(bad_file(report.out))
    assert bad["image"] == paths[7] and bad["error"] == "ImageEmptyError"
    about = json.loads(manifest(report.out).read_text(encoding="utf-8"))
    assert about["results"] == {"images": 39, "bad": 1}
    assert about["config"]["tokenizer"] == "levels" and about["versions"]["python"]
    assert [row["image"] for row in read_all(report, paths)] == paths


def test_resume_refuses_what_is_another_run(tmp_path: Path) -> None:
    paths = make(tmp_path / "in", 3)
    out = tmp_path / "words.jsonl"

    def interrupted(count: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tokenize_files(Levels(), paths, out, progress=interrupted)
    assert unfinished(out).is_dir() and not out.exists()
    with pytest.raises(RunMismatchError, match="pass --resume.*or delete"):
        tokenize_files(Levels(), paths, out)
    with pytest.raises(RunMismatchError, match=r"files, files_hash differ"):
        tokenize_files(Levels(), paths[:2], out, resume=True)
    with pytest.raises(RunMismatchError, match=r"tokenizer, tokenizer_hash"):
        tokenize_files(AsciiTokenizer(2, 2), paths, out, resume=True)
    with (
        Run.open(unfinished(out), "tokenize", config_of(out), resume=True),
        pytest.raises(RunLockedError, match="another process is writing"),
    ):
        tokenize_files(Levels(), paths, out, resume=True)
    assert tokenize_files(Levels(), paths, out, resume=True).images == 3
    # Complete: the same run is left alone, another one is refused.
    tokenizer = Levels()
    assert tokenize_files(tokenizer, paths, out, resume=True) == BulkReport(out, 3, 0, resumed=3)
    assert tokenizer.batches == []
    with pytest.raises(RunMismatchError, match="files, files_hash differ.*the file is complete, and is replaced"):
        tokenize_files(tokenizer, paths[1:], out, resume=True)
    manifest(out).write_text("{", encoding="utf-8")
    assert tokenize_files(tokenizer, paths, out, resume=True).resumed == 0, "nothing says what it is of: made anew"


def config_of(out: Path) -> dict[str, object]:
    config: dict[str, object] = json.loads((unfinished(out) / "run.json").read_text(encoding="utf-8"))["config"]
    return config


def test_a_damaged_line_is_done_again_and_lands_in_its_place(tmp_path: Path) -> None:
    paths = make(tmp_path / "in", 5 * CHUNK, bad=(50,))
    tokenize_files(Levels(), paths, tmp_path / "whole.jsonl")
    out = tmp_path / "words.jsonl"
    done: list[int] = []

    def stop_before_the_last(count: int) -> None:
        done.append(count)
        if sum(done) >= 4 * CHUNK:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tokenize_files(Levels(), paths, out, progress=stop_before_the_last)
    journal = unfinished(out) / "journal.jsonl"
    raw = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join([raw[0], raw[1][:20] + b"\n", raw[2], raw[3][:30]]))  # damaged inside, and cut off
    tokenizer = Levels()
    report = tokenize_files(tokenizer, paths, out, resume=True)
    assert tokenizer.batches == [CHUNK] * 3 and report.resumed == 2 * CHUNK
    for file in (Path, bad_file):
        assert file(out).read_bytes() == file(tmp_path / "whole.jsonl").read_bytes()


def test_no_good_row_leaves_an_earlier_file_alone(tmp_path: Path) -> None:
    out = tmp_path / "words.jsonl"
    out.write_text("earlier\n", encoding="utf-8")
    report = tokenize_files(Levels(), make(tmp_path / "in", 2, bad=(0, 1)), out)
    assert (report.images, report.bad) == (0, 2)
    assert out.read_text(encoding="utf-8") == "earlier\n" and not manifest(out).exists()
    assert len(list(read_all(report, make(tmp_path / "in", 2, bad=(0, 1))))) == 2


def test_places_and_names_that_cannot_be(tmp_path: Path) -> None:
    paths = make(tmp_path / "in", 1)
    with pytest.raises(UsageError, match=r"must end in .jsonl or .parquet"):
        tokenize_files(Levels(), paths, tmp_path / "words.txt")
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match="cannot be made"):
        tokenize_files(Levels(), paths, tmp_path / "file" / "words.jsonl")
    (tmp_path / "words.jsonl").mkdir()
    with pytest.raises(StorageError, match="cannot be written"):
        tokenize_files(Levels(), paths, tmp_path / "words.jsonl")


def test_a_full_disk_keeps_what_is_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths, out = make(tmp_path / "in", 3), tmp_path / "words.jsonl"

    def full(*arguments: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(JsonLines, "write", full)
        with pytest.raises(
            StorageError, match=r"No space left.*what is done is kept in .*words\.jsonl\.part.*--resume"
        ):
            tokenize_files(Levels(), paths, out)
    tokenizer = Levels()
    assert tokenize_files(tokenizer, paths, out, resume=True).resumed == 3 and tokenizer.batches == []


class Unwilling(Levels):
    """Fails for a reason of its own."""

    def _encode(self, images: list[Image.Image], k: int | None) -> list[TokenPyramid]:
        raise ConnectionResetError("the machine with the graph is gone")


def test_what_others_raise_is_no_fault_of_the_disk(tmp_path: Path) -> None:
    paths, out = make(tmp_path / "in", 3), tmp_path / "words.jsonl"

    def gone(count: int) -> None:
        raise BrokenPipeError(errno.EPIPE, "nobody reads how far it is")

    with pytest.raises(BrokenPipeError, match="nobody reads how far it is"):
        tokenize_files(Levels(), paths, out, progress=gone)
    with pytest.raises(ConnectionResetError, match="the machine with the graph is gone"):
        tokenize_files(Unwilling(), paths, tmp_path / "other.jsonl")
    report = tokenize_files(Levels(), paths, out, resume=True)

    def rows() -> Iterator[dict[str, Any]]:
        yield from itertools.islice(read_all(report, paths), 1)
        raise ConnectionResetError("a machine of the cluster is gone")

    with pytest.raises(ConnectionResetError, match="a machine of the cluster is gone"):
        write_rows(Levels(), paths, tmp_path / "third.jsonl", rows())


@pytest.mark.parametrize("error", [OSError(errno.EMFILE, "Too many open files"), OSError(errno.ENOSPC, "no semaphore")])
def test_a_pool_of_readers_that_cannot_be_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: OSError) -> None:
    def none(*arguments: object, **options: object) -> None:
        raise error

    monkeypatch.setattr("icl_vision.tokenizers.bulk.encoding.ProcessPoolExecutor", none)
    with pytest.raises(StorageError, match="no more readers of images can be started"):
        tokenize_files(Levels(), make(tmp_path / "in", 3), tmp_path / "words.jsonl", workers=2)


def test_files_named_twice_and_loops_of_links(tmp_path: Path) -> None:
    paths = make(tmp_path / "in", 2)
    (tmp_path / "in" / "loop.png").symlink_to("loop.png")
    (tmp_path / "in" / "up").symlink_to("..")  # a folder that holds itself is not entered
    found = [str(path) for path in list_images(tmp_path / "in")]
    assert found == [*paths, str(tmp_path / "in" / "loop.png")]
    files = [paths[0], *found, paths[0]]
    report = tokenize_files(Levels(), files, tmp_path / "words.jsonl")
    assert (report.images, report.bad) == (4, 1)  # a file named three times is three rows
    rows = list(read_all(report, files))
    assert [row["image"] for row in rows] == files and rows[0] == rows[1] == rows[4]
    assert rows[3]["error"] == "ImageNotFoundError" and "cannot be read" in rows[3]["message"]


def test_rows_made_elsewhere(tmp_path: Path) -> None:
    paths = make(tmp_path / "in", 6, bad=(2,))
    report = tokenize_files(Levels(), paths, tmp_path / "own.jsonl")
    rows = list(read_all(report, paths))
    other = write_rows(Levels(), paths, tmp_path / "new" / "other.jsonl", iter(rows))
    assert (other.images, other.bad) == (5, 1)
    assert other.out.read_bytes() == report.out.read_bytes()
    assert bad_file(other.out).read_bytes() == bad_file(report.out).read_bytes()
    assert tokenize_files(Levels(), paths, other.out, resume=True).resumed == 6
    with pytest.raises(RunError, match="5 rows came back for 6 files"):
        write_rows(Levels(), paths, tmp_path / "short.jsonl", rows[:5])
    assert not list(tmp_path.glob("*short*"))


# Shards


@pytest.mark.parametrize("count", [1, 2, 3, 7, 20])
def test_shards_are_even_parts(count: int) -> None:
    items = [str(number) for number in range(10)]
    parts = [Shard(number, count).of(items) for number in range(1, count + 1)]
    assert [item for part in parts for item in part] == items
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
    names = [Shard(number, count).file(Path("a/words.jsonl")).name for number in range(1, count + 1)]
    assert names == sorted(names) and names[0] == f"words-00001-of-{count:05d}.jsonl"


@pytest.mark.parametrize("text", ["0/2", "3/2", "1", "a/b", "1/0", "-1/2", "1/2/3", ""])
def test_shards_that_cannot_be(text: str) -> None:
    with pytest.raises(UsageError, match=r"a shard is I/N with 1 <= I <= N"):
        Shard.parse(text)


# Parquet


def test_parquet_is_written_in_row_groups_and_read_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    monkeypatch.setattr("icl_vision.tokenizers.bulk.formats.ROW_GROUP", 10)
    paths = make(tmp_path / "in", 25)
    report = tokenize_files(Levels(), paths, tmp_path / "words.parquet")
    assert parquet.ParquetFile(report.out).metadata.num_row_groups == 3
    expected = list(format_of(Path("a.jsonl")).read(tokenize_files(Levels(), paths, tmp_path / "w.jsonl").out))
    assert list(read_all(report, paths)) == expected
    assert parquet.read_table(report.out)["ids"][1].as_py() == [[0]]


# A real kill


@pytest.mark.slow
def test_killed_at_random_moments_nothing_is_lost_or_there_twice(tmp_path: Path) -> None:
    paths = make(tmp_path / "in", 40 * CHUNK, bad=tuple(range(0, 40 * CHUNK, 101)))
    whole = tokenize_files(AsciiTokenizer(2, 2), paths, tmp_path / "whole.jsonl")
    out = tmp_path / "words.jsonl"
    # A chunk takes a moment, so that a kill that is kept waiting still comes before the end.
    code = """if 1:
        import time
        from icl_vision.cli import main
        from icl_vision.files.runs import Run
        record = Run.record
        Run.record = lambda *arguments: (record(*arguments), time.sleep(0.02))
        main()
    """
    command = [sys.executable, "-c", code, "tokenize", str(tmp_path / "in"), "--tokenizer", "ascii", "--quiet"]
    command += ["--out", str(out), "--resume"]
    expected = tmp_path / "ascii.jsonl"
    tokenize_files(AsciiTokenizer(), paths, expected)
    draw = random.Random(0)
    kills = 0
    while not out.exists():
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        journal = unfinished(out) / "journal.jsonl"
        before = journal.read_bytes().count(b"\n") if journal.exists() else 0
        wanted = before + draw.randint(0, 8)
        while process.poll() is None and (journal.read_bytes().count(b"\n") if journal.exists() else 0) < wanted:
            time.sleep(0.001)
        time.sleep(draw.uniform(0, 0.05))
        process.kill()  # it may have finished meanwhile, or finish under our hands
        kills += process.wait() == -signal.SIGKILL
        # A file under its final name is the whole file, whenever the kill came.
        assert not out.exists() or out.read_bytes() == expected.read_bytes()
        assert kills < 100, "no run comes to its end"
    assert subprocess.run(command, stderr=subprocess.DEVNULL).returncode == 1
    assert kills >= 3
    assert out.read_bytes() == expected.read_bytes() and whole.bad == len(lines(bad_file(out)))
    assert not unfinished(out).exists()


@pytest.mark.slow
def test_the_benchmark_finds_its_corrupt_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = Path(__file__).resolve().parents[3] / "benchmarks"
    monkeypatch.syspath_prepend(str(place))
    bench = loaded(place / "bench_bulk.py")
    out = tmp_path / "result.json"
    arguments = [
        "--images",
        "150",
        "--corrupt",
        "7",
        "--segment",
        "64",
        "--bare",
        "32",
        "--tokenizer",
        "spae-digits-32",
    ]
    monkeypatch.setattr(sys, "argv", ["bench_bulk.py", *arguments, "--out", str(out)])
    bench.main()
    found = json.loads(out.read_text(encoding="utf-8"))
    assert (found["files"], found["images"], found["bad"]) == (150, 143, 7)
    assert found["corrupt_files_listed"] and len(found["ratios"]) >= 2
