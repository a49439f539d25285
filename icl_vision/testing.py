"""The contract that every tokenizer of images or of clips keeps, as checks anyone can run on their own.

Knows: what ``ImageTokenizer`` promises. Refuses to know: pytest, and how any tokenizer works.

    from icl_vision.testing import check_tokenizer
    check_tokenizer(lambda: MyTokenizer())                       # raises AssertionError at the first broken promise

    @pytest.mark.parametrize("check", tokenizer_checks(factory), ids=str)     # or one test per promise
    def test_contract(check): check()
"""

from __future__ import annotations

import functools
import io
import json
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from icl_vision.clips import save_clip
from icl_vision.contracts import Tokenizer
from icl_vision.errors import ClipError, IclVisionError, ImageError, ImageNotFoundError, PyramidError, UsageError
from icl_vision.image_words import ImageWords
from icl_vision.pyramid import TokenPyramid
from icl_vision.tokenizers import ImageTokenizer
from icl_vision.tokenizers.taking import CLIP, MODALITIES

Factory = Callable[[], ImageTokenizer]
Array = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Check:
    """One promise: call it to check; ``str`` gives its name."""

    name: str
    run: Callable[[], None]

    def __call__(self) -> None:
        self.run()

    def __str__(self) -> str:
        return self.name


def check_tokenizer(
    factory: Factory, *, images: Sequence[Array] | None = None, ks: Sequence[int] | None = None
) -> None:
    """Run every check of ``tokenizer_checks``.

    Raises:
        AssertionError: a promise is broken; the message says which and how.
    """
    for check in tokenizer_checks(factory, images=images, ks=ks):
        check()


def tokenizer_checks(
    factory: Factory, *, images: Sequence[Array] | None = None, ks: Sequence[int] | None = None
) -> list[Check]:
    """The checks, to be run one by one.

    Args:
        factory: makes the tokenizer anew; called once a check, twice where two instances must agree.
        images: three or more uint8 arrays [H, W, 3] to encode (of clips [T, H, W, 3]); made up (noise, gradients, a
            disc; of clips, such things that move) if left out.
        ks: numbers of words that must be accepted; if left out, those of the default layout's layers.

    Nothing is called or loaded before a check runs.
    """
    suite = _Suite(factory, None if images is None else list(images), ks)
    names = [name for name in vars(_Suite) if name.startswith("check_")]
    return [Check(name.removeprefix("check_"), getattr(suite, name)) for name in names]


def sample_images() -> list[Array]:
    """Five small pictures of different sizes and shapes, always the same, uint8 [H, W, 3]."""
    generator = np.random.default_rng(7)
    noise = generator.integers(0, 256, (40, 56, 3), dtype=np.uint8)
    across = np.linspace(0, 255, 64).astype(np.uint8)
    gradient = np.stack([np.tile(across, (48, 1)), np.tile(across[::-1], (48, 1)), np.full((48, 64), 90)], axis=2)
    y, x = np.mgrid[:80, :50]
    disc = np.where(((y - 40) ** 2 + (x - 25) ** 2 < 400)[..., None], (230, 40, 30), (245, 245, 240))
    stripes = np.where((np.arange(33) % 8 < 4)[:, None, None], (20, 90, 200), (250, 220, 60)) * np.ones((1, 20, 1))
    blank = np.full((16, 16, 3), 255)
    return [picture.astype(np.uint8) for picture in (noise, gradient, disc, stripes, blank)]


def sample_clips() -> list[Array]:
    """Five small clips of different sizes and lengths, always the same, uint8 [T, H, W, 3]."""
    noise, gradient, disc, stripes, blank = sample_images()
    shifted = [(gradient, 16, 3), (disc, 9, 2), (stripes, 20, -1)]
    rolled = [
        np.stack([np.roll(picture, step * n, axis=1) for n in range(length)]) for picture, length, step in shifted
    ]
    sparks = np.stack([np.roll(noise, 5 * n, axis=0) for n in range(16)])
    return [sparks, *rolled, np.stack([blank, blank])]


def _require(condition: object, message: str) -> None:
    if not condition:  # not an assert statement: it must hold under -O too
        raise AssertionError(message)


def _refuses(kind: type[Exception], call: Callable[[], object], what: str, text: str = "") -> None:
    try:
        call()
    except kind as error:
        _require(isinstance(error, IclVisionError), f"{what}: {type(error).__name__} is not an IclVisionError")
        _require(text in str(error), f"{what}: the message does not hold {text!r}: {error}")
        return
    raise AssertionError(f"{what}: nothing was raised, expected {kind.__name__}")


class _Suite:
    def __init__(self, factory: Factory, images: list[Array] | None, ks: Sequence[int] | None) -> None:
        given = 3 if images is None else len(images)
        _require(given >= 3, f"the checks need three images or more; got {given}")
        self.factory = factory
        self._images = images
        self._ks = ks

    @functools.cached_property
    def clips(self) -> bool:
        """Whether it is a tokenizer of clips."""
        return self.factory().modality == CLIP

    @functools.cached_property
    def images(self) -> list[Array]:
        """What is encoded: images, or clips."""
        return self._images or (sample_clips() if self.clips else sample_images())

    @property
    def several(self) -> str:
        """What they are called in messages."""
        return "clips" if self.clips else "images"

    def ks(self, tokenizer: ImageTokenizer) -> list[int]:
        if self._ks is not None:
            return list(self._ks)
        return [1, 2] if tokenizer.parts else list(tokenizer.layout.cumulative)

    def check_protocol(self) -> None:
        tokenizer = self.factory()
        _require(isinstance(tokenizer, Tokenizer), "it does not satisfy contracts.Tokenizer")
        name: object = tokenizer.name
        _require(isinstance(name, str) and name, f"name must be a non-empty str; got {name!r}")
        _require(tokenizer.modality in MODALITIES, f"modality must be one of {MODALITIES}; got {tokenizer.modality!r}")
        axes = 3 if self.clips else 2
        grids = tokenizer.layout.grids
        _require(
            all(len(grid) == axes for grid in grids) or (len(grids) == 1 and grids[0][:-1] == (1,)),
            f"grids of a {tokenizer.modality} have {axes} axes, and these are {tokenizer.layout}",
        )
        for flag in ("can_decode", "can_embed", "can_focus"):
            _require(isinstance(getattr(tokenizer, flag), bool), f"{flag} must be True or False")
        _require(tokenizer.name in repr(tokenizer), f"repr does not hold the name: {tokenizer!r}")

    def check_identity(self) -> None:
        first, second = self.factory().identity, self.factory().identity
        said: object = first
        _require(isinstance(said, str) and said, f"identity must be a non-empty str; got {said!r}")
        _require(first == second, "two instances have different identities, so nothing kept could be found again")

    def check_card_is_json(self) -> None:
        tokenizer = self.factory()
        card = json.loads(json.dumps(dict(tokenizer.card)))
        _require(card.get("name") == tokenizer.name, f"the card's name is {card.get('name')!r}, not {tokenizer.name!r}")

    def check_codebook(self) -> None:
        tokenizer = self.factory()
        codebook: npt.NDArray[Any] | None = tokenizer.codebook
        vocabulary = tokenizer.vocabulary
        if codebook is None:
            return
        right = codebook.dtype == np.float32 and codebook.ndim == 2
        _require(right, f"codebook must be float32 [T, c], not {codebook.dtype} {codebook.shape}")
        _require(vocabulary is not None and len(codebook) == len(vocabulary), "codebook and vocabulary lengths differ")
        _require(np.isfinite(codebook).all(), "the codebook holds NaN or infinite values")

    def check_shapes_and_dtypes(self) -> None:
        tokenizer = self.factory()
        pyramids = tokenizer.encode(self.images)
        result: object = pyramids
        _require(isinstance(result, list) and len(pyramids) == len(self.images), "encode must give a pyramid an image")
        for pyramid in pyramids:
            _require(isinstance(pyramid, TokenPyramid), f"encode gave a {type(pyramid).__name__}")
            if tokenizer.parts:
                _require(isinstance(pyramid, ImageWords), f"a tokenizer with parts gave a {type(pyramid).__name__}")
            else:
                _require(
                    pyramid.layout == tokenizer.layout, f"k=None must use the tokenizer's layout: {pyramid.layout}"
                )
            shapes = tuple(ids.shape for ids in pyramid.ids)
            _require(shapes == pyramid.layout.grids, f"ids have shapes {shapes}, the layout {pyramid.layout.grids}")
            for ids in pyramid.ids:
                _require(ids.dtype == np.int32 and not ids.flags.writeable, f"ids must be read-only int32: {ids.dtype}")
            own = tokenizer.vocabulary
            _require((own is None) == (pyramid.vocabulary is None), "the pyramid's vocabulary is not the tokenizer's")
            _require(own is None or set(pyramid.words()) <= set(own.words), "a word outside the vocabulary")

    def check_parts(self) -> None:
        """Where words have parts: each picture has these, in order, with as many words and probabilities as it may."""
        tokenizer = self.factory()
        names: object = tokenizer.parts
        _require(isinstance(names, tuple) and len(set(names)) == len(names), f"parts must be distinct names: {names!r}")
        if not tokenizer.parts:
            encoded = tokenizer.encode(self.images[0])[0]
            _require(not isinstance(encoded, ImageWords), "it gives words by part, and names no parts")
            return
        for k in [None, *self.ks(tokenizer)]:
            most = (tokenizer.layout if k is None else tokenizer.layout_for(k)).cumulative[-1]
            for words in tokenizer.encode(self.images, k=k):
                if not isinstance(words, ImageWords):
                    raise AssertionError(f"k={k}: a tokenizer with parts gave a {type(words).__name__}")
                _require(words.names == tokenizer.parts, f"k={k}: the parts are {words.names}, not {tokenizer.parts}")
                _require(words.k <= most, f"k={k}: {words.k} words, and the layout holds {most}")
                _require(words.k == sum(len(words.words(part)) for part in words.names), "parts do not add up to k")

    def check_probabilities(self) -> None:
        """Where words have probabilities: the same alone and among others, and for the words of any ``k``."""
        tokenizer = self.factory()
        if not tokenizer.parts:
            return
        together = tokenizer.encode(self.images)
        for image, words in zip(self.images, together, strict=True):
            (alone,) = tokenizer.encode(image)
            if not isinstance(alone, ImageWords) or not isinstance(words, ImageWords):
                raise AssertionError("a tokenizer with parts must give ImageWords")
            _require(
                (alone.probabilities is None) == (words.probabilities is None),
                "a picture has probabilities alone or among others only",
            )
            near = np.allclose(alone.probabilities or (), words.probabilities or (), atol=1e-4)
            _require(near, "a word's probability depends on the batch")
            _require(set(words.weights()) <= set(words.words()), "weights() names words that are not there")

    def check_focus(self) -> None:
        """``about``: the same by ``encode`` and by ``focus``, of the image's own words; refused where it must be."""
        tokenizer = self.factory()
        images, about = self.images[:2], "What colour is the ball?"
        if not tokenizer.can_focus:
            _refuses(UsageError, lambda: tokenizer.encode(images, about=about), "about=", "can_focus=False")
            plain = tokenizer.encode(images[0])[0]
            _refuses(UsageError, lambda: tokenizer.focus(plain, about), "focus()", "can_focus=False")
            return
        whole = tokenizer.encode(images, tokenizer.focus_from)
        for question in (about, "Who is there?", "How many dogs are there?", "\u00e9\u4e2d ??"):
            for k in [None, *self.ks(tokenizer)]:
                asked = tokenizer.encode(images, k, about=question)
                by_hand = [tokenizer.focus(words, question, k) for words in whole]
                _require(asked == by_hand, f"encode(about={question!r}, k={k}) is not focus() of the whole words")
                for words, all_words in zip(asked, whole, strict=True):
                    _require(set(words.words()) <= set(all_words.words()), f"about={question!r} brought new words")
                    _require(words.k >= 1, f"about={question!r} left no word")
                    most = (tokenizer.layout if k is None else tokenizer.layout_for(k)).cumulative[-1]
                    _require(words.k <= most, f"about={question!r}, k={k}: {words.k} words, more than {most}")
                    again = tokenizer.from_text(tokenizer.to_text(words))
                    _require(again.words() == words.words(), f"about={question!r}: from_text(to_text(words)) differs")
        singly = [tokenizer.encode(image, about=q)[0] for image, q in zip(images, (about, "Who?"), strict=True)]
        _require(tokenizer.encode(images, about=[about, "Who?"]) == singly, "one text an image gives other words")
        _refuses(UsageError, lambda: tokenizer.encode(images, about=[about]), "one text for two images", "1 for 2")
        empties: list[Any] = ["", "  ", None, 5]
        for empty in empties:
            _refuses(UsageError, functools.partial(tokenizer.focus, whole[0], empty), f"focus({empty!r})", "about")
        _require(tokenizer.encode([], about=about) == [], "about= of no images must be []")

    def check_k_counts_words(self) -> None:
        tokenizer = self.factory()
        if tokenizer.parts:  # k is the most words a part: see check_parts; that fewer are the first, in the round trip
            return
        whole = tokenizer.encode(self.images[0])[0]
        for k in self.ks(tokenizer):
            pyramid = tokenizer.encode(self.images[0], k=k)[0]
            _require(pyramid.layout == tokenizer.layout_for(k), f"k={k}: the layout is not layout_for({k})")
            _require(pyramid.k == len(pyramid.words()), f"k={k}: pyramid.k differs from the number of its words")
            if tokenizer.vocabulary is not None:
                _require(pyramid.k == k, f"k={k} gave {pyramid.k} words")
            shared = min(pyramid.k, whole.k)
            _require(pyramid.words()[:shared] == whole.words()[:shared], f"k={k}: fewer words must be the first words")

    def check_k_refused(self) -> None:
        tokenizer = self.factory()
        for bad in (0, -1):
            _refuses(PyramidError, lambda bad=bad: tokenizer.encode(self.images[0], k=bad), f"k={bad}", str(bad))  # type: ignore[misc]  # a default binds the loop's own
        for odd in (True, 2.5, "5"):
            _refuses(UsageError, lambda odd=odd: tokenizer.encode(self.images[0], k=odd), f"k={odd!r}", repr(odd))  # type: ignore[misc]  # a default binds the loop's own
        _refuses(PyramidError, lambda: tokenizer.encode(self.images[0], k=10**9), "k=10**9", "1000000000")
        _refuses(PyramidError, lambda: tokenizer.encode([], k=0), "k=0 without images", "0")

    def check_layers_count_from_one(self) -> None:
        pyramid = self.factory().encode(self.images[0])[0]
        collected = [word for layer in range(1, pyramid.layers + 1) for word in pyramid.words(layer)]
        _require(collected == pyramid.words(), "words() must be the words of layers 1, 2, ... in order")
        for bad in (0, pyramid.layers + 1):
            _refuses(PyramidError, lambda bad=bad: pyramid.words(bad), f"words({bad})", str(bad))  # type: ignore[misc]  # a default binds the loop's own
            _refuses(PyramidError, lambda bad=bad: pyramid.truncate(bad), f"truncate({bad})", str(bad))  # type: ignore[misc]  # a default binds the loop's own
        _require(pyramid.truncate(pyramid.layers) == pyramid, "truncate to all layers must change nothing")

    def check_batch_size_changes_nothing(self) -> None:
        tokenizer = self.factory()
        singly = [tokenizer.encode(image)[0] for image in self.images]
        for size in (1, 2, 3, len(self.images), 64):
            tokenizer.batch_size = size
            _require(tokenizer.encode(self.images) == singly, f"batch_size={size} gives other words than one at a time")
            backwards = tokenizer.encode(self.images[::-1])
            _require(backwards[::-1] == singly, f"batch_size={size}: an image's words depend on its neighbours")
        tokenizer.batch_size = 0
        _refuses(UsageError, lambda: tokenizer.encode(self.images), "batch_size=0", "batch_size")

    def check_determinism(self) -> None:
        tokenizer = self.factory()
        first = tokenizer.encode(self.images)
        _require(tokenizer.encode(self.images) == first, "the same images gave other words the second time")
        _require(self.factory().encode(self.images) == first, "two instances disagree")

    def check_threads(self) -> None:
        tokenizer = self.factory()
        expected = tokenizer.encode(self.images)
        with ThreadPoolExecutor(4) as pool:
            results = list(pool.map(lambda _: tokenizer.encode(self.images), range(8)))
        _require(all(result == expected for result in results), "encode from several threads gave other words")

    def check_kinds_of_input(self) -> None:
        tokenizer = self.factory()
        array = self.images[0]
        if self.clips:
            self._kinds_of_clips(tokenizer, array)
            return
        picture = Image.fromarray(array)
        buffer = io.BytesIO()
        picture.save(buffer, "PNG")
        expected = tokenizer.encode([array])
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "image.png")
            path.write_bytes(buffer.getvalue())
            sources: list[Any] = [array, picture, buffer, buffer.getvalue(), path, str(path)]
            for source in sources:
                kind = type(source).__name__
                _require(tokenizer.encode(source) == expected, f"a single {kind} gives other words than [array]")
                _require(tokenizer.encode([source]) == expected, f"[{kind}] gives other words than [array]")
            _require(tokenizer.encode(iter(sources)) == expected * len(sources), "an iterator of mixed sources differs")
        _require(tokenizer.encode(np.stack([array, array])) == expected * 2, "a 4-D array must be a batch")

    def _kinds_of_clips(self, tokenizer: ImageTokenizer, array: Array) -> None:
        frames = [Image.fromarray(frame) for frame in array]
        expected = tokenizer.encode([array])
        with tempfile.TemporaryDirectory() as folder:
            path = save_clip(array, Path(folder, "clip.webp"))
            data = path.read_bytes()
            single: list[Any] = [array, frames, list(array), path, str(path), data, io.BytesIO(data)]
            for source in single:
                kind = type(source).__name__
                _require(tokenizer.encode(source) == expected, f"a single {kind} gives other words than [array]")
                _require(tokenizer.encode([source]) == expected, f"[{kind}] gives other words than [array]")
            _require(tokenizer.encode(iter(single)) == expected * len(single), "an iterator of mixed sources differs")
        _require(tokenizer.encode(np.stack([array, array])) == expected * 2, "a 5-D array must be a batch")

    def check_nothing_in_nothing_out(self) -> None:
        tokenizer = self.factory()
        empties: list[Any] = [[], (), iter(())]
        for nothing in empties:
            _require(tokenizer.encode(nothing) == [], f"encode of an empty {type(nothing).__name__} must be []")

    def check_inputs_unchanged(self) -> None:
        array = self.images[0].copy()
        if self.clips:
            frames = [Image.fromarray(frame) for frame in array]
            both: list[Any] = [array, frames]
            self.factory().encode(both)
            same = all(np.array_equal(np.asarray(a), b) for a, b in zip(frames, self.images[0], strict=True))
            _require(np.array_equal(array, self.images[0]) and same, "encode changed the caller's frames")
            return
        picture = Image.fromarray(array.copy())
        self.factory().encode([array, picture])
        _require(np.array_equal(array, self.images[0]), "encode changed the caller's array")
        same = picture.mode == "RGB" and np.array_equal(np.asarray(picture), self.images[0])
        _require(same, "encode changed the caller's PIL image")

    def check_bad_inputs(self) -> None:
        tokenizer = self.factory()
        good = self.images[0]
        second = f"{self.several}[1]"
        _refuses(ImageNotFoundError, lambda: tokenizer.encode("no-such-file.png"), "a missing file", "no-such-file.png")
        _refuses(ImageNotFoundError, lambda: tokenizer.encode([good, "no-such-file.png"]), "in a batch", second)
        _refuses(ImageError, lambda: tokenizer.encode(b""), "empty bytes", "empty")
        _refuses(
            ImageError, lambda: tokenizer.encode(b"hello"), "no image", "not a clip" if self.clips else "not an image"
        )
        if self.clips:
            frame = Image.fromarray(good[0])
            _refuses(ClipError, lambda: tokenizer.encode(frame), "a still picture", "still picture")
            _refuses(ImageError, lambda: tokenizer.encode(good[0]), "one frame", "[array]")
        else:
            _refuses(ImageError, lambda: tokenizer.encode([[good, good]]), "a list of frames", "'clip'")  # type: ignore[list-item]  # wrong on purpose
        _refuses(ImageError, lambda: tokenizer.encode([good, None]), "None in a batch", second)  # type: ignore[list-item]  # wrong on purpose
        odds: list[Any] = [None, 7, {"image": good}]
        for odd in odds:
            kind = type(odd).__name__
            _refuses(UsageError, lambda odd=odd: tokenizer.encode(odd), f"a {kind}", kind)  # type: ignore[misc]  # a default binds the loop's own

    def check_text_round_trip(self) -> None:
        tokenizer = self.factory()
        for k in [None, *self.ks(tokenizer)]:
            for pyramid in tokenizer.encode(self.images, k=k):
                text = tokenizer.to_text(pyramid)
                _require(text and text == text.strip(), f"text must not be empty or have space around it: {text!r}")
                _require(tokenizer.from_text(text) == pyramid, f"k={k}: from_text(to_text(pyramid)) differs")
                _require(
                    tokenizer.to_text(pyramid, k) == text, f"k={k}: to_text(pyramid, k) differs from to_text(pyramid)"
                )
        longest = tokenizer.encode(self.images[0], k=max(self.ks(tokenizer)))[0]
        for k in self.ks(tokenizer):
            direct = tokenizer.to_text(tokenizer.encode(self.images[0], k=k)[0])
            _require(tokenizer.to_text(longest, k) == direct, f"to_text(pyramid, {k}) must be the first {k} words")

    def check_text_refused(self) -> None:
        tokenizer = self.factory()
        for bad in ("", "   ", "\x00 \x00", "a\tb"):
            _refuses(IclVisionError, lambda bad=bad: tokenizer.from_text(bad), f"from_text({bad!r})")  # type: ignore[misc]  # a default binds the loop's own
        _refuses(UsageError, lambda: tokenizer.from_text(None), "from_text(None)", "NoneType")  # type: ignore[arg-type]  # wrong on purpose
        _refuses(UsageError, lambda: tokenizer.to_text("words"), "to_text('words')", "TokenPyramid")  # type: ignore[arg-type]  # wrong on purpose

    def check_dict_round_trip(self) -> None:
        tokenizer = self.factory()
        for pyramid in tokenizer.encode(self.images):
            document = json.loads(json.dumps(pyramid.to_dict()))
            again = TokenPyramid.from_dict(document, tokenizer.vocabulary)
            _require(again == pyramid and hash(again) == hash(pyramid), "from_dict(to_dict(pyramid)) differs")

    def check_decode(self) -> None:
        tokenizer = self.factory()
        pyramids = tokenizer.encode(self.images)
        if not tokenizer.can_decode:
            _refuses(UsageError, lambda: tokenizer.decode(pyramids), "decode where can_decode is False", tokenizer.name)
            return
        pictures = tokenizer.decode(pyramids)
        _require(len(pictures) == len(pyramids), "decode must give one image a pyramid")
        clips: list[Any] = [picture if self.clips else [picture] for picture in pictures]
        count = tokenizer.frames if self.clips else 1
        for frames in clips:
            _require(isinstance(frames, list), f"decode must give lists of frames; got {type(frames).__name__}")
            _require(len(frames) == count, f"decode must give {count} frames a clip; got {len(frames)}")
            _require(all(frame.mode == "RGB" for frame in frames), "decode must give RGB images")
        again: list[Any] = [picture if self.clips else [picture] for picture in tokenizer.decode(pyramids)]
        same = all(
            np.array_equal(np.asarray(a), np.asarray(b))
            for one, other in zip(clips, again, strict=True)
            for a, b in zip(one, other, strict=True)
        )
        _require(same, "decode gave other pixels the second time")
        _require(len(tokenizer.decode(pyramids[0])) == 1, "decode must accept a single pyramid")
        _require(len(tokenizer.decode([])) == 0, "decode of nothing must be []")
        for layers in range(1, len(tokenizer.layout) + 1):
            _require(len(tokenizer.decode(pyramids[0].truncate(layers))) == 1, f"decode of {layers} layers failed")

    def check_embed(self) -> None:
        tokenizer = self.factory()
        if not tokenizer.can_embed:
            _refuses(UsageError, lambda: tokenizer.embed(self.images), "embed where can_embed is False", tokenizer.name)
            return
        vectors = tokenizer.embed(self.images)
        _require(vectors.dtype == np.float32 and vectors.ndim == 2, f"embed must give float32 [N, D]: {vectors.dtype}")
        _require(len(vectors) == len(self.images), "embed must give one vector an image")
        _require(np.isfinite(vectors).all(), "embed gave NaN or infinite values")
        singly = np.concatenate([tokenizer.embed(image) for image in self.images])
        _require(np.allclose(vectors, singly, rtol=1e-3, atol=1e-4), "an image's vector depends on its batch")
        nothing = tokenizer.embed([])
        _require(nothing.shape == (0, vectors.shape[1]), f"embed of nothing must be [0, D]: {nothing.shape}")
