"""The command on standard input and output: nothing but messages leaves by descriptor 1, whoever prints."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from mcp import Client, StdioServerParameters

NOISY = """
import os, sys
import icl_vision.tokenizers.onnx as onnx

def noisy(method):
    def call(*arguments, **options):
        print("a print")
        os.write(1, b"llama_model_loader: loaded meta data\\n")
        os.system("echo a child")
        return method(*arguments, **options)
    return call

onnx.OnnxTokenizer.__init__ = noisy(onnx.OnnxTokenizer.__init__)
onnx.OnnxTokenizer.encode = noisy(onnx.OnnxTokenizer.encode)
from icl_vision.cli import main
main(sys.argv[1:], prog_name="icl-vision")
"""


def arguments(world: Any, tiny_folder: Path) -> list[str]:
    return [
        "-c", NOISY, "mcp", "--tokenizer", str(tiny_folder), "--llm", "fake", "--root", str(world.root), "--no-draw",
        "--out", str(world.out),
    ]  # fmt: skip


async def test_a_client_that_starts_it(world: Any, tiny_folder: Path, era: str, tmp_path: Path) -> None:
    said = tmp_path / "said"
    with said.open("w") as errors:
        from mcp import stdio_client

        parameters = StdioServerParameters(
            command=sys.executable, args=arguments(world, tiny_folder), env=dict(os.environ)
        )
        async with Client(stdio_client(parameters, errlog=errors), mode=era) as client:
            names = [tool.name for tool in (await client.list_tools()).tools]
            described = await client.call_tool("describe_image", {"path": "red.png"})
            folder = await client.call_tool("tokenize_folder", {"folder": ".", "out": "all.jsonl"})
    assert {"describe_image", "tokenize_folder"} <= set(names)
    assert described.structured_content["words"]["colours"][0] == "red"
    assert folder.structured_content["images"] == 2
    errors_said = said.read_text()
    assert "words by tiny-describe" in errors_said and "llama_model_loader" in errors_said and "a child" in errors_said


def lines(world: Any, tiny_folder: Path, sent: bytes) -> tuple[list[Any], str]:
    done = subprocess.run(
        [sys.executable, *arguments(world, tiny_folder)], input=sent, capture_output=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr.decode()
    return [json.loads(line) for line in done.stdout.splitlines()], done.stderr.decode()


def message(method: str, number: int | None = 1, **params: Any) -> bytes:
    document: dict[str, Any] = {"jsonrpc": "2.0", "method": method, "params": params}
    return json.dumps(document | ({} if number is None else {"id": number})).encode() + b"\n"


def test_lines_that_are_no_messages(world: Any, tiny_folder: Path) -> None:
    """Garbage is passed over or answered with an error; what comes after it is answered."""
    hello = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "tests", "version": "0"}}
    sent = b"\xff\xfe no json\n{}\n[1, 2]\n" + b"x" * 100_000 + b"\n"
    sent += message("initialize", 1, **hello) + message("notifications/initialized", None)
    sent += message("tools/call", 2, name="describe_image", arguments={"path": "red.png"})
    sent += message("tools/call", 3, name="describe_image", arguments="red.png")
    # It serves until its input ends, and then gives up what is under way: so the end must wait for the answers.
    process = subprocess.Popen(
        [sys.executable, *arguments(world, tiny_folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write(sent)
    process.stdin.flush()
    answers = {}
    while not {1, 2, 3} <= answers.keys():
        answer = json.loads(process.stdout.readline())
        answers[answer.get("id")] = answer
    process.stdin.close()
    assert process.wait(60) == 0 and process.stdout.read() == b""
    process.stdout.close()
    assert answers[1]["result"]["serverInfo"]["name"] == "icl-vision"
    assert not answers[2]["result"].get("isError") and answers[3]["error"]["code"] == -32602


CALL = b'"method": "tools/call", "params": {"name": "describe_image", "arguments": {"image": "%b"}}'


@pytest.mark.parametrize(
    ("line", "number"),
    [
        (b'{"jsonrpc": "2.0", "id": 7, ' + CALL + b"}", b"7"),
        (b"{" + CALL + b', "jsonrpc":"2.0","id":"a-8"}\r', b'"a-8"'),
        (b'{"id":9,"jsonrpc":"2.0",' + CALL + b"}", b"9"),
        (b"{" + CALL.replace(b"%b", b'%b","id":5,"x":"') + b"}", None),  # a number inside, none of its own
        (b"%b", None),
    ],
)
@pytest.mark.parametrize("at_once", [7, 10**6])
def test_a_line_that_is_too_long(line: bytes, number: bytes | None, at_once: int) -> None:
    from icl_vision.serving.mcp.stdio import Line

    kept = Line(10_000)
    whole = line % (b"A" * 30_000)
    for place in range(0, len(whole), at_once):
        kept.add(whole[place : place + at_once])
        assert sum(map(len, kept._pieces)) <= 10_000
    passed, told = kept.taken()
    assert passed == b""
    if number is None:
        assert told == b""
    else:
        assert json.loads(told)["id"] == json.loads(number)
        assert json.loads(told)["error"]["message"].endswith("was not read; 10000 are allowed")
    kept.add(b"the next ")
    kept.add(b"one")
    assert kept.taken() == (b"the next one", b"") and kept.taken() == (b"", b"")


async def test_a_client_is_told_of_its_long_message(world: Any, tiny_folder: Path, era: str) -> None:
    import anyio
    from mcp import MCPError, stdio_client

    program = (
        "import sys, icl_vision.serving.mcp.stdio as stdio\nrun = stdio.run_stdio\n"
        "stdio.run_stdio = lambda server, wire, most: run(server, wire, 100_000)\n"
        "from icl_vision.cli import main\nmain(sys.argv[1:], prog_name='icl-vision')"
    )
    parameters = StdioServerParameters(
        command=sys.executable, args=["-c", program, *arguments(world, tiny_folder)[2:]], env=dict(os.environ)
    )
    async with Client(stdio_client(parameters), mode=era) as client:
        with anyio.fail_after(60), pytest.raises(MCPError, match="was not read; 100000 are allowed"):
            await client.call_tool("describe_image", {"image": "A" * 200_000})
        assert (await client.call_tool("describe_image", {"path": "red.png"})).structured_content["words"]


def test_input_that_ends_at_once(world: Any, tiny_folder: Path) -> None:
    answers, errors = lines(world, tiny_folder, b"")
    assert answers == [] and "Traceback" not in errors


@pytest.mark.skipif(os.name == "nt", reason="Ctrl-C is sent otherwise there")
def test_ctrl_c_ends_it_while_its_client_says_nothing(world: Any, tiny_folder: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, *arguments(world, tiny_folder)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdin is not None and process.stdout is not None and process.stderr is not None
    process.stdin.write(message("ping", 1))
    process.stdin.flush()
    assert process.stdout.readline()  # it serves
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 130
    assert process.stderr.read().decode().rstrip().endswith("interrupted")
    for stream in (process.stdin, process.stdout, process.stderr):
        stream.close()


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--root", "no-such-folder"], "no-such-folder"),
        (["--classifier", "no-such.json"], "there is no file 'no-such.json'"),
        (["--classifier", "a=x.json", "--classifier", "a=y.json"], "two are called 'a'"),
        (["--classifier", "=x.json"], "a name is 1 to 64"),
        (["--token-env", "TOKEN"], "--token-env, --allow-host and --cors are for --http"),
        (["--tokenizer", "no-such"], "no-such"),
        (["--http", "--host", "0.0.0.0"], "there is no token"),
        (["--http", "--llm", "openai:gpt-5.1"], "--llm that is not local needs --token-env"),
        (["--http", "--token-env", "NO_SUCH_TOKEN"], "the variable NO_SUCH_TOKEN is not set"),
        (["--http", "--allow-host", "a b"], "an allowed host is"),
    ],
)
def test_what_cannot_be_started_is_told_on_standard_error(options: list[str], told: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "icl_vision", "mcp", "--llm", "fake", "--no-draw", *options],
        capture_output=True, text=True, timeout=120, cwd=tmp_path, stdin=subprocess.DEVNULL, check=False,
    )  # fmt: skip
    assert done.returncode in (1, 2) and told in done.stderr and "Traceback" not in done.stderr
    assert done.stdout == ""
