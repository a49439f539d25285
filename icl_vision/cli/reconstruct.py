"""`icl-vision reconstruct`: an image through its words and back.

Knows: the command's options and what it prints. Refuses to know: how words are made and decoded.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import click

from icl_vision.cli.options.common import (
    OF_CLIPS,
    Sampling,
    for_clips,
    force_option,
    json_option,
    print_json,
    quiet_option,
    sampling_options,
    say,
    taken_by_name,
    tokenizer_option,
    try_out,
)
from icl_vision.clips.saving import SAVED_SUFFIXES
from icl_vision.wording import counted

if TYPE_CHECKING:
    from icl_vision.pyramid import TokenPyramid
    from icl_vision.tokenizers.onnx import OnnxTokenizer

DECODER = "spae-digits-32"
"""The packaged tokenizer that can decode."""


@click.command("reconstruct")
@click.argument("image", type=click.Path(exists=True), metavar="IMG|CLIP")
@tokenizer_option(DECODER, clips=True)
@click.option(
    "-k",
    "k",
    type=click.IntRange(min=1),
    default=None,
    help="Decode from the first K words only; a count that fills whole layers, e.g. 1, 5, 21. Default: all of them, "
    "for the best picture.",
)
@sampling_options
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    required=True,
    metavar="PNG|WEBP|GIF",
    help="Where the picture goes, a .png: exactly the decoded pixels, nothing around them; of a photograph that is no "
    "square, in its own shape. A clip moves: .webp, .gif, or .png and .apng.",
)
@force_option
@json_option
@quiet_option
@click.pass_context
def command(
    ctx: click.Context,
    image: str,
    tokenizer: str,
    k: int | None,
    sampling: Sampling,
    out: Path,
    force: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Turn an image, or a clip, into words and the words back into an image or a clip.

    With --json the output is {image, tokenizer, k, words, psnr, out}: words holds one list per layer, and psnr (in dB)
    compares the result with the image as the tokenizer takes it.
    """
    tokenizer = for_clips(ctx, tokenizer, [image])
    clips = taken_by_name(tokenizer).one == "clip"
    suffixes = SAVED_SUFFIXES if clips else (".png",)
    if out.suffix.lower() not in suffixes:
        why = "" if clips or out.suffix.lower() not in SAVED_SUFFIXES else f": {_no_clip(image, tokenizer)}"
        raise click.BadParameter(f"{str(out)!r} must end in {' or '.join(suffixes)}{why}", param_hint="--out")
    try_out(out, folder=False, force=force)
    import numpy as np

    from icl_vision.evaluation.kit.image_metrics import psnr
    from icl_vision.files.storage import atomic_path
    from icl_vision.images import load_image
    from icl_vision.tokenizers.onnx import OnnxTokenizer

    loaded = OnnxTokenizer.from_pretrained(tokenizer, **sampling.of(tokenizer))
    if clips:
        pyramid, quality = _clip(loaded, image, k, out)
    else:
        picture = load_image(image)
        (pyramid,) = loaded.encode(picture, k)
        (rebuilt,) = loaded.decode(pyramid)
        with atomic_path(out) as temporary:
            loaded.preprocessing.restore(rebuilt, picture.size).save(temporary, format="PNG")
        truth = loaded.preprocessing.batch([picture])
        (quality,) = psnr(truth, np.asarray(rebuilt)[None])
    words = [pyramid.words(layer) for layer in range(1, pyramid.layers + 1)]
    if as_json:
        print_json({"image": image, "tokenizer": loaded.name, "k": pyramid.k, "words": words, "psnr": float(quality),
                    "out": str(out)})  # fmt: skip
    else:
        say(f"{counted(pyramid.k, 'word')}, PSNR {quality:.1f} dB, written to {out}", quiet=quiet)


def _no_clip(source: str, tokenizer: str) -> str:
    """Why a file that moves cannot be made of it: it is no clip that can be read, or goes to a tokenizer of images."""
    from icl_vision.clips import load_clip
    from icl_vision.errors import ImageError

    try:
        load_clip(source, frames=1)
    except ImageError as error:
        return str(error)
    return f"the tokenizer {tokenizer!r} takes images; for clips take --tokenizer {OF_CLIPS}"


def _clip(tokenizer: OnnxTokenizer, source: str, k: int | None, out: Path) -> tuple[TokenPyramid, float]:
    """A clip through its words and back into a file, in its own shape and as long as it was; the words and the PSNR."""
    import numpy as np

    from icl_vision.clips import save_clip
    from icl_vision.viz.pyramids.clips import frame_ms, psnr_of

    clip = np.asarray(tokenizer.takes.load(source))
    (pyramid,) = tokenizer.encode([clip], k)
    (frames,) = cast("list[Any]", tokenizer.decode(pyramid))
    size = (clip.shape[2], clip.shape[1])
    shaped = [tokenizer.preprocessing.restore(frame, size) for frame in frames]
    save_clip(shaped, out, ms=frame_ms(source, len(frames), tokenizer.takes))
    truth = tokenizer.preprocessing.clip(clip)
    (quality,) = psnr_of(truth, [np.stack([np.asarray(frame) for frame in frames])])
    return pyramid, quality
