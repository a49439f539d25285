"""Ask the same questions about every photograph of a folder; the answers become a table (CSV).

    python examples/ask_folder.py photos answers.csv --question "What is it?" --question "What colour is it?"
    python examples/ask_folder.py photos answers.csv --question "Is it an animal?" --choices yes,no --llm fake

A row a photograph, a column a question, and the words that the LLM saw. Every answer is kept in answers.csv.run as soon
as it is there: stopped at any moment, the same command goes on. The examples that the LLM is shown are the packaged
ones; pass --support FILE.jsonl to show your own.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Sequence
from pathlib import Path

from icl_vision import VisualQA
from icl_vision.images import list_images
from icl_vision.tasks import answer_many, packaged_examples
from icl_vision.tasks.answer.files import read_entries


def examples(support: Path | None) -> tuple[list, list, list]:
    """Images, questions and answers: the packaged ones, or those of a file of one's own."""
    if support is None:
        return packaged_examples()
    entries = read_entries(support, "question", truths=True)
    return (
        [list(entry.images) for entry in entries],
        [entry.question for entry in entries],
        [list(entry.truths) for entry in entries],
    )


def cell(text: str) -> str:
    """A cell that no spreadsheet takes for a formula."""
    return f"'{text}" if text.startswith(("=", "+", "-", "@")) else text


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path, help="a folder of photographs")
    parser.add_argument("table", type=Path, help="the CSV file to write")
    parser.add_argument("--question", action="append", required=True, dest="questions")
    parser.add_argument("--choices", help="answers to choose among, separated by commas")
    parser.add_argument("--support", type=Path, help="examples of your own, lines of JSON")
    parser.add_argument("--llm", default="local", help="as for icl_vision.connect")
    parser.add_argument("--tokenizer", default="describe-photo")
    options = parser.parse_args(arguments)

    paths = list_images(options.photos)
    choices = options.choices.split(",") if options.choices else None
    qa = VisualQA(options.llm, options.tokenizer, choices=choices).fit(*examples(options.support))
    asked = [(path, question) for path in paths for question in options.questions]
    outcome = answer_many(
        qa, [path for path, _ in asked], [question for _, question in asked], out=f"{options.table}.run", resume=True
    )
    rows = iter(outcome.rows)
    with options.table.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["image", *options.questions, "words"])
        for path in paths:
            answers = [next(rows) for _ in options.questions]
            words = " ".join(word for part in answers[0]["words"] for word in part)
            said = [row.get("error") or row["text"] for row in answers]
            table.writerow([cell(text) for text in (str(path), *said, words)])
    print(f"{outcome.answered} asked, {outcome.kept} known from before, {outcome.failed} failed; see {options.table}")


if __name__ == "__main__":
    main()
