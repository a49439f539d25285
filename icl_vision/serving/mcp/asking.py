"""ask_image and classify_image: a text LLM that answers about a picture from its words.

Knows: how an answer and a label are told. Refuses to know: how they are found (``tasks``), what a saved task may name
(``saved``).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from icl_vision.image_words import TEXT
from icl_vision.serving.mcp.given import Later, picture_arguments, picture_of, pixels_of
from icl_vision.serving.mcp.looking import READ_SCHEMA, WORDS_SCHEMA
from icl_vision.serving.mcp.tool import Argument, Call, McpTool, Told
from icl_vision.serving.words import READ, escaped, quoted
from icl_vision.tasks.tools import NAMES_SHOWN, WORDS_SHOWN, classifying, shortened

if TYPE_CHECKING:
    from icl_vision.contracts import Answer
    from icl_vision.serving.pictures import Pictures
    from icl_vision.serving.words import PictureWords
    from icl_vision.tasks import FewShotClassifier
    from icl_vision.tasks.answer.visual_qa import VisualQA

QUESTION_CHARACTERS = 300
"""Of a question that is asked: it stands in the prompt of a small LLM."""


def answering(answerer: Later[VisualQA], words: PictureWords, pictures: Pictures) -> McpTool:
    """Questions about a picture.

    answerer: made at the first question. words: pictures already in words; used where the answerer takes such.
    """

    async def run(call: Call, given: Mapping[str, Any]) -> Told:
        data = await picture_of(call, given)
        task = (await answerer.get()).quietly()
        shared = task.tokenizer_ is words.tokenizer and task.fitted.params["k"] == words.k
        picture: Any = await words.seen(data, "the picture") if shared else await pixels_of(call, data)
        (answer,) = await task.aanswers([picture], [given["question"]])
        if answer.error is not None:
            raise answer.error
        return _told(answer)

    return McpTool(
        name="ask_image",
        title="Ask about a picture",
        description="Answers a short question about a picture in a word or two: what is in it, what it is doing, its "
        "colour, how many, where. A small text LLM answers from the picture's words, so it is often wrong; the "
        "confidence says how sure to be. It cannot read screens, pages, tables or handwriting.",
        arguments=(
            *picture_arguments(pictures),
            Argument(
                name="question",
                text="One short question about what the picture shows.",
                required=True,
                longest=QUESTION_CHARACTERS,
            ),
        ),
        output={
            "answer": {"type": "string"},
            "probability": {
                "type": ["number", "null"],
                "description": "That the answer is right, from 0 to 1; null where it is not known.",
            },
            "calibrated": {
                "type": "boolean",
                "description": "Whether the probability is as sure as such answers turn out right, or the LLM's own.",
            },
            "method": {"type": ["string", "null"], "description": "How the answer was found."},
            "words": WORDS_SCHEMA,
            "read": READ_SCHEMA,
        },
        run=run,
        names=frozenset({"path"}),
    )


def labelling(classifiers: Mapping[str, FewShotClassifier], pictures: Pictures) -> McpTool:
    """Labels of classifiers that were fitted and saved before. classifiers: by the name a client calls them."""
    known = {name: classifying(classifier) for name, classifier in classifiers.items()}
    labels = {name: [str(label) for label in classifier.classes_] for name, classifier in classifiers.items()}

    async def run(call: Call, given: Mapping[str, Any]) -> Told:
        name = given.get("classifier", next(iter(known)))
        image = await pixels_of(call, await picture_of(call, given))
        (result,) = await classifiers[name].quietly().aclassify([image])
        if result.error is not None:
            raise result.error
        text, _ = known[name].tell(result, str)
        data = {
            "classifier": name,
            "label": result.label,
            "probabilities": None if result.probabilities is None else dict(result.probabilities),
            "calibrated": result.calibrated,
            "method": result.method,
        }
        return Told(text=text, data=data)

    one = len(known) == 1
    each = "; ".join(f"{'' if one else name + ': '}{shortened(names, NAMES_SHOWN)}" for name, names in labels.items())
    which = Argument(
        name="classifier",
        text="Which of the classifiers. Each knows its own labels and no others.",
        required=not one,
        choices=tuple(known),
    )
    return McpTool(
        name="classify_image",
        title="Classify a picture",
        description=f"Says which of the labels of a classifier fits a picture. {each}.",
        arguments=(*picture_arguments(pictures), which),
        output={
            "classifier": {"type": "string"},
            "label": {"type": ["string", "null"], "description": "null where none of the labels fits."},
            "probabilities": {
                "type": ["object", "null"],
                "description": "Of each label; null where they are not known.",
                "additionalProperties": {"type": "number"},
            },
            "calibrated": {"type": "boolean"},
            "method": {"type": ["string", "null"]},
        },
        run=run,
        names=frozenset({"path"}),
    )


def _told(answer: Answer) -> Told:
    """An answer, its words, and what was read, told apart from them."""
    # (Without parts the words are layers.)
    names = answer.parts or tuple(f"layer {number}" for number in range(1, len(answer.words) + 1))
    rows = list(zip(names, answer.words, strict=True))
    words = {name: list(row) for name, row in rows if name != TEXT}
    read = [text for name, row in rows if name == TEXT for text in row]
    said = escaped(answer.text)  # what an LLM writes may be what it was told by a picture
    text = f"[{READ}: {quoted([answer.text])}]" if answer.method == "read" else said
    if answer.probability is not None:
        text += f" (confidence {answer.probability:.2f}{'' if answer.calibrated else ', not calibrated'})"
    told = [word for row in words.values() for word in row]
    lines = [text, f"words for the picture: {shortened(told, WORDS_SHOWN)}"]
    if read and answer.method != "read":
        lines.append(f"[{READ}: {quoted(read)}]")
    return Told(
        text="\n".join(lines),
        data={
            "answer": said,
            "probability": answer.probability,
            "calibrated": answer.calibrated,
            "method": answer.method,
            "words": words,
            "read": [escaped(one) for one in read],
        },
    )
