"""`icl-vision eval reconstruction` of a tokenizer of clips: its run, its table, its page.

Knows: what the command's options mean for clips, and which optional measures can be had here. Refuses to know: how they
are computed.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from icl_vision.cli.options.common import bar, kept, say
from icl_vision.errors import IclVisionError, UsageError
from icl_vision.wording import counted

if TYPE_CHECKING:
    from icl_vision.evaluation.clips.sets import NamedClip
    from icl_vision.tokenizers.onnx import OnnxTokenizer

FEATURES = "words-photo"
"""The packaged tokenizer whose vectors stand in for those of FVD's network."""


def measure_clips(
    data: Path,
    tokenizer: OnnxTokenizer,
    *,
    ks: Sequence[int],
    measures: Sequence[str],
    i3d: Path | None,
    beside: str,
    limit: int,
    out: Path,
    resume: bool,
    seed: int,
    quiet: bool,
) -> dict[str, Any]:
    """Run it; what results.json of the run folder holds."""
    from icl_vision.evaluation.clips.evaluation import MEAN, MIDDLE, ClipEvaluation
    from icl_vision.evaluation.clips.page import clip_page
    from icl_vision.evaluation.clips.sets import most_moving, read_clips, squared
    from icl_vision.files.runs import Run, versions
    from icl_vision.files.storage import write_text
    from icl_vision.tokenizers.onnx import OnnxTokenizer
    from icl_vision.tokenizers.wrapping import fingerprint

    if other := sorted(set(measures) & {"guidance", "reader"}):
        raise UsageError(f"--measure {', '.join(other)} is for pictures; of clips lpips and frechet can be measured")
    clips = squared(read_clips(data, frames=tokenizer.frames, limit=limit, seed=seed), tokenizer.preprocessing.batch)
    groups = {"most moving": most_moving(clips), **_twins(data, clips, tokenizer, seed)}
    notes: dict[str, str] = {}
    evaluation = ClipEvaluation(
        clips,
        tokenizer,
        ks=ks or None,
        image=None if beside == "none" else OnnxTokenizer.from_pretrained(beside),
        perceptual=_tool("lpips", _lpips, measures, notes),
        features=_tool("frechet", lambda: _features(i3d), measures, notes),
        groups=groups,
    )
    for name, why in notes.items():
        say(f"{name}: {why}", quiet=quiet)
    config = {
        "data": data.name,
        "clips": len(clips),
        "tokenizer": fingerprint(tokenizer),
        "beside": beside if evaluation.image is None else fingerprint(evaluation.image),
        "ks": list(evaluation.ks or ()),
        "measures": sorted(set(measures) - set(notes)),
        "seed": seed,
        "limit": limit,
    }
    started = time.monotonic()
    with kept(out, quiet=quiet), Run.open(out, "eval reconstruction", config, seed=seed, resume=resume) as run:
        with bar(len(clips), "clip", quiet=quiet, done=len(run.done)) as done:
            evaluation.measure(run, done=done)
        results: dict[str, Any] = {
            "format_version": 1,
            "kind": "clip reconstruction",
            "tokenizer": tokenizer.name,
            "config": config,
            **(found := evaluation.summary(run)),
            # Features of every frame of every row would take longer than all the rest.
            "frechet": evaluation.frechet(
                [*(f"{k} words" for k in evaluation.ks or ()), MIDDLE, MEAN, *found["best_image"].values()]
            ),
            "notes": notes,
            "seconds": time.monotonic() - started,
            "versions": versions(),
        }
        run.finish(results)
        write_text(Path(run.folder) / "report.html", clip_page(evaluation, results))
    return results


def clip_table(results: dict[str, Any]) -> str:
    """For people: a line for each row and group, and what is shown of the deepest row."""
    from icl_vision.evaluation.clips.page import heads, lines

    text = [f"{results['tokenizer']} on {counted(results['n'], 'clip')} (mean, 95% interval)"]
    for group, members in results["groups"].items():
        if not members:
            continue
        columns = heads(results, group)[1:]
        text.append(
            f"\n{group}: {counted(members, 'clip')}".ljust(30) + "".join(column.rjust(24) for column in columns)
        )
        for first, *cells in lines(results, group):
            text.append(first.ljust(30) + "".join(cell.rjust(24) for cell in cells))
    deepest = max(results["config"]["ks"])
    for pair in results["pairs"]:
        if pair["k"] == deepest and pair["metric"] == "psnr":
            low, high = pair["interval"]
            other = pair["second"] if pair["second"] == pair["row"] else f"{pair['second']} ({pair['row']})"
            text.append(
                f"{deepest} words minus {other}, {pair['group']}: {pair['difference']:+.2f} "
                f"dB [{low:+.2f}, {high:+.2f}], {pair['wins']} of {pair['n']} won"
            )
    if results["frechet"]:
        text.append(f"the distance of sets: {results['frechet']['name']}, {results['frechet']['n']} clips in each")
    for usage in results["words"]:
        text.append(
            f"layer {usage['layer']}: {counted(usage['distinct'], 'word')} used, perplexity {usage['perplexity']:.0f}"
        )
    return "\n".join(text)


def _twins(data: Path, clips: Sequence[NamedClip], tokenizer: OnnxTokenizer, seed: int) -> dict[str, set[str]]:
    """The clips with a near-twin in the training part of the same set, and the others; none where it has no parts."""
    from icl_vision.evaluation.clips.sets import near_twins, read_clips, squared

    if data.suffix.lower() == ".npz" or (data.is_dir() and not (data / "clips.jsonl").is_file()):
        return {}
    try:
        # Sampled as the clips asked about are: at fewer frames the first would be another moment.
        training = read_clips(data, frames=tokenizer.frames, part="train", seed=seed, keep=1)
    except UsageError:
        return {}  # a set without a training part
    twins = near_twins(clips, squared(training, tokenizer.preprocessing.batch))
    return {"near-twins": twins, "without near-twins": {clip.name for clip in clips} - twins}


def _tool(name: str, make: Any, measures: Sequence[str], notes: dict[str, str]) -> Any:
    """What was asked for and can be had; what cannot is said in ``notes``."""
    if name not in measures:
        return None
    try:
        return make()
    except ModuleNotFoundError as error:
        notes[name] = f"not measured: {error}; install it with: pip install 'icl-vision[train]'"
    except IclVisionError as error:
        notes[name] = f"not measured: {error}"
    return None


def _lpips() -> Any:
    from icl_vision.models.losses import instruments

    return instruments.perceptual()


def _features(i3d: Path | None) -> Any:
    from icl_vision.evaluation.clips.distance import FramesInOrder
    from icl_vision.tokenizers.onnx import OnnxTokenizer

    if i3d is None:
        return FramesInOrder(OnnxTokenizer.from_pretrained(FEATURES).embed, "EfficientNet-Lite0")
    from icl_vision.models.losses.clip_features import I3DFeatures

    return I3DFeatures(i3d)
