"""`icl-vision serve`: options that do not go together, the first line, a server that runs and ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from click.testing import CliRunner
from proxied import Talker, run

from icl_vision.cli import main

URL = "http://127.0.0.1:1/v1"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--host", "0.0.0.0"], "there is no token"),
        (["--host", "0.0.0.0", "--token-env", "NOT_SET"], "the variable NOT_SET is not set, or empty"),
        (["--token-env", "SHORT"], "at least 16 printable ASCII characters"),
        (["--upstream-key-env", "SHORT"], "clients need a token"),
        (["--upstream-key-env", "BROKEN"], "the variable BROKEN holds a line end"),
        (["--captioner", URL], "belong together"),
        (["--captioner-key-env", "SHORT"], "belong together"),
        (["--llm", "local:x.gguf"], "leave one of them out"),
        (["--allow-host", "a b"], "an allowed host is a name"),
        (["--cors", "*"], "as browsers send it"),
        (["--most-pictures", "0"], "0 is not in the range"),
        (["--most-body", "1000", "--most-bodies", "999"], "the first must be at least the second"),
        (["--tokenizer", "nothing"], "no tokenizer 'nothing'"),
    ],
)
def test_options_that_cannot_work(arguments: list[str], message: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SHORT", "canary")
    monkeypatch.setenv("BROKEN", "canary-key\n")
    monkeypatch.delenv("NOT_SET", raising=False)
    result = CliRunner().invoke(main, ["serve", "--llm-url", URL, *arguments])
    assert result.exit_code in (1, 2) and message in " ".join(result.stderr.replace("│", " ").split())
    assert "canary" not in result.output


def test_an_address_that_is_taken():
    import socket

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = CliRunner().invoke(main, ["serve", "--llm-url", URL, "--port", str(port), "--no-ocr"])
    assert result.exit_code == 1 and "cannot be listened at" in result.stderr


@pytest.fixture
def behind() -> Iterator[tuple[Talker, str]]:
    talker = Talker()
    running = run(talker)
    yield talker, running.url
    running.stop()


def test_the_command(behind: tuple[Talker, str], tmp_path: Path):
    talker, url = behind
    command = [sys.executable, "-W", "error", "-m", "icl_vision", "serve", "--llm-url", f"{url}/v1", "--port", "0",
               "--no-ocr", "--upstream-key-env", "CANARY_KEY", "--token-env", "CANARY_TOKEN"]  # fmt: skip
    environment = {**os.environ, "CANARY_KEY": "canary-key", "CANARY_TOKEN": "canary-token-of-some-length"}
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, cwd=tmp_path
    )
    remarks: list[str] = []
    try:
        assert process.stdout is not None and process.stderr is not None
        line = process.stdout.readline()
        assert line.startswith(
            "icl-vision serve: pictures become words of describe-photo; non-commercial training data"
        )
        for remark in process.stderr:
            remarks.append(remark)
            if remark.startswith("serving at "):
                break
        base = remarks[-1].split(" ")[2].rstrip(",")
        rest = threading.Thread(target=lambda: remarks.extend(process.stderr or []))
        rest.start()
        with httpx2.Client() as client:
            assert client.get(f"{base}/models").status_code == 401
            shown = client.get(f"{base}/models", headers={"authorization": "Bearer canary-token-of-some-length"})
        assert shown.json()["data"][0]["id"] == "m"
        process.send_signal(signal.SIGINT)
        assert process.wait(20) in (0, 130)
        rest.join(20)
        out = process.stdout.read()
    finally:
        process.kill()
        process.wait()
        for stream in (process.stdout, process.stderr):
            if stream is not None:
                stream.close()
    assert talker.seen[0].header("authorization") == "Bearer canary-key"
    assert "canary" not in "".join(remarks) + out and "Traceback" not in "".join(remarks)
    assert json.dumps(sorted(path.name for path in tmp_path.iterdir())) == "[]"
