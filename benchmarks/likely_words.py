"""Which words `words-photo` is likely to give a photograph: what a classifier has its LLM learn beforehand.

    python benchmarks/likely_words.py --out icl_vision/artefacts/likely_words/words-photo.txt

The tokenizer mixes the words of ImageNet classes (icl_vision/models/words/photo.py). A word's rank is the best place it
has
among the words of any one class, from 1; an image's k best words are nearly always of rank k or less. No image is
looked at. With --check DIR or TAR the share of its photographs that have another word is printed.

Needs the extra `train` (onnx, to read the graph's weights).
"""

from __future__ import annotations

import argparse
import random
import sys
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

sys.path.insert(0, str(Path(__file__).resolve().parent))

from few_shot import images_of

from icl_vision.evaluation.few_shot.episodes.drawing import ImageFolder
from icl_vision.files.storage import write_text
from icl_vision.models.words.photo import WORD_TEMPERATURE
from icl_vision.tokenizers import ImageTokenizer

RANKS = 12


def ranks(tokenizer: ImageTokenizer, folder: Path) -> dict[str, int]:
    """The best rank of every word that is among the first ``RANKS`` of a class."""
    graph = onnx.load(folder / "encoder.onnx").graph
    weights = {tensor.name: numpy_helper.to_array(tensor).astype(np.float32) for tensor in graph.initializer}
    vectors = next(value for name, value in weights.items() if name.startswith("class_vectors"))
    pairs = [value for value in weights.values() if value.shape == (len(vectors), 5)]
    (others,) = [value.astype(np.int64) for value in pairs if value.max() > 1]
    (likeness,) = [value for value in pairs if value.max() <= 1]
    turned = vectors + (likeness[:, :, None] * vectors[others]).sum(axis=1)
    turned /= np.linalg.norm(turned, axis=1, keepdims=True)
    assert tokenizer.codebook is not None and tokenizer.vocabulary is not None
    scores = turned @ np.asarray(tokenizer.codebook, dtype=np.float32).T / WORD_TEMPERATURE
    best = np.argsort(-scores, axis=1, kind="stable")[:, :RANKS]
    words = list(tokenizer.vocabulary)
    found: dict[str, int] = {}
    for rank in range(RANKS):
        for word in sorted({words[place] for place in best[:, rank]}):
            found.setdefault(word, rank + 1)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--check", type=Path, help="a folder or tar of photographs in class folders")
    parser.add_argument("--n", type=int, default=1500)
    options = parser.parse_args()
    tokenizer = ImageTokenizer.from_pretrained("words-photo")
    import icl_vision

    folder = Path(icl_vision.__file__).parent / "artefacts" / "tokenizers" / "words-photo"
    found = ranks(tokenizer, folder)
    files = {**tokenizer.card["files"], **tokenizer.card.get("whole", {})}
    head = (
        "# Words that words-photo is likely to give, with the best rank each has among the words of one class.\n"
        "# Made by benchmarks/likely_words.py; a hint, nothing depends on it but time.\n"
        f"# encoder.onnx {files['encoder.onnx']}\n"
    )
    write_text(options.out, head + "".join(f"{rank} {word}\n" for word, rank in found.items()))
    print(
        f"{len(found)} words;",
        ", ".join(f"rank {k}: {sum(r <= k for r in found.values())}" for k in range(1, RANKS + 1)),
    )
    if options.check is not None:
        with images_of(options.check) as images:
            check(tokenizer, found, images, options)


def check(tokenizer: ImageTokenizer, found: dict[str, int], images: ImageFolder, options: argparse.Namespace) -> None:
    """Print how many photographs have a word that is no likely one."""
    items = [item for items in images.classes.values() for item in items]
    some = random.Random(0).sample(items, min(options.n, len(items)))
    texts = [
        tokenizer.to_text(pyramid).split() for pyramid in tokenizer.encode([images.root / path for path in some], 5)
    ]
    other = sum(any(found.get(word, RANKS + 1) > 5 for word in words) for words in texts)
    print(f"{options.check.name}: {other} of {len(texts)} photographs have a word of another rank than 1 to 5")


if __name__ == "__main__":
    main()
