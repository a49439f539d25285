"""A chat client through `icl-vision serve`: the same answers as `icl-vision answer`, and a chat LLM beside blind.

    python benchmarks/serve_answers.py embedded --coco COCO_FOLDER -n 30 --out FILE.json
    python benchmarks/serve_answers.py chat --coco COCO_FOLDER --gguf MODEL.gguf -n 123 --out FILE.json

``embedded``: tuning questions (COCO pictures with questions and without captions) are asked with `icl-vision answer`,
and with the openai SDK through `icl-vision serve` in front of the same local LLM, with the same examples: other tuning
questions, about other pictures. Told is how many answers are equal, letter for letter, and how many are right.

``chat``: the same questions to a small instruct model behind the proxy, with the picture and without it.

Knows: questions, two ways to ask them, what is right. Refuses to know: how an answer is found. All of these questions
were tuned on; no figure here is one of accuracy on questions that nobody saw.
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


def questions(coco: Path) -> list[dict[str, str]]:
    """The tuning questions."""
    index = json.loads((coco / "index.json").read_text(encoding="utf-8"))
    return [
        {"image": str(coco / row["file"]), "question": asked["question"], "answer": asked["answer"]}
        for row in index
        if not row["captions"]
        for asked in row["cocoqa"]
    ]


def chosen(coco: Path, n: int, seed: int) -> tuple[list[dict[str, str]], list[dict[str, str]]]:
    """Those that are asked, and those about other pictures."""
    rows = questions(coco)
    random.Random(seed).shuffle(rows)
    asked = rows[:n]
    pictures = {row["image"] for row in asked}
    return asked, [row for row in rows if row["image"] not in pictures]


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


def embedded(coco: Path, n: int, seed: int, examples: int) -> dict[str, Any]:
    asked, others = chosen(coco, n, seed)
    others = others[:examples]
    with tempfile.TemporaryDirectory() as folder:
        names = {}
        for name, rows in (("asked", asked), ("examples", others)):
            path = Path(folder) / f"{name}.jsonl"
            rows = [{**row, "image": os.path.relpath(row["image"], folder)} for row in rows]
            path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
            names[name] = str(path)
        # What a file names outside of its folder is followed by word only; the proxy gets a copy beside the pictures.
        beside = coco / ".serve-examples.jsonl"
        rows = [{**row, "image": os.path.relpath(row["image"], coco)} for row in others]
        beside.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        try:
            command = [sys.executable, "-m", "icl_vision", "answer", "--questions", names["asked"], "--support",
                       names["examples"], "--trust", "--json", "--quiet"]  # fmt: skip
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            direct = [row["answer"] for row in json.loads(done.stdout)]
            through = []
            with serving("--examples", str(beside)) as url, client(url) as openai:
                for row in asked:
                    messages = [{"role": "user", "content": content(row, picture=True)}]
                    answer = openai.chat.completions.create(model="local", messages=messages)
                    through.append(answer.choices[0].message.content)
        finally:
            beside.unlink()
    pairs = list(zip(direct, through, strict=True))
    return {
        "n": n,
        "examples": len(others),
        "equal": sum(one == other for one, other in pairs),
        "unequal": [
            {"number": number, "direct": pair[0], "through_the_proxy": pair[1]}
            for number, pair in enumerate(pairs)
            if pair[0] != pair[1]
        ],
        "right_direct": sum(right(text or "", row) for text, row in zip(direct, asked, strict=True)),
        "right_through_the_proxy": sum(right(text or "", row) for text, row in zip(through, asked, strict=True)),
    }


def chat(coco: Path, n: int, seed: int, gguf: Path) -> dict[str, Any]:
    asked, _ = chosen(coco, n, seed)
    results: dict[str, Any] = {"n": n, "model": gguf.name, "asked": f"the question and {ASK.strip()!r}"}
    with serving("--llm", f"local:{gguf}") as url, client(url) as openai:
        for name, picture in (("blind", False), ("with_words", True)):
            exact = among = 0
            for row in asked:
                messages = [{"role": "user", "content": content(row, picture=picture, end=ASK)}]
                answer = openai.chat.completions.create(model="local", messages=messages, max_tokens=12, temperature=0)
                text = answer.choices[0].message.content or ""
                exact, among = exact + right(text, row), among + said(text, row)
            results[name] = {"exact": exact, "among_the_words": among}
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("mode", choices=["embedded", "chat"])
    parser.add_argument("--coco", type=Path, required=True)
    parser.add_argument("--gguf", type=Path)
    parser.add_argument("-n", type=int, default=30)
    parser.add_argument("--examples", type=int, default=40, help="that the LLM is shown the nearest eight of")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    if arguments.mode == "embedded":
        results = embedded(arguments.coco.resolve(), arguments.n, arguments.seed, arguments.examples)
    else:
        if arguments.gguf is None:
            parser.error("chat needs --gguf MODEL.gguf")
        results = chat(arguments.coco.resolve(), arguments.n, arguments.seed, arguments.gguf.resolve())
    print(json.dumps(results, indent=1))
    if arguments.out:
        write(arguments.out, {**header(arguments.seed), "mode": arguments.mode, "results": results})


if __name__ == "__main__":
    main()
