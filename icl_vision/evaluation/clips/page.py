"""The page of a run over clips: the first of them as every row made them, means over groups, paired differences.

Knows: results of ``evaluation.py``. Refuses to know: how anything was measured; HTML (``viz``).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from icl_vision.evaluation.clips.evaluation import ALL, ClipEvaluation
from icl_vision.evaluation.kit.metrics import mean_text
from icl_vision.viz.clips_grid import ClipRow, clips_page, differences, table
from icl_vision.wording import counted

SHOWN = 8
"""Clips a row shows, the ones that move most first."""
DIGITS = {"psnr": 2, "ssim": 3, "lpips": 3, "motion_psnr": 2, "movement": 2}


def clip_page(evaluation: ClipEvaluation, results: Mapping[str, Any], shown: int = SHOWN) -> str:
    """The whole page as HTML.

    Args:
        results: as ``results.json`` has them.
        shown: so many clips as pictures.
    """
    from icl_vision.evaluation.clips.measures import motion_of

    clips = sorted(evaluation.clips, key=lambda clip: (-motion_of(clip.frames), clip.name))[:shown]
    frames = [clip.frames for clip in clips]
    rows = [ClipRow("the clips", "as the tokenizer takes them", frames)]
    rows += [ClipRow(row.name, row.what, row.make(frames)) for row in evaluation.rows()]
    lead = [
        f"{counted(results['n'], 'clip')}, tokenizer {results['tokenizer']}. Every row is measured on the same clips; "
        "those shown are the ones that move most. PSNR is of a clip's squared error over all frames together; SSIM and "
        "LPIPS are means over frames; motion PSNR compares the differences of neighbouring frames; movement is how "
        "much a row moves as a share of how much the clip does."
    ]
    if results.get("frechet"):
        lead.append(f"The distance of sets: {results['frechet']['name']}, {results['frechet']['n']} clips in each.")
    return clips_page("Clips through words", lead, [clip.says or clip.name for clip in clips], rows, _tables(results))


def lines(results: Mapping[str, Any], group: str) -> list[list[str]]:
    """A line for each row: its name and its means over a group of clips."""
    # The distance is of whole sets: it is told where the whole set is.
    distances = (results.get("frechet") or {}).get("at", {}) if group == ALL else {}
    return [
        [row["row"]]
        + [mean_text(row["groups"][group][metric], digits) for metric, digits in DIGITS.items()]
        + ([f"{distances[row['row']]:.2f}" if row["row"] in distances else "-"] if distances else [])
        for row in results["rows"]
    ]


def heads(results: Mapping[str, Any], group: str) -> list[str]:
    """What the columns of ``lines`` are."""
    distance = [results["frechet"]["name"].split(" (")[0]] if results.get("frechet") and group == ALL else []
    return ["row", "PSNR", "SSIM", "LPIPS", "motion PSNR", "movement", *distance]


def _tables(results: Mapping[str, Any]) -> str:
    parts = []
    for group, members in results["groups"].items():
        if members:
            said = f"{'all' if group == ALL else group}: {counted(members, 'clip')}"
            parts.append(table([said, *heads(results, group)[1:]], lines(results, group)))
    return "".join(parts) + differences(results["pairs"])
