"""One image and everything that a picture of its pyramid needs: words, similarities, frame, reconstructions.

Knows: how a tokenizer frames an image, which vectors similarity is measured with, what can be decoded.
Refuses to know: pages, pictures, colours.

Similarity is the cosine of a word's codebook vector with one vector for the whole image: ``tokenizer.embed`` where
that is as wide as the codebook, otherwise the mean vector of the coarsest words. Which one it was is always said.
"""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from icl_vision.codebook import normalise
from icl_vision.errors import PyramidError
from icl_vision.image_words import ImageWords
from icl_vision.images import load_image
from icl_vision.tokenizers.pixels import Preprocessing
from icl_vision.tokenizers.wrapping import check_about
from icl_vision.viz.pyramids.parts import with_used

if TYPE_CHECKING:
    from PIL import Image

    from icl_vision.images import ImageSource
    from icl_vision.pyramid import TokenPyramid
    from icl_vision.tokenizers import ImageTokenizer

SIDE = 640
"""The longer side of the picture behind the words, in pixels, at most."""

COARSEST = 5
"""Words whose mean vector stands for the image where the tokenizer has no vector of the image in the words' space."""

_CHANCE = 0.65
"""A layer whose middle word has a lower rank among all words is called random in meaning; 0.5 is exactly so, and 64
random words stay below this 99 times of 100."""

_NARROWEST, _WIDEST = 0.6, 2.5  # longer strips would leave no room for words in their cells


@dataclass(frozen=True, eq=False)
class Similarity:
    """How near each word lies to the image.

    layers: cosines, float32 of each grid's shape. reference: in words, the vector compared with. vocabulary: the cosine
    of every word of the codebook, float32 [T] in ascending order, which says what a cosine is worth. own: layers, from
    the first on, whose own words the vector is the mean of: that they lie near it says nothing of the image.
    """

    layers: tuple[npt.NDArray[np.float32], ...]
    reference: str
    vocabulary: npt.NDArray[np.float32]
    own: int = 0

    @property
    def low(self) -> float:
        """The least cosine of all layers."""
        return min(float(layer.min()) for layer in self.layers)

    @property
    def high(self) -> float:
        """The greatest cosine of all layers."""
        return max(float(layer.max()) for layer in self.layers)

    @property
    def chance(self) -> float:
        """The mean cosine of all words: what words picked at random would have."""
        return float(self.vocabulary.mean())

    def rank(self, layer: int) -> float:
        """The share of all words that lie less near than the middle one of a layer's; 0.5 for random words."""
        middle = np.median(self.layers[layer - 1])
        return float(np.searchsorted(self.vocabulary, middle)) / len(self.vocabulary)

    def verdict(self, layer: int) -> str:
        """What that share means for a reader of the layer's words, in one clause."""
        rank = self.rank(layer)
        if layer <= self.own:
            share = f"nearer to their own mean than {min(99, int(100 * rank))}% of all words"
            return f"{share}: how much alike they are; of the image it says nothing"
        if rank < _CHANCE:
            return "no nearer to the image than words picked at random: they hold its looks, not its meaning"
        return f"nearer to the image than {min(99, int(100 * rank))}% of all words"


@dataclass(frozen=True, eq=False)
class PyramidLook:
    """One image as a tokenizer sees it.

    name: what to call the image. tokenizer: its name. seen: exactly the pixels that the tokenizer takes, where it says
    how it takes them, else the image. backdrop: the same part of the image with as many pixels as there are, at most
    ``SIDE``, in the shape to draw in (an image squeezed into a square is drawn in its own shape again).
    framing: one sentence on that. similarity: None where there are no vectors. decoded: the reconstruction from the
    first n layers, n = ``draws_from``, ``draws_from + 1`` ...; empty where there is none. draws_from: the first number
    of layers that makes a picture (the layers before only name). psnr: how near each of those comes to ``seen``, in
    dB; empty where nobody measured it. about, used: a question, and those of the words that were chosen for it.
    """

    name: str
    tokenizer: str
    pyramid: TokenPyramid
    seen: Image.Image
    backdrop: Image.Image
    framing: str
    similarity: Similarity | None
    decoded: tuple[Image.Image, ...] = ()
    psnr: tuple[float, ...] = ()
    draws_from: int = 1
    about: str | None = None
    used: ImageWords | None = None

    @property
    def flat(self) -> bool:
        """A list of words, best first, rather than places on the image."""
        return is_flat(self.pyramid)

    @property
    def one_grid(self) -> bool:
        """One layer of several words, each at its place: none is coarser than another, and to read one after the other
        they are a heap. Their grid shows all there is."""
        return self.pyramid.vocabulary is not None and not self.flat and self.pyramid.layers == 1 < self.pyramid.k

    @property
    def medium(self) -> str:
        """What the image is given in: "words" or "characters"."""
        return "characters" if self.pyramid.vocabulary is None else "words"


def look(
    source: ImageSource,
    tokenizer: ImageTokenizer,
    *,
    k: int | None = None,
    name: str = "image",
    about: str | None = None,
) -> PyramidLook:
    """Encode one image and gather what there is to show of it.

    Args:
        source: whatever ``load_image`` takes.
        tokenizer: any; what it cannot do (decode, embed) is left out.
        k: words, as for ``ImageTokenizer.encode``; None for the tokenizer's default.
        name: what to call the image.
        about: a question, where the tokenizer can focus: the words chosen for it are marked among the others.

    Raises:
        ImageError: the image cannot be used.
        PyramidError: the tokenizer has no such ``k``, or its grids are not those of a single image.
        UsageError: ``about`` where it cannot be.
    """
    check_single_image(tokenizer.layout.grids, tokenizer.name)
    check_about(tokenizer, about)
    image = load_image(source)
    (pyramid,) = tokenizer.encode(image, k)
    used: TokenPyramid | None = None
    if about is not None:
        (whole,) = tokenizer.encode(image, tokenizer.focus_from)
        used = tokenizer.focus(whole, about, k)
        if isinstance(whole, ImageWords) and isinstance(pyramid, ImageWords) and isinstance(used, ImageWords):
            pyramid = with_used(whole, pyramid, used)
        else:  # words without parts: what was chosen is what there is to show
            pyramid, used = used, None
    seen, backdrop, framing = frame(image, tokenizer)
    decoded: tuple[Image.Image, ...] = ()
    first = int(tokenizer.card.get("draws_from", 1))
    if tokenizer.can_decode and first <= pyramid.layers:
        decoded = tuple(tokenizer.decode([pyramid.truncate(layers) for layers in range(first, pyramid.layers + 1)]))
    # Words with parts have probabilities, which say more than likeness does.
    similarity = None if isinstance(pyramid, ImageWords) else measure(pyramid, tokenizer, image)
    return PyramidLook(
        name,
        tokenizer.name,
        pyramid,
        seen,
        backdrop,
        framing,
        similarity,
        decoded,
        draws_from=first,
        about=about,
        used=used if isinstance(used, ImageWords) else None,
    )


def command_line(
    looks: Sequence[Any],
    *,
    k: int | None = None,
    tokenizer: str = "",
    parts: Sequence[str] | None = None,
    more: Sequence[str] = (),
    out: str,
) -> str:
    """The command that shows the same again.

    Args:
        looks: the images (or clips), all through the same tokenizer.
        k: words asked for; None for the tokenizer's default.
        tokenizer: how the command names it; "" for its own name.
        parts: those asked for; None for all.
        more: other options, as they were given.
        out: the file to write.
    """
    words = [*(shown.name for shown in looks), "--tokenizer", tokenizer or looks[0].tokenizer]
    words += ["-k", str(k)] if k is not None else []
    words += ["--parts", ",".join(parts)] if parts is not None else []
    about: str | None = getattr(looks[0], "about", None)
    words += ["--about", about] if about is not None else []
    words += more
    return shlex.join(["icl-vision", "show", *words, "--out", out])


def check_single_image(grids: Iterable[tuple[int, ...]], name: str) -> None:
    """Refuse grids with frames: there is no one image to draw them on.

    Raises:
        PyramidError: a grid of other than two axes.
    """
    for grid in grids:
        if len(grid) != 2:
            raise PyramidError(
                f"{name!r} has grids of {len(grid)} axes ({'x'.join(map(str, grid))}): words of a video cannot be "
                "drawn on one image; pyramid.show() without an image lays the frames side by side"
            )


def is_flat(pyramid: TokenPyramid) -> bool:
    """Whether the pyramid is a list of words in order of rank (grids ``((1, k),)``), not places on an image."""
    layout = pyramid.layout
    # A pyramid cut to its one first word still lies on a finer grid; a list lies on itself.
    return pyramid.vocabulary is not None and layout.grids == (layout.finest,) and layout.finest[:-1] == (1,)


def in_shape(shown: PyramidLook, picture: Image.Image) -> Image.Image:
    """A picture of the tokenizer's square in the shape that the photograph is drawn in."""
    from PIL.Image import Resampling

    width, height = shown.backdrop.size
    if width == height or picture.width * height == picture.height * width:
        return picture
    return picture.resize((width, height), Resampling.BICUBIC)


def frame(image: Image.Image, tokenizer: ImageTokenizer | None) -> tuple[Image.Image, Image.Image, str]:
    """(seen, backdrop, framing) of ``PyramidLook`` for an RGB image."""
    rule = None if tokenizer is None else tokenizer.preprocessing
    width, height = image.size
    if not isinstance(rule, Preprocessing):
        backdrop = image.copy()
        backdrop.thumbnail((SIDE, SIDE))
        return image, backdrop, f"{width} x {height} pixels"
    seen = rule.apply(image)
    taken, pixels = "as the tokenizer takes it: ", f"{rule.size} x {rule.size} pixels"
    if rule.resize == "crop":
        times = max(1, min(SIDE // rule.size, min(width, height) // rule.short))
        larger = dataclasses.replace(rule, size=rule.size * times, short=rule.short * times)
        return seen, larger.apply(image), f"{taken}the middle of the picture, {pixels}"
    if rule.margin:
        times = max(1, min(SIDE // rule.size, min(width, height) // (rule.size - 2 * rule.margin)))
        larger = dataclasses.replace(rule, size=rule.size * times, margin=rule.margin * times)
        return seen, larger.apply(image), f"{taken}the whole picture inside a border, {pixels}"
    if (width, height) == (rule.size, rule.size):
        return seen, seen, taken + pixels
    ratio = min(max(width / height, _NARROWEST), _WIDEST)
    side = max(rule.size, min(SIDE, max(width, height)))
    shape = (side, max(1, round(side / ratio))) if ratio >= 1 else (max(1, round(side * ratio)), side)
    from PIL.Image import Resampling

    shaped = "drawn in its own shape" if ratio == width / height else "drawn nearer to its own shape"
    how = f"squeezed into {pixels}, {shaped}" if width != height else f"scaled to {pixels}"
    return seen, image.resize(shape, Resampling.LANCZOS), f"{taken}the whole picture {how}"


def measure(pyramid: TokenPyramid, tokenizer: ImageTokenizer, image: Any) -> Similarity | None:
    """Cosine of each word's vector with the image's, or with the mean of the coarsest words.

    Args:
        pyramid: words of ``tokenizer``.
        tokenizer: gives the codebook and, where it can and ``image`` is given, the image's vector.
        image: the encoded image (of a clip, a list with its frames); None where it is not at hand.

    Returns:
        None where the tokenizer has no codebook.
    """
    codebook = tokenizer.codebook
    if codebook is None or pyramid.vocabulary is None:
        return None
    vectors = [normalise(codebook[ids]) for ids in pyramid.ids]
    if image is not None and tokenizer.can_embed and tokenizer.embedding_width == codebook.shape[1]:
        target, own = normalise(tokenizer.embed(image)[0]), 0
        reference = "the image's own vector"
    else:
        target, reference, own = _coarsest(vectors, pyramid)
    cosines = [np.clip(layer @ target, -1, 1).astype(np.float32) for layer in vectors]
    return Similarity(tuple(cosines), reference, np.sort(normalise(codebook) @ target).astype(np.float32), own)


def _coarsest(
    vectors: list[npt.NDArray[np.float32]], pyramid: TokenPyramid
) -> tuple[npt.NDArray[np.float32], str, int]:
    """The mean vector of the coarsest words, what it is, and of how many layers: whole layers of a pyramid, the first
    words of a flat list."""
    layers, width = 1, vectors[0].shape[-1]
    if is_flat(pyramid):
        words = vectors[0].reshape(-1, width)[:COARSEST]
        which = f"the first {len(words)} words" if len(words) > 1 else "the first word"
    else:
        layers = max(1, sum(count <= COARSEST for count in pyramid.layout.cumulative))
        words = np.concatenate([layer.reshape(-1, width) for layer in vectors[:layers]])
        which = (
            f"the {len(words)} word{'s' * (len(words) > 1)} of layer{'s 1 to ' + str(layers) if layers > 1 else ' 1'}"
        )
    return normalise(words.mean(axis=0)), f"the mean vector of {which}", layers


def gist(pyramid: TokenPyramid, most: int = 60) -> tuple[list[list[str]], int]:
    """The words to read first, a list per layer, coarse first, and how many are left out.

    Args:
        pyramid: the words.
        most: words to give, at most; the layer that reaches it is cut.
    """
    lines: list[list[str]] = []
    for layer in range(1, pyramid.layers + 1):
        if most <= 0:
            break
        lines.append(pyramid.words(layer)[:most])
        most -= len(lines[-1])
    return lines, pyramid.k - sum(map(len, lines))


def beginning(shown: Any) -> str:
    """Where pictures (of an image or a clip) begin, as a sentence; "" where they do with the first layer."""
    if shown.draws_from == 1:
        return ""
    return f"Fewer than {shown.draws_from} layers name what is seen and draw nothing."


def decibels(shown: PyramidLook, layers: int) -> str:
    """The PSNR of the reconstruction from so many layers as text; "" where it was not measured."""
    if not shown.psnr:
        return ""
    value = shown.psnr[layers - shown.draws_from]
    return f"{value:.1f} dB" if np.isfinite(value) else "no difference"
