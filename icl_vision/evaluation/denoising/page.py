"""The page of a denoising run: means, paired differences, and every picture of every row.

Knows: results and journals of ``denoising.py``. Refuses to know: how anything was measured; HTML (``viz``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from icl_vision.evaluation.denoising.evaluation import METRICS, DenoisingEvaluation
from icl_vision.viz.denoising_grid import GridRow, TaskView, page_of

if TYPE_CHECKING:
    from icl_vision.files.runs import Run


def denoising_page(evaluation: DenoisingEvaluation, run: Run, results: dict[str, Any]) -> str:
    """The whole page as HTML.

    Args:
        results: as ``results.json`` has them.
    """
    journal = dict(run.results())
    views = []
    for task in evaluation.tasks:
        puzzles = evaluation.puzzles(task)
        rows = [GridRow("intact picture", "what is to be restored", [puzzle.target for puzzle in puzzles])]
        for cell in evaluation.cells():
            if cell.task != task or cell.item not in journal:
                continue
            restored = journal[cell.item]["pictures"]
            pictures = [
                evaluation.picture_of(cell, puzzle, restored[puzzle.name].get("words"))
                if "error" not in restored[puzzle.name]
                else None
                for puzzle in puzzles
            ]
            (summed,) = [
                row
                for row in results["rows"]
                if (row["task"], row["row"]) == (task, cell.row) and row["stride"] in (None, cell.stride_name)
            ]
            name = cell.row + (f", stride {cell.stride_name}" if cell.asks else "")
            said = [f"{metric.upper()} {summed[metric]['mean']:.3g}" for metric in METRICS if summed[metric]]
            rows.append(GridRow(name, "; ".join([summed["what"], *said, *filter(None, [summed["problem"]])]), pictures))
        pairs = [pair for pair in results["pairs"] if pair["task"] == task]
        views.append(TaskView(task, results["decided"][task], rows, pairs))
    return page_of(results, views)
