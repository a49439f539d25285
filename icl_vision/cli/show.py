"""`icl-vision show`: images as a tokenizer sees them, on a page or in a picture.

Knows: the command's options and what it prints. Refuses to know: how words are made, and how they are drawn.
One bad file never stops the others: it is named on stderr and the exit code is 1 at the end.
"""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from icl_vision.cli.options.common import (
    OF_CLIPS,
    Sampling,
    about_option,
    for_clips,
    force_option,
    json_option,
    parts_option,
    print_json,
    quiet_option,
    sampling_options,
    say,
    tell_of_first_frames,
    tokenizer_for,
    tokenizer_option,
    try_out,
)
from icl_vision.cli.speaking import for_shells
from icl_vision.errors import ImageError
from icl_vision.files.storage import atomic_path, readable, write_text

if TYPE_CHECKING:
    from icl_vision.tokenizers import ImageTokenizer
    from icl_vision.viz.pyramids.clips import ClipLook
    from icl_vision.viz.pyramids.look import PyramidLook

PAGE, PICTURE = ".html", ".png"
DEFAULT = "spae-photo-128"  # photographs to words on grids and back, which is what there is most to see of


@click.command("show")
@click.argument("images", nargs=-1, required=True, type=click.Path(), metavar="IMG...")
@tokenizer_option(DEFAULT, clips=True)
@click.option(
    "-k",
    "k",
    type=click.IntRange(min=1),
    default=None,
    help="Words per image. Default: the tokenizer's own (every layer of a pyramid, 5 for words-photo), to show all "
    "there is. A pyramid accepts the counts that fill whole layers, e.g. 1, 5, 21, 85.",
)
@about_option
@parts_option
@sampling_options
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    required=True,
    metavar="PAGE.html|PNG",
    help="Where it goes: .html is one page that holds everything it shows, for any number of images; .png is one "
    "picture of one image.",
)
@force_option
@json_option
@quiet_option
@click.pass_context
def command(
    ctx: click.Context,
    images: tuple[str, ...],
    tokenizer: str,
    k: int | None,
    about: str | None,
    parts: list[str] | None,
    sampling: Sampling,
    out: Path,
    force: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Show images, or clips, as a tokenizer sees them: words over them, layer by layer, and what comes back from them.

    Of clips (animated GIF, WebP or PNG, video files, folders of frames) the page moves: words over time, and the clip
    made again at each depth; a .png is a sheet of the clip's frames.

    With --json the output is {out, images: [{image, k, words, similarity, similarity_to, psnr}]}: words and similarity
    hold one list per layer, and both similarity entries are null where the tokenizer has no word vectors; psnr holds
    one number of dB per layer, null where nothing comes back. Words that have parts are one list per part, with
    {parts, probabilities, text} beside them and, with --about, {used}: those chosen for the question, by part. A file
    that cannot be used is {image, error}. Such files are named on stderr too; the others are shown, and the exit code
    is 1 at the end.
    """
    kind = out.suffix.lower()
    if kind not in (PAGE, PICTURE):
        raise click.BadParameter(f"{str(out)!r} must end in .html or .png", param_hint="--out")
    if kind == PICTURE and len(images) > 1:
        raise click.UsageError(
            f"a .png shows one image, {len(images)} were given; use --out PAGE.html for several, or one call each"
        )
    from icl_vision.cli.tokenize import one_line

    try_out(out, folder=False, force=force)
    tokenizer = for_clips(ctx, tokenizer, images)
    loaded = tokenizer_for(tokenizer, parts, sampling)
    results = _look(images, loaded, k, about)
    looks = [shown for shown in results if not isinstance(shown, ImageError)]
    if looks:
        from icl_vision.viz.benchmark.table import bare
        from icl_vision.viz.pyramids.look import command_line

        again = command_line(
            looks, k=k, tokenizer=bare(tokenizer), parts=parts, more=sampling.words, out=_shown(out.name)
        )
        _write(out, looks, again)
        count = f"{len(looks)} {loaded.takes.several}" if len(looks) > 1 else one_line(looks[0].name)
        say(f"{count} shown in {out}", quiet=quiet)
    if loaded.takes.one == "image":
        fine = [path for path, shown in zip(images, results, strict=True) if not isinstance(shown, ImageError)]
        tell_of_first_frames(fine, "shown", f"--tokenizer {OF_CLIPS} takes clips", quiet=quiet)
    if as_json:
        records = [_record(path, shown) for path, shown in zip(images, results, strict=True)]
        print_json({"out": str(out) if looks else None, "images": records})
    bad = [result for result in results if isinstance(result, ImageError)]
    for error in bad:
        say(one_line(_reason(error)))
    if bad:
        ctx.exit(1)


def _look(
    images: tuple[str, ...], tokenizer: ImageTokenizer, k: int | None, about: str | None
) -> list[PyramidLook | ClipLook | ImageError]:
    """What there is to show of each image (or clip), or what is wrong with it."""
    from icl_vision.tokenizers.wrapping import check_about
    from icl_vision.viz.pyramids.look import look

    clips = tokenizer.takes.one == "clip"
    if clips:
        check_about(tokenizer, about)
    results: list[PyramidLook | ClipLook | ImageError] = []
    for path, name in zip(images, _names(images), strict=True):
        try:
            if clips:
                results.append(_of_clip(path, tokenizer, k, name))
            else:
                results.append(_measured(look(path, tokenizer, k=k, name=name, about=about)))
        except ImageError as error:
            results.append(error)
    return results


def _of_clip(path: str, tokenizer: ImageTokenizer, k: int | None, name: str) -> ClipLook:
    from icl_vision.viz.pyramids.clips import look_at_clip, psnr_of

    shown = look_at_clip(path, tokenizer, k=k, name=name)
    if any(frames.shape != shown.seen.shape for frames in shown.decoded):
        return shown
    return dataclasses.replace(shown, psnr=psnr_of(shown.seen, shown.decoded))


def _measured(shown: PyramidLook) -> PyramidLook:
    """With the PSNR of each reconstruction, where it has the size of what went in."""
    if not shown.decoded or any(image.size != shown.seen.size for image in shown.decoded):
        return shown
    import numpy as np

    from icl_vision.evaluation.kit.image_metrics import psnr

    decoded = np.stack([np.asarray(image.convert("RGB")) for image in shown.decoded])
    seen = np.broadcast_to(np.asarray(shown.seen.convert("RGB")), decoded.shape)
    return dataclasses.replace(shown, psnr=tuple(psnr(seen, decoded).tolist()))


def _write(out: Path, looks: list[PyramidLook | ClipLook], command: str) -> None:
    from icl_vision.viz.pyramids.clips import ClipLook, render_clip_page, sheet
    from icl_vision.viz.pyramids.page import render_pyramid_page
    from icl_vision.viz.pyramids.picture import draw_pyramid

    clips = [shown for shown in looks if isinstance(shown, ClipLook)]  # all are, or none
    images = [shown for shown in looks if not isinstance(shown, ClipLook)]
    if out.suffix.lower() == PAGE:
        page = render_clip_page(clips, command=command) if clips else render_pyramid_page(images, command=command)
        write_text(out, page)
        return
    with atomic_path(out) as temporary:
        drawn = sheet(clips[0]) if clips else draw_pyramid(images[0], command=command)
        drawn.save(temporary, format="PNG")


def _record(path: str, shown: PyramidLook | ClipLook | ImageError) -> dict[str, Any]:
    from icl_vision.image_words import ImageWords
    from icl_vision.tokenizers.bulk.formats import row_of

    if isinstance(shown, ImageError):
        return {"image": _shown(path), "error": _reason(shown)}
    pyramid, similarity = shown.pyramid, shown.similarity
    if isinstance(pyramid, ImageWords):
        row = row_of(path, pyramid)
        used = getattr(shown, "used", None)
        chosen = {} if used is None else {"used": {name: used.words(name) for name in used.names}}
        return {**row, "similarity": None, "similarity_to": None, "psnr": None, **chosen}
    cosines = None
    if similarity is not None:
        cosines = [layer.ravel().astype(float).round(6).tolist() for layer in similarity.layers]
    return {
        "image": _shown(path),
        "k": pyramid.k,
        "words": [pyramid.words(layer) for layer in range(1, pyramid.layers + 1)],
        "similarity": cosines,
        "similarity_to": None if similarity is None else similarity.reference,
        "psnr": [round(value, 3) if math.isfinite(value) else None for value in shown.psnr] or None,
    }


def _reason(error: ImageError) -> str:
    return for_shells(f"{type(error).__name__}: {error}")


def _names(images: tuple[str, ...]) -> list[str]:
    """What the page calls the images: their file names, with their folders' where that tells two apart."""
    names = [Path(path).name for path in images]
    if len(set(names)) < len(names):
        names = ["/".join(Path(path).parts[-2:]) for path in images]
    return [_shown(name) for name in names]


def _shown(path: str) -> str:
    """A file name need not be valid text; pages and JSON must be."""
    return readable(path)
