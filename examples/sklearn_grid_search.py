"""Cross-validation and a grid search over a few-shot classifier, with scikit-learn.

    python examples/sklearn_grid_search.py                 the embedded LLM
    python examples/sklearn_grid_search.py --llm fake      without an LLM: how it works, not how well

How many words an image gets is looked for on the packaged photographs of four classes: about a hundred questions.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.model_selection import GridSearchCV, StratifiedKFold, cross_val_score

import icl_vision
from icl_vision.integrations.sklearn import FewShotImageClassifier

PHOTOS = Path(icl_vision.__file__).parent / "demo_data" / "caltech101-demo12"
CLASSES = ("camera", "dolphin", "pizza", "umbrella")


def search(model: FewShotImageClassifier, paths: Sequence[Path], labels: Sequence[str], grid: dict[str, Any]) -> Any:
    """The grid search, fitted: three folds, the examples shown come from the folds not asked about."""
    folds = StratifiedKFold(3, shuffle=True, random_state=0)
    print("cross-validation:", cross_val_score(model, paths, labels, cv=folds).round(2))
    found = GridSearchCV(model, grid, cv=folds, error_score="raise").fit(paths, labels)
    for params, accuracy in zip(found.cv_results_["params"], found.cv_results_["mean_test_score"], strict=True):
        print(f"{accuracy:.2f}", params)
    print("best:", found.best_params_)
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--llm", default="local", help="as for icl_vision.connect")
    parser.add_argument("--images", type=int, default=6, help="photographs of each class")
    options = parser.parse_args(arguments)

    paths = [path for name in CLASSES for path in sorted((PHOTOS / name).glob("*.jpg"))[: options.images]]
    labels = np.array([path.parent.name for path in paths])
    model = FewShotImageClassifier(options.llm, progress=False)
    search(model, paths, labels, {"k": [3, 5]})


if __name__ == "__main__":
    main()
