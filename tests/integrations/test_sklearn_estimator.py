"""The scikit-learn estimator, under scikit-learn's own tools."""

from __future__ import annotations

import importlib.util
import inspect
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("sklearn")

from sklearn.base import clone, is_classifier
from sklearn.exceptions import FitFailedWarning
from sklearn.model_selection import GridSearchCV, cross_val_predict, cross_val_score, cross_validate
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils import get_tags
from sklearn.utils.validation import check_is_fitted

from icl_vision.contracts import Prompt
from icl_vision.errors import CapabilityError, ImageNotFoundError, NotFittedError, UsageError
from icl_vision.integrations.sklearn import FewShotImageClassifier
from icl_vision.llms.fake import FakeLLM
from icl_vision.tasks import FewShotClassifier
from icl_vision.tokenizers.ascii import AsciiTokenizer

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
LEVELS = [255, 0, 250, 5, 245, 10]
LABELS = ["light", "dark"] * 3


def score(prompt: Prompt, continuation: str) -> float:
    light = prompt.query.splitlines()[-2].endswith(".")
    return -0.1 if (continuation == " light") == light else -3.0


@pytest.fixture
def pictures(grey) -> list[Any]:
    return [grey(level) for level in LEVELS]


@pytest.fixture
def paths(pictures, tmp_path: Path) -> list[str]:
    for number, picture in enumerate(pictures):
        picture.save(tmp_path / f"{number}.png")
    return [str(tmp_path / f"{number}.png") for number in range(len(pictures))]


@pytest.fixture
def model() -> FewShotImageClassifier:
    return FewShotImageClassifier(FakeLLM(score=score), AsciiTokenizer(4, 4), 4, scoring="direct", progress=False)


@pytest.fixture
def writer(say) -> FewShotImageClassifier:
    """Its LLM writes a label and knows no probabilities."""
    llm = FakeLLM(say, scores_text=False)
    return FewShotImageClassifier(llm, AsciiTokenizer(4, 4), 4, progress=False)


class TestTools:
    def test_cross_validation(self, model, writer, paths, pictures) -> None:
        for estimator in (model, writer):
            for images in (paths, [Path(path) for path in paths], pictures, np.array(paths), np.array(paths, object)):
                assert cross_val_score(estimator, images, LABELS, cv=3, error_score="raise").tolist() == [1.0] * 3
        assert cross_val_predict(model, paths, LABELS, cv=3).tolist() == LABELS
        found = cross_validate(model, paths, LABELS, cv=3, scoring=["neg_log_loss", "roc_auc", "f1_macro"])
        assert found["test_roc_auc"].tolist() == [1.0] * 3
        assert found["test_neg_log_loss"].mean() == pytest.approx(-np.log1p(np.exp(-2.9)))

    def test_int_labels(self, model, paths) -> None:
        words = {" 1": " light", " 0": " dark"}
        model.set_params(llm=FakeLLM(score=lambda prompt, label: score(prompt, words[label])))
        assert cross_val_predict(model, paths, [1, 0] * 3, cv=3).tolist() == [1, 0] * 3

    def test_grid_search(self, model, paths) -> None:
        grid = {"shots": [1, 2], "induction": [True, False], "tokenizer": [AsciiTokenizer(4, 4), AsciiTokenizer(4, 2)]}
        search = GridSearchCV(model, grid, cv=3, error_score="raise").fit(paths, LABELS)
        assert search.best_score_ == 1.0 and len(search.cv_results_["params"]) == 8
        assert search.predict(paths).tolist() == LABELS and search.classes_.tolist() == ["dark", "light"]
        assert search.score(paths, LABELS) == 1.0

    def test_pipeline(self, model, paths) -> None:
        folder = str(Path(paths[0]).parent)
        join = FunctionTransformer(lambda names: [f"{folder}/{name}" for name in names])
        names = [Path(path).name for path in paths]
        pipeline = make_pipeline(join, model)
        assert pipeline.fit(names, LABELS).predict(names).tolist() == LABELS
        assert cross_val_score(pipeline, names, LABELS, cv=3, error_score="raise").tolist() == [1.0] * 3
        search = GridSearchCV(Pipeline([("join", join), ("classify", model)]), {"classify__shots": [1, 2]}, cv=3)
        assert search.fit(names, LABELS).best_score_ == 1.0

    def test_a_column_of_a_table_is_a_list(self, model, paths) -> None:
        class Column:
            """As pandas and polars have it."""

            def __init__(self, values: list[str]) -> None:
                self.values = values

            def to_numpy(self) -> np.ndarray:
                return np.array(self.values, dtype=object)

        model.fit(Column(paths), np.array(LABELS))
        assert model.predict(np.array(paths)[:, None]).tolist() == LABELS
        with pytest.raises(UsageError, match="X must be one column of images; got an array of shape \\(3, 2\\)"):
            model.predict(np.array(paths).reshape(3, 2))
        with pytest.raises(UsageError, match="X must be a sequence of images; got one \\(str\\)"):
            model.predict(paths[0])

    def test_arrays_of_pixels(self, model, pictures) -> None:
        pixels = np.stack([np.asarray(picture) for picture in pictures])
        assert model.fit(pixels, LABELS).predict(pixels).tolist() == LABELS

    def test_in_processes_of_their_own(self, tmp_path: Path) -> None:
        """With n_jobs, names travel, not connections."""
        code = f"""
            import numpy as np
            from PIL import Image
            from sklearn.model_selection import cross_val_score
            from icl_vision.integrations.sklearn import FewShotImageClassifier
            paths = []
            for number in range(6):
                paths.append({str(tmp_path)!r} + f"/{{number}}.png")
                Image.new("RGB", (16, 16), (40 * number,) * 3).save(paths[-1])
            model = FewShotImageClassifier("fake", "ascii", None)
            print(cross_val_score(model, paths, ["a", "b"] * 3, cv=3, n_jobs=2, error_score="raise").shape)
        """
        command = [sys.executable, "-c", textwrap.dedent(code)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        assert (done.returncode, done.stdout.strip()) == (0, "(3,)"), done.stderr


class TestEstimator:
    def test_what_scikit_learn_asks(self, model) -> None:
        assert is_classifier(model)
        tags = get_tags(model)
        assert tags.input_tags.string and not tags.input_tags.two_d_array and tags.target_tags.required
        assert "FewShotImageClassifier" in repr(model)

    def test_it_has_the_classifiers_own_parameters(self) -> None:
        def defaults(kind: type) -> dict[str, Any]:
            parameters = inspect.signature(kind).parameters
            return {name: (one.default, one.kind) for name, one in parameters.items()}

        ours, theirs = defaults(FewShotImageClassifier), defaults(FewShotClassifier)
        assert ours.pop("abstain_label")[0] is None
        for name in ("errors", "on_unknown"):  # scikit-learn has manners of its own for both
            theirs.pop(name)
        assert ours == theirs

    def test_clones_share_what_is_connected(self, model) -> None:
        twin = clone(model)
        assert twin is not model and twin.llm is model.llm and twin.tokenizer is model.tokenizer
        assert twin.get_params() == model.get_params()
        assert clone(model.set_params(k=None)).k is None
        with pytest.raises(ValueError, match="Invalid parameter 'shot'"):
            model.set_params(shot=1)

    def test_fitted_or_not(self, model, paths) -> None:
        with pytest.raises(NotFittedError, match="this FewShotImageClassifier is not fitted yet"):
            model.predict(paths)
        with pytest.raises(NotFittedError):
            model.predict_proba(paths)
        assert model.fit(paths, LABELS) is model
        check_is_fitted(model)
        assert model.classes_.tolist() == ["dark", "light"]
        assert isinstance(model.classifier_, FewShotClassifier)

    def test_probabilities(self, model, writer, paths) -> None:
        table = model.fit(paths, LABELS).predict_proba(paths)
        assert table.shape == (6, 2) and np.allclose(table.sum(axis=1), 1)
        assert model.classes_[table.argmax(axis=1)].tolist() == LABELS
        with pytest.raises(CapabilityError, match="gives no probabilities"):
            writer.fit(paths, LABELS).predict_proba(paths)

    def test_no_images(self, model, paths) -> None:
        model.fit(paths, LABELS)
        assert model.predict([]).shape == (0,) and model.predict_proba([]).shape == (0, 2)

    def test_a_bad_image_fails_its_fold(self, model, paths) -> None:
        with pytest.raises(ImageNotFoundError, match="no.png"):
            model.fit(paths, LABELS).predict(["no.png"])
        with pytest.warns(FitFailedWarning, match="1 fits failed"):
            scores = cross_val_score(model, [*paths[:5], "no.png"], LABELS, cv=[([0, 1, 5], [2]), ([0, 1], [2, 3])])
        assert np.isnan(scores[0]) and scores[1] == 1.0


class TestAbstaining:
    def test_an_abstention_is_a_mistake(self, paths) -> None:
        llm = FakeLLM(["light", "no idea"] * 3, scores_text=False)
        model = FewShotImageClassifier(llm, AsciiTokenizer(4, 4), 4, concurrency=1).fit(paths, LABELS)
        found = model.predict(paths)
        assert found.tolist() == ["light", ""] * 3 and found.dtype.kind == "U"
        model.llm = FakeLLM(["light", "no idea"] * 3, scores_text=False)
        assert model.fit(paths, LABELS).score(paths, LABELS) == 0.5

    def test_with_numbers(self, paths) -> None:
        llm = FakeLLM("no idea", scores_text=False)
        model = FewShotImageClassifier(llm, AsciiTokenizer(4, 4), 4)
        assert model.fit(paths, [1, 0] * 3).predict(paths[:2]).tolist() == [-1, -1]
        assert model.set_params(abstain_label=9).fit(paths, [1, -1] * 3).predict(paths[:1]).tolist() == [9]

    def test_its_label_must_be_apart(self, model, paths) -> None:
        with pytest.raises(UsageError, match="abstain_label must be no class, but -1 is one"):
            model.fit(paths, [1, -1] * 3)
        with pytest.raises(UsageError, match="abstain_label must be no class, but 'dark' is one"):
            model.set_params(abstain_label="dark").fit(paths, LABELS)
        for wrong in (0, 1.5, True):
            with pytest.raises(UsageError, match="abstain_label must be a str, as the labels are"):
                model.set_params(abstain_label=wrong).fit(paths, LABELS)
        with pytest.raises(UsageError, match="abstain_label must be an int"):
            model.set_params(abstain_label="").fit(paths, [1, 0] * 3)


def test_without_scikit_learn_the_message_says_what_to_install() -> None:
    code = """
        import sys
        sys.modules["sklearn"] = None
        import icl_vision.integrations
        try:
            import icl_vision.integrations.sklearn
        except ImportError as error:
            print(error)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=True)
    assert "pip install 'icl-vision[sklearn]'" in done.stdout


def test_the_example(capsys) -> None:
    spec = importlib.util.spec_from_file_location("sklearn_example", EXAMPLES / "sklearn_grid_search.py")
    assert spec is not None and spec.loader is not None
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    files = [path for name in example.CLASSES for path in sorted((example.PHOTOS / name).glob("*.jpg"))[:3]]
    labels = [path.parent.name for path in files]
    model = FewShotImageClassifier("fake", AsciiTokenizer(8, 8), 8, progress=False)
    found = example.search(model, files, labels, {"induction": [True, False]})
    assert set(found.best_params_) == {"induction"}
    assert "cross-validation:" in capsys.readouterr().out
