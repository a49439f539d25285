"""One image among many classes: seconds with and without what `fit` has the LLM learn (icl_vision/llms/word_tables.py).

    python benchmarks/bench_single_image.py --data DIR_or_TAR [--ways 28 --shots 3 --images 5] --out FILE.json

Embedded LLM, `words-photo`, in a cache folder of its own. In one run, side by side since the machine may be shared:

- asked: every image asks every example's prompt, as without tables
- at fit: what learning the examples takes, with nothing in the cache; again: with all of it there
- learnt: the same images after that, one at a time; and all of them at once
- the difference of the probabilities' logarithms between asked and learnt, over every image and class
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent))

from _common import header, write
from few_shot import images_of


def timed(action: Callable[[], Any]) -> tuple[float, Any]:
    began = time.perf_counter()
    result = action()
    return time.perf_counter() - began, result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--ways", type=int, default=28)
    parser.add_argument("--shots", type=int, default=3)
    parser.add_argument("--images", type=int, default=5)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    from icl_vision.llms.local.gguf import packaged_gemma

    model = packaged_gemma()
    with tempfile.TemporaryDirectory(prefix="single-image-") as cache:
        (Path(cache) / "models").mkdir()
        (Path(cache) / "models" / model.name).symlink_to(model)
        os.environ["ICL_VISION_CACHE"] = cache
        with images_of(options.data) as folder:
            document = measure(folder, options, Path(cache))
    if options.out is not None:
        write(options.out, document)


def measure(folder: Any, options: argparse.Namespace, cache: Path) -> dict[str, Any]:
    from icl_vision.llms import connect
    from icl_vision.llms.word_tables import FILE, word_tables
    from icl_vision.tasks import FewShotClassifier

    draw = random.Random(options.seed)
    labels = draw.sample(sorted(folder.classes), options.ways)
    support, names, others = [], [], []
    for label in labels:
        items = draw.sample(folder.classes[label], min(options.shots + 2, len(folder.classes[label])))
        paths = [str(folder.root / item) for item in items]
        support += paths[: options.shots]
        names += [label] * options.shots
        others += paths[options.shots :]
    draw.shuffle(others)
    singles, batch = others[: options.images], others[: options.batch]
    llm = connect("local")
    llm.count_tokens_sync("the server is started")

    def classifier() -> FewShotClassifier:
        return FewShotClassifier(llm, "words-photo", probabilities="raw", progress=False)

    with word_tables("off"):
        words_alone, asking = timed(lambda: classifier().fit(support, names))
        asking.classify(singles[:1])
        asked = [timed(lambda image=image: asking.classify([image])[0]) for image in singles]
        asked_batch = timed(lambda: asking.classify(batch))
    first, learning = timed(lambda: classifier().fit(support, names))
    learnt = [timed(lambda image=image: learning.classify([image])[0]) for image in singles]
    learnt_batch = timed(lambda: learning.classify(batch))
    again, _ = timed(lambda: classifier().fit(support, names))
    rows = [
        np.log([list(classification.probabilities.values()) for _, classification in side]) for side in (asked, learnt)
    ]
    together = [
        np.log([list(classification.probabilities.values()) for classification in asked_batch[1][: len(singles)]])
    ]
    best = rows[0].argmax(axis=1)
    every = np.arange(len(best))
    apart = np.abs(rows[0] - rows[1])
    seconds = [statistics.median(took for took, _ in side) for side in (asked, learnt)]
    document = header(options.seed) | {
        "data": options.data.name,
        "ways": options.ways,
        "shots": options.shots,
        "images": len(singles),
        "asked": {"seconds": [took for took, _ in asked], "median": seconds[0]},
        "learnt": {"seconds": [took for took, _ in learnt], "median": seconds[1]},
        "ratio": seconds[0] / seconds[1],
        "requests_asked": [classification.usage.requests for _, classification in asked],
        "requests_learnt": [classification.usage.requests for _, classification in learnt],
        "fit_seconds": {"words alone": words_alone, "first": first, "again": again},
        "learning_seconds": first - words_alone,
        "fit_requests": learning.fit_usage_.requests,
        "batch": {"images": len(batch), "asked": asked_batch[0], "learnt": learnt_batch[0]},
        "log_probability_difference": {
            "largest": float(apart.max()),
            "largest_of_the_likeliest": float(apart[every, best].max()),
            "same_labels": bool((best == rows[1].argmax(axis=1)).all()),
            "asked_alone_or_among_others": float(np.abs(rows[0] - together[0]).max()),
        },
        "file_bytes": sum(path.stat().st_size for path in cache.glob(f"{FILE}*")),
    }
    print(f"{options.ways} classes x {options.shots}, {len(singles)} images one at a time, {options.data.name}")
    print(f"  asked    median {seconds[0]:6.2f} s   {document['requests_asked'][0]} requests")
    print(
        f"  learnt   median {seconds[1]:6.3f} s   {document['requests_learnt']} requests, {document['ratio']:.0f} times"
    )
    print(f"  fit      {words_alone:.1f} s for words alone, {first:.1f} s the first time, {again:.1f} s again")
    print(f"  {len(batch)} at once: asked {asked_batch[0]:.1f} s, learnt {learnt_batch[0]:.2f} s")
    print(f"  difference of log-probabilities {document['log_probability_difference']}")
    print(f"  {document['file_bytes'] / 1e6:.1f} MB on disk")
    return document


if __name__ == "__main__":
    main()
