"""What a saved task may name by itself, and whether its templates still say what they said."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

from icl_vision import Captioner, FewShotClassifier, ImageDenoiser, ImageGenerator, VisualQA
from icl_vision.errors import StorageError, TemplateError, UntrustedNameError, UsageError
from icl_vision.files.trust import Reader, is_llm_alone, llm_leads_to
from icl_vision.llms import FakeLLM
from icl_vision.llms.connecting import KINDS
from icl_vision.prompting.templates import packaged_folder
from icl_vision.tokenizers import ImageTokenizer

ELSEWHERE = [
    "openai-compatible:m@http://127.0.0.1:9/v1",
    "langchain:openai:gpt",
    "local:weights.gguf",
    "replay:answers.jsonl",
    "openai:m@https://example.org/v1",
]


def classifier(**options):
    pictures = [np.full((8, 8), value, np.uint8) for value in (0, 255)]
    return FewShotClassifier("fake", "ascii", None, **options).fit(pictures, ["dark", "light"])


def generator(**options):
    tokenizer = ImageTokenizer.from_pretrained("spae-digits-32")
    pictures = [np.full((32, 32), value, np.uint8) for value in (0, 255)]
    return ImageGenerator(FakeLLM(), "spae-digits-32", **options).fit(tokenizer.encode(pictures), ["dark", "light"])


def denoiser(**options):
    pictures = [np.full((32, 32), value, np.uint8) for value in (0, 90, 255)]
    return ImageDenoiser(FakeLLM(), "spae-digits-32", context=2, **options).fit(pictures)


def answerer(**options):
    pictures = [np.full((8, 8), value, np.uint8) for value in (0, 255)]
    return VisualQA("fake", "ascii", **options).fit(pictures, "is it light?", ["no", "yes"])


def captioner(**options):
    pictures = [np.full((8, 8), value, np.uint8) for value in (0, 255)]
    return Captioner("fake", "ascii", **options).fit(pictures, ["A dark picture.", "A light picture."])


TASKS = {
    FewShotClassifier: classifier,
    ImageGenerator: generator,
    ImageDenoiser: denoiser,
    VisualQA: answerer,
    Captioner: captioner,
}
TEMPLATED = [FewShotClassifier, ImageGenerator, VisualQA, Captioner]
"""Tasks that take a folder of templates."""


@pytest.fixture(params=list(TASKS), ids=lambda kind: kind.__name__)
def kind(request):
    return request.param


def edited(path, change):
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))
    return path


def with_llm(spec):
    return lambda document: document["llm"].update(spec=spec, object=False)


@pytest.mark.parametrize("spec", ELSEWHERE)
def test_an_llm_elsewhere_is_the_readers_to_name(kind, spec, tmp_path, monkeypatch):
    task = TASKS[kind]()
    task.save(tmp_path / "task.json")
    edited(tmp_path / "task.json", with_llm(spec))
    connected = []
    monkeypatch.setattr("icl_vision.tasks.base.connect", lambda given: connected.append(given) or FakeLLM())
    with pytest.raises(UntrustedNameError, match=r"names the LLM .*pass llm=\.\.\. .*or trust=True"):
        kind.load(tmp_path / "task.json")
    assert not connected
    kind.load(tmp_path / "task.json", trust=True)
    own = FakeLLM()
    kind.load(tmp_path / "task.json", llm=own)
    assert connected == [spec, own]


@pytest.mark.parametrize("spec", ["local", "fake", "openai:gpt-5", "anthropic:claude-x"])
def test_packaged_and_provider_names_need_nothing(kind, spec, tmp_path, monkeypatch):
    TASKS[kind]().save(tmp_path / "task.json")
    edited(tmp_path / "task.json", with_llm(spec))
    monkeypatch.setattr("icl_vision.tasks.base.connect", lambda given: FakeLLM())
    assert kind.load(tmp_path / "task.json").llm == spec


def test_every_kind_of_llm_is_judged():
    assert {one for one in KINDS if is_llm_alone(one if one in ("local", "fake") else f"{one}:m")} == {
        *("local", "fake", "openai", "anthropic")
    }
    for other in KINDS:
        assert other in ("openai", "anthropic") or llm_leads_to(f"{other}:x") is not None
    assert llm_leads_to("no-llm-at-all") is None  # connect says so, and looks nothing up


@pytest.mark.parametrize("name", ["../tokenizers/mine", "org/repository", "mine"])
def test_a_tokenizer_elsewhere_is_the_readers_to_name(kind, name, tmp_path, monkeypatch):
    TASKS[kind]().save(tmp_path / "task.json")
    edited(tmp_path / "task.json", lambda document: document["tokenizer"].update(spec=name))
    looked = []
    monkeypatch.setattr("icl_vision.tokenizers.zoo.find", lambda given, **_: looked.append(given))
    options = {"llm": FakeLLM()}
    with pytest.raises(UntrustedNameError, match=r"names the tokenizer .*pass tokenizer=\.\.\..* or trust=True"):
        kind.load(tmp_path / "task.json", **options)
    assert not looked
    monkeypatch.undo()
    own = "spae-digits-32" if kind in (ImageGenerator, ImageDenoiser) else "ascii"
    assert kind.load(tmp_path / "task.json", tokenizer=own, **options).tokenizer == own


@pytest.mark.parametrize("key", ["llm", "tokenizer", "budget", "prices"])
def test_options_cannot_name_what_is_judged_elsewhere(kind, key, tmp_path):
    TASKS[kind]().save(tmp_path / "task.json")
    edited(tmp_path / "task.json", lambda document: document["params"].update({key: ELSEWHERE[0]}))
    with pytest.raises(StorageError, match=f"damaged: 'params' holds '{key}'"):
        kind.load(tmp_path / "task.json", llm=FakeLLM())


def test_a_refused_name_shows_no_password():
    with pytest.raises(UntrustedNameError) as refused:
        Reader("task.json").llm("openai-compatible:m@http://me:s3cr@t0@host/v1?key=hidden", "llm=...")
    assert "host/v1" in str(refused.value)
    assert not any(secret in str(refused.value) for secret in ("s3cr", "t0@", "hidden"))


@pytest.mark.parametrize("path", [None, 5, b"task.json"])
def test_a_file_is_named_by_a_path(kind, path):
    with pytest.raises(UsageError, match="is named by a path, a str or an os.PathLike; got"):
        TASKS[kind]().save(path)
    with pytest.raises(UsageError, match="is named by a path, a str or an os.PathLike; got"):
        kind.load(path)


def test_trust_is_a_yes_or_a_no(kind, tmp_path):
    TASKS[kind]().save(tmp_path / "task.json")
    with pytest.raises(UsageError, match="trust must be True or False; got 'no'"):
        kind.load(tmp_path / "task.json", trust="no")


@pytest.fixture
def templates(tmp_path):
    folder = tmp_path / "templates"
    folder.mkdir()
    for name in ("classification", "classification_channel", *(kind().template for kind in TEMPLATED[1:])):
        shutil.copy(packaged_folder() / f"{name}.jinja", folder)
    return folder


@pytest.mark.parametrize("kind", TEMPLATED)
def test_templates_are_kept_by_what_they_say(kind, tmp_path, templates):
    TASKS[kind](templates=templates).save(tmp_path / "task.json")
    options = {"llm": FakeLLM()}
    with pytest.raises(UntrustedNameError, match=r"names the folder of templates .*pass templates=FOLDER"):
        kind.load(tmp_path / "task.json", **options)
    assert kind.load(tmp_path / "task.json", trust=True, **options).templates == str(templates)
    assert kind.load(tmp_path / "task.json", templates=templates, **options).templates == templates
    name = kind().template
    changed = templates / f"{name}.jinja"
    changed.write_text(changed.read_text() + "{# another text #}")
    with pytest.raises(TemplateError, match=rf"another text of the template {name} than .*pass templates=FOLDER"):
        kind.load(tmp_path / "task.json", trust=True, **options)
    kind.load(tmp_path / "task.json", templates=templates, **options)  # said by the reader: whatever it says


def test_a_twin_that_comes_or_changes_counts_too(tmp_path, templates):
    twin = templates / "classification_channel.jinja"
    classifier(templates=templates).save(tmp_path / "task.json")
    twin.write_text(twin.read_text() + "{# another #}")
    with pytest.raises(TemplateError, match="template classification_channel than"):
        FewShotClassifier.load(tmp_path / "task.json", trust=True)
    twin.unlink()
    with pytest.raises(TemplateError, match="template classification_channel than"):
        FewShotClassifier.load(tmp_path / "task.json", trust=True)


def test_a_packaged_template_of_another_version_is_refused(kind, tmp_path):
    TASKS[kind]().save(tmp_path / "task.json")
    name = kind().template if kind in TEMPLATED else "refinement"
    assert name in json.loads((tmp_path / "task.json").read_text())["templates"]
    edited(tmp_path / "task.json", lambda document: document["templates"].update({name: "0" * 64}))
    with pytest.raises(TemplateError, match=f"text of the template {name} than the packaged templates have now"):
        kind.load(tmp_path / "task.json", llm=FakeLLM())
    if kind in TEMPLATED:
        kind.load(tmp_path / "task.json", llm=FakeLLM(), templates=packaged_folder())
    else:
        with pytest.raises(UsageError, match="ImageDenoiser takes no folder of templates"):
            kind.load(tmp_path / "task.json", llm=FakeLLM(), templates=packaged_folder())


@pytest.mark.parametrize("other", TASKS)
def test_a_file_of_another_task_is_refused_and_says_whose_it_is(kind, other, tmp_path):
    TASKS[other]().save(tmp_path / "task.json")
    if other is kind:
        return
    told = rf"is no saved [\w ]+: it holds what {other.__name__}\.load reads; use that"
    with pytest.raises(StorageError, match=told):
        kind.load(tmp_path / "task.json", llm=FakeLLM())


def test_a_document_needs_no_file(kind):
    document = json.loads(json.dumps(TASKS[kind]().to_document()))
    assert kind.from_document(document, llm=FakeLLM()).to_document()["examples"] == document["examples"]
    for wrong in ({}, [], None, document | {"format_version": 2}):
        with pytest.raises(StorageError, match="'the (file|document)'"):
            kind.from_document(wrong, llm=FakeLLM())


def test_a_file_without_hashes_is_taken_with_the_templates_there_are(kind, tmp_path):
    TASKS[kind]().save(tmp_path / "task.json")
    edited(tmp_path / "task.json", lambda document: document.pop("templates"))
    kind.load(tmp_path / "task.json", llm=FakeLLM())


def test_refusals_are_short():
    with pytest.raises(UntrustedNameError) as caught:
        Reader("file.yaml", how="--trust").place("data", "x" * 10_000, "--data DIR")
    assert len(str(caught.value)) < 500 and "--trust" in str(caught.value)
