"""`icl-vision reconstruct`: an image through its words and back.

Knows: the command's options and what it prints. Refuses to know: how words are made and decoded.
"""

from __future__ import annotations

from pathlib import Path

import click

from icl_vision.cli.options.common import (
    force_option,
    json_option,
    print_json,
    quiet_option,
    say,
    tokenizer_option,
    try_out,
)
from icl_vision.wording import counted

DECODER = "spae-digits-32"
"""The packaged tokenizer that can decode."""


@click.command("reconstruct")
@click.argument("image", type=click.Path(exists=True, dir_okay=False), metavar="IMG")
@tokenizer_option(DECODER)
@click.option(
    "-k",
    "k",
    type=click.IntRange(min=1),
    default=None,
    help="Decode from the first K words only; a count that fills whole layers, e.g. 1, 5, 21. Default: all of them, "
    "for the best picture.",
)
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    required=True,
    metavar="PNG",
    help="Where the picture goes: exactly the decoded pixels, nothing around them; of a photograph that is no square, "
    "in its own shape.",
)
@force_option
@json_option
@quiet_option
def command(image: str, tokenizer: str, k: int | None, out: Path, force: bool, as_json: bool, quiet: bool) -> None:
    """Turn an image into words and the words back into an image.

    With --json the output is {image, tokenizer, k, words, psnr, out}: words holds one list per layer, and psnr (in dB)
    compares the result with the image as the tokenizer takes it.
    """
    if out.suffix.lower() != ".png":
        raise click.BadParameter(f"{str(out)!r} must end in .png", param_hint="--out")
    try_out(out, folder=False, force=force)
    import numpy as np

    from icl_vision.evaluation.kit.image_metrics import psnr
    from icl_vision.files.storage import atomic_path
    from icl_vision.images import load_image
    from icl_vision.tokenizers.onnx import OnnxTokenizer

    loaded = OnnxTokenizer.from_pretrained(tokenizer)
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
