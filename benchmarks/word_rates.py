"""Measures how probable a tokenizer holds each of its words on average, and writes the list that the library packages.

    python benchmarks/word_rates.py describe-photo PHOTOGRAPHS... --parts what said colours where > rates.txt

The list belongs into ``icl_vision/artefacts/word_rates/``. PHOTOGRAPHS are folders or files: photographs of everyday
life, a few hundred at least, none of them among those that anything is tested on. The packaged list was measured on the
961 captioned photographs that ``describe-photo`` learnt words of captions from (161 of COCO, 800 of Flickr8k); no
picture, name or caption is in it.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from icl_vision.image_words import ImageWords
from icl_vision.images import list_images
from icl_vision.tokenizers import ImageTokenizer
from icl_vision.tokenizers.rates import LEAST


def main() -> None:
    """Encode, average, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tokenizer")
    parser.add_argument(
        "--parts", nargs="+", help="parts to encode; for describe-photo all but text, which has no rates"
    )
    parser.add_argument("photographs", nargs="+", type=Path)
    options = parser.parse_args()
    paths = [path for given in options.photographs for path in (list_images(given) if given.is_dir() else [given])]
    tokenizer = ImageTokenizer.from_pretrained(
        options.tokenizer, **({"parts": tuple(options.parts)} if options.parts else {})
    )
    sums: dict[str, float] = {}
    for pyramid in tokenizer.encode(paths, tokenizer.focus_from):
        if not isinstance(pyramid, ImageWords) or pyramid.probabilities is None:
            sys.exit(f"{tokenizer.name} gives words without probabilities")
        for word, chance in pyramid.weights().items():
            sums[word] = sums.get(word, 0.0) + chance
    print(f"# how probable each word is of a photograph, on average over {len(paths)}; benchmarks/word_rates.py")
    print(f"# encoder.onnx {dict(tokenizer.card['files'])['encoder.onnx']}")
    for word, total in sorted(sums.items(), key=lambda item: (-item[1], item[0])):
        rate = total / len(paths)
        if LEAST <= rate < 1:
            print(f"{rate:.4g} {word}")


if __name__ == "__main__":
    main()
