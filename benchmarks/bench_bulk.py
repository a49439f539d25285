"""Thousands of .jpg files to words: the rate against that of the bare graph, memory, and corrupt files among them.

    python benchmarks/bench_bulk.py --tokenizer spae-photo-128 --out FILE.json
    python benchmarks/bench_bulk.py --tokenizer spae-photo-128 --data DIR

Knows: making the files, timing one run of ``tokenize_files`` from inside. Refuses to know: what the words are worth.

The files are seeded crops of the packaged photographs, scaled to 300 px (the long side of Caltech-101's) and saved
again; --data takes a folder of yours (its first --images files are linked). Corrupt ones (cut off, empty, text, noise,
a header that claims 60,000 x 60,000 pixels) lie among them at seeded places.

The run is one run. Every --segment files it is stopped for as long as the bare graph takes for --bare images that are
in memory already, so that a noisy neighbour slows both alike; ``ratio`` is the median of the ratios of neighbours,
``ratio_overall`` is files / (all time but the stops, with the writing of the finished file), against the median bare
rate. Peak memory (VmHWM) is read after 1,000 files and at the end.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from _common import header, write
from bench_words_photo import resident_mib

SEED = 0
LONG_SIDE = 300
TARGET = 0.90


def make_images(folder: Path, count: int, seed: int, data: Path | None) -> None:
    """``count`` .jpg files in ``folder``."""
    import icl_vision
    from icl_vision.images import list_images, load_image

    draw = random.Random(seed)
    if data is not None:
        for number, path in enumerate(list_images(data)[:count]):
            (folder / f"{number:06d}{path.suffix.lower()}").symlink_to(path.resolve())
        return
    sources = [load_image(path) for path in list_images(Path(icl_vision.__file__).parent / "demo_data")]
    for number in range(count):
        image = draw.choice(sources)
        part = draw.uniform(0.6, 1.0)
        size = [max(1, round(side * part)) for side in image.size]
        left, top = (draw.randint(0, whole - side) for whole, side in zip(image.size, size, strict=True))
        scale = LONG_SIDE / max(size)
        crop = image.resize(
            (round(size[0] * scale), round(size[1] * scale)), box=(left, top, left + size[0], top + size[1])
        )
        crop.save(folder / f"{number:06d}.jpg", quality=draw.randint(80, 95))


def spoil(folder: Path, count: int, seed: int) -> set[str]:
    """Replace ``count`` of the files by corrupt ones; their paths."""
    draw = random.Random(seed + 1)
    chosen = draw.sample(sorted(folder.iterdir()), count)
    for number, path in enumerate(chosen):
        whole = path.read_bytes()
        path.unlink()  # it may be a link
        header_of_bomb = b"\xff\xd8\xff\xc0\x00\x11\x08\xea\x60\xea\x60\x03\x01\x22\x00\x02\x11\x01\x03\x11\x01"
        kinds = [whole[: len(whole) // 3], b"", b"no image at all\n", draw.randbytes(5000), header_of_bomb]
        path.write_bytes(kinds[number % len(kinds)])
    return {str(path) for path in chosen}


def bare(tokenizer: Any, count: int, paths: list[Path]) -> Callable[[], float]:
    """A function that runs the graph on ``count`` images in memory and gives images per second."""
    from icl_vision.errors import ImageError
    from icl_vision.images import load_image

    images = []
    for path in paths:
        if len(images) == count:
            break
        try:
            images.append(tokenizer.preprocessing.apply(load_image(path)))
        except ImageError:
            continue
    pixels = tokenizer.preprocessing.batch(images)
    size = tokenizer.batch_size

    def run() -> float:
        start = time.perf_counter()
        for first in range(0, len(pixels), size):
            tokenizer._run("encoder.onnx", {"pixels": pixels[first : first + size]}, "ids")
        return len(pixels) / (time.perf_counter() - start)

    run()
    return run


class Watch:
    """The progress callback: closes a segment every so many files, then times the bare graph."""

    def __init__(self, segment: int, run_bare: Callable[[], float]) -> None:
        self.segment, self.run_bare = segment, run_bare
        self.done = self.in_segment = 0
        self.stopped = 0.0
        self.pairs: list[tuple[float, float]] = []
        self.peaks: dict[str, float | None] = {"at_start": resident_mib("VmHWM")}
        self.began = self.start = time.perf_counter()

    def __call__(self, count: int) -> None:
        self.done += count
        self.in_segment += count
        if self.done >= 1000 and "at_1000" not in self.peaks:
            self.peaks["at_1000"] = resident_mib("VmHWM")
        if self.in_segment < self.segment:
            return
        now = time.perf_counter()
        rate = self.in_segment / (now - self.start)
        self.pairs.append((rate, self.run_bare()))
        self.start, self.in_segment = time.perf_counter(), 0
        self.stopped += self.start - now


def measure(options: argparse.Namespace, threads: int, folder: Path) -> dict[str, Any]:
    from icl_vision.images import list_images
    from icl_vision.tokenizers.bulk.files import bad_file, tokenize_files
    from icl_vision.tokenizers.onnx import OnnxTokenizer

    photos = folder / "photos"
    photos.mkdir()
    make_images(photos, options.images, options.seed, options.data)
    corrupt = spoil(photos, options.corrupt, options.seed)
    paths = list_images(photos)
    tokenizer = OnnxTokenizer.from_pretrained(options.tokenizer, providers=options.provider, threads=threads)
    run_bare = bare(tokenizer, options.bare, paths)
    out = folder / f"words{options.format}"
    watch = Watch(options.segment, run_bare)
    report = tokenize_files(tokenizer, paths, out, workers=options.workers, progress=watch)
    seconds = time.perf_counter() - watch.began - watch.stopped
    finishing = time.perf_counter() - watch.start if not watch.in_segment else None
    watch.peaks["at_end"] = resident_mib("VmHWM")
    listed = [json.loads(line)["image"] for line in bad_file(out).read_text().splitlines()] if report.bad else []
    bulk, graph = (statistics.median(rates) for rates in zip(*watch.pairs, strict=True))
    overall = len(paths) / seconds
    before, after = watch.peaks.get("at_1000"), watch.peaks["at_end"]
    return {
        "files": len(paths),
        "images": report.images,
        "bad": report.bad,
        "corrupt_files_listed": sorted(listed) == sorted(corrupt),
        "file_mb": round(out.stat().st_size / 1e6, 2),
        "bulk_images_per_s": bulk,
        "bare_graph_images_per_s": graph,
        "ratio": statistics.median(ours / other for ours, other in watch.pairs),
        "ratios": [ours / other for ours, other in watch.pairs],
        "overall_images_per_s": overall,
        "ratio_overall": overall / graph,
        "seconds_to_finish_the_file": finishing,
        "peak_mib": watch.peaks,
        "growth_after_1000_mib": None if before is None or after is None else after - before,
        "target": TARGET,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--tokenizer", default="spae-photo-128", help="name or folder (default: spae-photo-128)")
    parser.add_argument("--images", type=int, default=5000, help="files, corrupt ones among them (default: 5000)")
    parser.add_argument("--corrupt", type=int, default=20, help="corrupt ones (default: 20)")
    parser.add_argument("--data", type=Path, help="take the images of this folder instead of made-up ones")
    parser.add_argument("--segment", type=int, default=480, help="files between two looks at the bare graph")
    parser.add_argument("--bare", type=int, default=192, help="images of one look")
    parser.add_argument("--workers", type=int, default=0, help="processes that read (default: 0, threads)")
    parser.add_argument("--provider", default="cpu", choices=("cpu", "cuda"), help="default: cpu")
    parser.add_argument("--threads", type=int, help="of the graph; default: the cores this process may use")
    parser.add_argument("--format", default=".jsonl", choices=(".jsonl", ".parquet"))
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "bench_bulk.json")
    options = parser.parse_args()
    head = header(options.seed)
    threads = options.threads or head["machine"]["cores"]
    with tempfile.TemporaryDirectory() as folder:
        found = measure(options, threads, Path(folder))
    names = ("tokenizer", "workers", "provider", "format", "segment", "bare")
    write(options.out, {**head, **{name: getattr(options, name) for name in names}, "threads": threads, **found})
    met = "met" if found["ratio"] >= TARGET else "MISSED"
    print(f"{found['files']} files, {found['images']} images, {found['bad']} bad", end="; ")
    print(f"the corrupt ones are {'' if found['corrupt_files_listed'] else 'NOT '}the ones listed")
    bulk, graph = found["bulk_images_per_s"], found["bare_graph_images_per_s"]
    print(f"{bulk:.1f} images/s in bulk, {graph:.1f} through the bare graph", end="; ")
    print(f"ratio {found['ratio']:.3f} (target {TARGET}: {met}), with the file's writing {found['ratio_overall']:.3f}")
    peaks = ", ".join(f"{name} {value:.0f} MiB" for name, value in found["peak_mib"].items() if value)
    print(f"peak memory: {peaks}")
    print(f"written: {options.out}")
    if not found["corrupt_files_listed"]:
        raise SystemExit("the list of bad files is not that of the corrupt ones")


if __name__ == "__main__":
    main()
