"""In which form an instruct model is best asked few-shot questions: plain text to continue, or its chat.

    python benchmarks/instruct_forms.py --gguf MODEL.gguf --out FILE.json

Knows: the packaged questions about photographs, with our captions in place of the photographs' words, so that vision is
no part of it. Refuses to know: how such questions are answered in the library (that fuses both).

Each of the sixteen is asked with eight of the others as examples. Two things are counted: how often the right answer is
the likeliest of ten (nine drawn from the others' answers), scored as plain continuation and as the model's turn in its
chat; and how often it is what the model writes by itself, continuing the text and answering in its chat.
"""

from __future__ import annotations

import argparse
import random
from pathlib import Path
from typing import Any

from _common import header, write

SHOWN, CHOICES, SEED = 8, 10, 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gguf", type=Path, required=True, help="an instruct model's file")
    parser.add_argument("--questions", type=int, default=16)
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    options = parser.parse_args()

    from icl_vision import connect
    from icl_vision.errors import LLMNoAnswerError
    from icl_vision.evaluation.kit.metrics import wilson_interval
    from icl_vision.tasks.answer.answered import MOST_ANSWER
    from icl_vision.tasks.answer.files import packaged_captions, packaged_examples
    from icl_vision.tasks.answer.prompts import ANSWERING, AnswerPromptBuilder, ShownExample
    from icl_vision.tasks.answer.reading import normal_form, short_answer

    chat = connect(f"local:{options.gguf}", context=2048)
    in_turn = connect(f"local:{options.gguf}", context=2048, scores_as="answer")
    plain = connect(f"local:{options.gguf}", context=2048, api="completions")
    _, questions, answers = packaged_examples()
    items = list(zip(packaged_captions()[1], questions, answers, strict=True))
    every = sorted(set(answers))
    builder, draw = AnswerPromptBuilder(ANSWERING, "answer"), random.Random(SEED)
    right: dict[str, list[bool]] = {}

    def count(row: str, is_right: bool) -> None:
        right.setdefault(row, []).append(is_right)

    for number, (caption, question, answer) in enumerate(items[: options.questions]):
        shown = draw.sample([item for place, item in enumerate(items) if place != number], SHOWN)
        prompt = builder.prepare([ShownExample((one,), asked, told) for one, asked, told in shown]).query(
            [caption], question
        )
        wrong = draw.sample([one for one in every if one != answer], min(CHOICES, len(every)) - 1)
        for row, llm in (("scored, plain", plain), ("scored, in its turn", in_turn)):
            scores = llm.score_sync([(prompt, f" {one}") for one in [answer, *wrong]]).logprobs
            count(row, max(range(len(scores)), key=lambda place: scores[place]) == 0)
        for row, llm in (("written, plain", plain), ("written, in its chat", chat)):
            try:
                written = llm.complete_sync(prompt, max_tokens=8, stop="\n").text
            except LLMNoAnswerError:
                written = ""
            found = short_answer(written, [told for _, _, told in shown], most=MOST_ANSWER)
            count(row, normal_form(found) == normal_form(answer))
    rows: list[dict[str, Any]] = []
    for row, outcomes in right.items():
        low, high = wilson_interval(sum(outcomes), len(outcomes))
        rows.append({"form": row, "right": sum(outcomes), "n": len(outcomes), "interval": [low, high]})
        print(f"{row}: {sum(outcomes)} of {len(outcomes)} right [{100 * low:.0f}, {100 * high:.0f}]")
    if options.out is not None:
        write(options.out, {**header(SEED), "model": options.gguf.name, "rows": rows})


if __name__ == "__main__":
    main()
