"""A chat client through `icl-vision serve`: the same answers as `icl-vision answer`, and a chat LLM beside blind.

    python benchmarks/serve_answers.py embedded --coco FOLDER -n 150 --journal J.jsonl --out FILE.json
    python benchmarks/serve_answers.py chat --coco FOLDER --gguf MODEL.gguf -n 123 --out FILE.json

``embedded``: questions are asked with `icl-vision answer`, and with the openai SDK through `icl-vision serve` in front
of the same local LLM, with the same examples: tuning questions, about other pictures. Told is how many answers are
equal, letter for letter. Where two differ, the command is asked that question alone, as the proxy was.

``chat``: the same questions to a small instruct model behind the proxy, with the picture and without it.

First come the tuning questions (COCO pictures with questions and without captions), of which there are 123; what ``-n``
has beyond them are questions of the test set. Those are asked in order to compare two ways, and whether they are
answered rightly is neither looked at nor kept.

Questions are asked in pieces, and a piece that is in ``--journal`` is not asked again; ``--pieces`` ends a run early.

Knows: questions, two ways to ask them, what is right. Refuses to know: how an answer is found.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import json
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from _common import header, write

ASK = " Answer with one word."


def questions(coco: Path, *, tuning: bool) -> list[dict[str, str]]:
    """The tuning questions, or those of the test set."""
    index = json.loads((coco / "index.json").read_text(encoding="utf-8"))
    return [
        {"image": str(coco / row["file"]), "question": asked["question"], "answer": asked["answer"]}
        for row in index
        if bool(row["captions"]) != tuning
        for asked in row["cocoqa"]
    ]


def chosen(coco: Path, n: int, seed: int) -> tuple[list[dict[str, str]], int]:
    """Those that are asked, and how many of them, the first ones, are tuning questions."""
    tuning, test = questions(coco, tuning=True), questions(coco, tuning=False)
    random.Random(seed).shuffle(tuning)
    random.Random(seed).shuffle(test)
    if n > len(tuning) + len(test):
        raise SystemExit(f"there are {len(tuning) + len(test)} questions, {n} were wanted")
    return (tuning + test)[:n], min(n, len(tuning))


def examples_for(coco: Path, asked: list[dict[str, str]], count: int, seed: int) -> list[dict[str, str]]:
    """Tuning questions about other pictures than those that are asked about."""
    rows = questions(coco, tuning=True)
    random.Random(seed + 1).shuffle(rows)
    pictures = {row["image"] for row in asked}
    return [row for row in rows if row["image"] not in pictures][:count]


@contextlib.contextmanager
def serving(*arguments: str) -> Iterator[str]:
    """The command, running; its clients' base URL."""
    command = [sys.executable, "-m", "icl_vision", "serve", "--port", "0", *arguments]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    try:
        for line in process.stderr:
            if line.startswith("serving at "):
                yield line.split(" ")[2].rstrip(",")
                return
        raise SystemExit(f"icl-vision serve ended with {process.wait()}")
    finally:
        process.terminate()
        process.wait()


def client(url: str) -> Any:
    import openai

    return openai.OpenAI(base_url=url, api_key="none", max_retries=0, timeout=600)


def content(row: dict[str, str], *, picture: bool, end: str = "") -> list[Any]:
    parts: list[Any] = [{"type": "text", "text": row["question"] + end}]
    if picture:
        data = base64.b64encode(Path(row["image"]).read_bytes()).decode()
        parts.append({"type": "image_url", "image_url": {"url": f"data:image/jpeg;base64,{data}"}})
    return parts


def right(text: str, row: dict[str, str]) -> bool:
    from icl_vision.evaluation.answering.metrics import exact_answer

    return exact_answer(text.strip().strip(".").lower(), [row["answer"]])


def said(text: str, row: dict[str, str]) -> bool:
    """Whether the answer's word is among the first words, for a model that answers in sentences."""
    return row["answer"].lower() in [word.strip(".,!?\"'").lower() for word in text.split()]


def listed(path: Path, rows: list[dict[str, str]]) -> str:
    """A file of questions, with pictures' names as seen from it."""
    rows = [{**row, "image": os.path.relpath(row["image"], path.parent)} for row in rows]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def commanded(asked: list[dict[str, str]], examples: list[dict[str, str]]) -> list[dict[str, Any]]:
    """What `icl-vision answer` says."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "icl_vision", "answer", "--trust", "--json", "--quiet"]
        command += ["--questions", listed(Path(folder) / "asked.jsonl", asked)]
        command += ["--support", listed(Path(folder) / "examples.jsonl", examples)]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        rows: list[dict[str, Any]] = json.loads(done.stdout)
        return rows


def embedded(asked: list[dict[str, str]], examples: list[dict[str, str]], coco: Path) -> list[dict[str, Any]]:
    """Each question's answer by the command and through the proxy."""
    direct = commanded(asked, examples)
    through = []
    # What a file names outside of its folder is followed by word only; the proxy gets a file beside the pictures.
    beside = coco / f".serve-examples-{os.getpid()}.jsonl"
    try:
        with serving("--examples", listed(beside, examples)) as url, client(url) as openai:
            for row in asked:
                messages = [{"role": "user", "content": content(row, picture=True)}]
                answer = openai.chat.completions.create(model="local", messages=messages)
                through.append(answer.choices[0].message.content)
    finally:
        beside.unlink(missing_ok=True)
    found: list[dict[str, Any]] = []
    for row, one, other in zip(asked, direct, through, strict=True):
        found.append({"direct": one["answer"], "through_the_proxy": other})
        if one["answer"] != other:
            found[-1]["confidence"] = one.get("confidence")
            found[-1]["direct_alone"] = commanded([row], examples)[0]["answer"]
    return found


def chat(asked: list[dict[str, str]], gguf: Path) -> list[dict[str, Any]]:
    """What a chat LLM says, without the pictures and with their words."""
    found: list[dict[str, Any]] = [{} for _ in asked]
    with serving("--llm", f"local:{gguf}") as url, client(url) as openai:
        for name, picture in (("blind", False), ("with_words", True)):
            for row, kept in zip(asked, found, strict=True):
                messages = [{"role": "user", "content": content(row, picture=picture, end=ASK)}]
                answer = openai.chat.completions.create(model="local", messages=messages, max_tokens=12, temperature=0)
                kept[name] = answer.choices[0].message.content or ""
    return found


def told_embedded(found: list[dict[str, Any]], asked: list[dict[str, str]], tuning: int) -> dict[str, Any]:
    """Counts; what is right, of tuning questions only."""
    unequal = [
        {"number": number, **row} for number, row in enumerate(found) if row["direct"] != row["through_the_proxy"]
    ]
    seen = list(zip(found, asked, strict=True))[:tuning]
    return {
        "equal": len(found) - len(unequal),
        "equal_of_tuning": tuning - sum(row["number"] < tuning for row in unequal),
        "unequal": unequal,
        "right_of_tuning": {
            name: sum(right(row[name] or "", truth) for row, truth in seen) for name in ("direct", "through_the_proxy")
        },
    }


def told_chat(found: list[dict[str, Any]], asked: list[dict[str, str]], tuning: int) -> dict[str, Any]:
    """Counts, of tuning questions only."""
    seen = list(zip(found, asked, strict=True))[:tuning]
    return {
        name: {
            "exact": sum(right(row[name], truth) for row, truth in seen),
            "among_the_words": sum(said(row[name], truth) for row, truth in seen),
        }
        for name in ("blind", "with_words")
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("mode", choices=["embedded", "chat"])
    parser.add_argument("--coco", type=Path, required=True)
    parser.add_argument("--gguf", type=Path)
    parser.add_argument("-n", type=int, default=30)
    parser.add_argument("--examples", type=int, default=8, help="that the LLM is shown")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--piece", type=int, default=25, help="questions of a piece")
    parser.add_argument("--pieces", type=int, help="that are asked now; default: all that are left")
    parser.add_argument("--journal", type=Path, help="where pieces are kept")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    if arguments.mode == "chat" and arguments.gguf is None:
        parser.error("chat needs --gguf MODEL.gguf")
    coco = arguments.coco.resolve()
    asked, tuning = chosen(coco, arguments.n, arguments.seed)
    lines = (
        arguments.journal.read_text(encoding="utf-8").splitlines()
        if arguments.journal and arguments.journal.exists()
        else []
    )
    found: list[dict[str, Any]] = [json.loads(line) for line in lines]
    now = arguments.pieces
    while len(found) < len(asked) and now != 0:
        piece = asked[len(found) : len(found) + arguments.piece]
        if arguments.mode == "embedded":
            news = embedded(piece, examples_for(coco, piece, arguments.examples, arguments.seed), coco)
        else:
            news = chat(piece, arguments.gguf.resolve())
        if arguments.journal:
            with arguments.journal.open("a", encoding="utf-8") as file:
                file.writelines(json.dumps(row) + "\n" for row in news)
        found += news
        now = None if now is None else now - 1
        print(f"{len(found)} of {len(asked)} questions", file=sys.stderr)
    if len(found) < len(asked):
        return
    results: dict[str, Any] = {"n": len(asked), "of_tuning": tuning, "of_the_test_set": len(asked) - tuning}
    if arguments.mode == "embedded":
        results |= {"examples": arguments.examples, **told_embedded(found, asked, tuning)}
    else:
        results |= {"model": arguments.gguf.name, "asked": f"the question and {ASK.strip()!r}"}
        results |= told_chat(found, asked, tuning)
    print(json.dumps(results, indent=1))
    if arguments.out:
        write(arguments.out, {**header(arguments.seed), "mode": arguments.mode, "results": results})


if __name__ == "__main__":
    main()
