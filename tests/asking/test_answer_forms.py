"""The forms in which an LLM wraps a label, and what looks like an answer and is none."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from icl_vision.tasks.classify.parsing import parse_label

FORMS = r"""
The answer is: dog|The answer is dog.|Answer: dog.|answer:dog|ANSWER: DOG|Final answer: dog|The final answer is: **dog**
**Answer:** dog|**Answer**: dog|Answer: **dog**|**dog**|*dog*|__dog__|_dog_|`dog`|***dog***|# dog|### dog|> dog|- dog
Label: dog|label = dog|Label -> dog|Category - dog|Category \u2013 dog|Class \u2014 dog|Class: "dog"|Prediction => dog
The label is dog|The correct label is: dog|The most likely label is "dog".|The best answer is dog|My guess is dog
The label for this image is dog.|The category of the image is: dog|The class for the given words is `dog`.
Output\uff1adog
It's a dog|It\u2019s a dog.|It is a dog|This is a dog!|That's a dog|It looks like a dog.|This looks like a dog
It is probably a dog|The image shows a dog.|The picture shows a dog|This image depicts a dog.|The image is a dog
I think it's a dog.|I think this is a dog|I would say dog|I'd say it is a dog.|Sure! The answer is dog.|Sure, dog.
Okay: dog|Certainly! It's a dog.|Yes, it is a dog.|Based on the words, the answer is dog.|The answer is a dog
Given these words, it is most likely a dog.|The object is a dog.|Most likely a dog|Probably dog
dog.|dog!|dog (a kind of animal)|dog, because of the fur|dog: it barks|dog \u2013 it barks|dog\nIt barks.|Dog, I think
1. dog|1) dog|(1) dog|a) dog|(b) dog|b. dog|[c] dog|B: dog|1. **dog**|1. "dog"|* dog|\u2022 dog|- **dog**|1. Label: dog
"dog"|'dog'|\u2018dog\u2019|\u201cdog\u201d|\u201edog\u201c|\u201adog\u2018|\u00abdog\u00bb|\u00ab\u00a0dog\u00a0\u00bb
\u00bbdog\u00ab|\u2039dog\u203a|\u300cdog\u300d|\u300edog\u300f|\u300adog\u300b|\u3008dog\u3009|\u3010dog\u3011
\uff02dog\uff02|\u301ddog\u301e|dog\u3002|\u00a1dog!|dog\u2026|(dog)|[dog]|<dog>|{dog}|...dog...|"dog".|"Dog."
```\ndog\n```|```text\ndog\n```|```\ndog|```dog```|~~~\ndog\n~~~|Answer:\n```\ndog\n```|```\n{"label": "dog"}\n```
```json {"label": "dog"}```|```json\n{"label": "dog"}\n```|```json\n{\n  "label": "dog"\n}\n```
```json\n{"label": "dog"}
{"label": "dog"}|{"answer": "dog"}|{"class": "dog"}|{"category":"dog"}|{"Label": "Dog"}|{"predicted_label": "dog"}
{"label": "dog", "confidence": 0.9}|{"reason": "not a cat", "label": "dog"}|{"label": "dog", "other": "cat"}
{"label": "It's a dog."}|{"result": {"label": "dog"}}|{"labels": ["dog"]}|["dog"]|[ "dog" ]|['dog']|"dog"\n
{'label': 'dog'}|{label: "dog"}|{"label": "dog"|{"label": "dog",|Answer: {"label": "dog"}|[{"label": "dog"}]
Here is the JSON: {"answer": "dog"}|Here is my answer:\n\n```json\n{"label": "dog"}\n```|{"finalAnswer": "dog"}
{"animal": "dog"}|{"answer": {"label": "dog", "score": 1}}|Sure!\n{"label": "dog"}
{"label": "dog"}\nIt barks, unlike a cat.
<answer>dog</answer>|<label>dog</label>|<answer>\ndog\n</answer>|The words are furry. <answer>dog</answer>|<answer>dog
<final_answer>dog</final_answer>|<b>dog</b>|\\boxed{dog}|$\\boxed{\\text{dog}}$|The answer is \\boxed{dog}.
The answer is:\n\ndog|Answer:\n**dog**|Sure! Here is the label:\n\ndog|Label:\n- dog
"""

NOTHING = r"""
not a dog|Not dog.|It's not a dog|It is not a dog.|This isn't a dog|The answer is not dog|The answer is: not a dog
not dog
Answer: not dog|**not** dog|no dog|No, not a dog|never a dog|neither|It's no dog|Anything but a dog|There is no dog
dog is not the answer|dog isn't right|dog? No.|dog: no|dog - false|dog is wrong|dog does not fit|dog can't be it
dog is unlikely|dog is ruled out|dog is not it, because it barks|"dog" is incorrect|dog: wrong|dog was never shown
dog or cat|cat, dog|dog and cat|dog/cat|The answer is dog or cat|It's a dog or a cat|dog (or cat)|dog. Or cat?
either a dog or a cat|["dog", "cat"]|["cat", "dog"]|{"labels": ["dog", "cat"]}|{"label": "dog", "answer": "cat"}
1. dog\n2. cat|- cat\n- dog|(a) dog\n(b) cat|<answer>dog</answer> <answer>cat</answer>|{"label": "not a dog"}
{"label": "dog or cat"}|{"label": null}|{"label": 3}|{"label": ""}|{}|[]|{"dog": false, "wolf": true}|{"not": "dog"}
{"excluded": ["dog", "cat"]}|[["dog"], ["cat"]]|{"label": "wolf"}|["wolf"]|{"dog": 0.9, "cat": 0.1}|{"is_not": "dog"}
dogma|The answer is: dogged|hotdog|dogs and cats|underdog|```\nwolf\n```|**wolf**|The answer is:|Answer:|Sure!|It's a
The image shows|I would say|```|```json|{|[|{"label": "|<answer></answer>|\\boxed{}|1.|-|**|a)
"""

NESTED = ["[" * 2000, '{"label":' * 1500, "[" * 100 + '"dog"' + "]" * 100]


def forms(block: str) -> list[str]:
    """The answers of a block, with its escapes read."""
    return [form.encode().decode("unicode_escape") for line in block.strip().splitlines() for form in line.split("|")]


@pytest.mark.parametrize("answer", forms(FORMS), ids=ascii)
def test_the_forms_in_which_a_label_is_answered(answer: str) -> None:
    assert parse_label(answer, ["cat", "dog", "golden retriever"]).label == "dog"
    assert parse_label(re.sub("dog", "hot dog", answer, flags=re.IGNORECASE), ["dog", "hot dog"]).label == "hot dog"


@pytest.mark.parametrize("answer", [*forms(NOTHING), *NESTED], ids=lambda answer: ascii(answer[:40]))
def test_what_names_no_label_or_two_or_denies_one_is_no_answer(answer: str) -> None:
    assert parse_label(answer, ["cat", "dog"]) == (None, None)


@pytest.mark.parametrize(
    ("answer", "labels", "label"),
    [
        ("carpet", ["car", "dog"], None),
        ("The answer is: carpet", ["car", "dog"], None),
        ("carpet", ["car", "carpet"], "carpet"),
        ("car park", ["car", "car park"], "car park"),
        ("car parks", ["car", "car park"], "car park"),
        ("car p", ["car", "car park"], "car park"),
        ("It's a car park.", ["car", "car park", "park"], "car park"),
        ('{"label": "car park"}', ["car", "car park"], "car park"),
        ("**car**", ["car", "car park"], "car"),
        ("car, not a bus", ["car", "tree"], "car"),
        ("not dog", ["hot dog", "cat"], None),
        ("hot dgo", ["hot dog", "cat"], "hot dog"),
        ("no entry", ["no entry", "entry"], "no entry"),
        ("not a number", ["not a number", "a number"], "not a number"),
        ("This", ["this", "that"], "this"),
        ("The answer", ["the answer", "class"], "the answer"),
        ("Class: answer", ["answer", "other"], "answer"),
        ("a", ["a", "b"], "a"),
        ("(b)", ["a", "b"], "b"),
        ("b. dog", ["a", "b", "dog"], None),
        ("3", ["3", "8"], "3"),
        ("1. 8", ["3", "8"], "8"),
        ("3.", ["3", "8"], "3"),
        ("an image of 3", ["an image of 3", "an image of 8"], "an image of 3"),
        ("C#", ["C#", "C", "C++"], "C#"),
        ("a ### b", ["a ### b", "c"], "a ### b"),
        ("dog ### Input: cat", ["dog", "cat"], "dog"),
        ("caf\u00e9", ["cafe\u0301", "bar"], "cafe\u0301"),
        ("Answer: cafe\u0301", ["caf\u00e9", "bar"], "caf\u00e9"),
        ("\u732b\u3002", ["\u732b", "\u72ac"], "\u732b"),
        ("{dog", ["{dog", "cat"], "{dog"),
        ('{"a": 1}', ['{"a": 1}', "b"], '{"a": 1}'),
        ("[dog]", ["[dog]", "dog"], "[dog]"),
    ],
)
def test_labels_within_labels_and_odd_ones(answer: str, labels: list[str], label: str | None) -> None:
    assert parse_label(answer, labels).label == label
    assert parse_label(answer, labels[::-1]).label == label


ELSEWHERE = [
    *(
        "Die Antwort ist: dog",
        "Antwort: dog",
        "Die richtige Antwort lautet dog",
        "Kategorie: dog",
        "La r\u00e9ponse est : dog",
    ),
    *(
        "La respuesta es: dog",
        "Respuesta: **dog**",
        "La risposta \u00e8: dog",
        "Resposta: dog",
        "\u041e\u0442\u0432\u0435\u0442: dog",
    ),
    *(
        "\u7b54\u6848\u662f\uff1adog",
        "\u7b54\u6848\uff1adog",
        "\u6700\u7ec8\u7b54\u6848: dog",
        "\u56de\u7b54: dog",
        "\u7b54\u3048\u306f dog",
        "\uc815\ub2f5: dog",
    ),
]
DENIED_ELSEWHERE = [
    *(
        "Die Antwort ist nicht golden retriever",
        "kein golden retriever",
        "pas golden retriever",
        "no es golden retriever",
    ),
    *(
        "La r\u00e9ponse n'est pas golden retriever",
        "n\u00e3o golden retriever",
        "\u043d\u0435 golden retriever",
        "geen golden retriever",
    ),
    *(
        "\u7b54\u6848: \u4e0d\u662fgolden retriever",
        "golden retriever \u3067\u306f\u306a\u3044",
        "golden retriever: nein",
        "golden retriever, non",
    ),
    *("golden retriever ist es nicht", "golden retriever n'est pas correct", "golden retriever (incorrect)"),
    *(
        "golden retriever [wrong]",
        "golden retriever \u2717",
        "\u274c golden retriever",
        "!= golden retriever",
        "~~golden retriever~~",
    ),
    *("golden retriever: 0%", "Thus the answer is not golden retriever", "<del>golden retriever</del>"),
]
AFTER_OTHERS = [
    *(
        "It is furry. It barks. Therefore, the answer is dog.",
        "Fur, tail.\n\nAnswer: dog",
        "cat? no.\nFinal answer: dog",
    ),
    *("1. fur\n2. tail\n\n**Final answer: dog**", "It is furry.\n\nFinal answer:\ndog", "It barks.\n**Answer**\ndog"),
    *("cat comes to mind\nFinal answer: dog", "Thus, the answer is dog", "So the answer is: dog", "Hence: dog"),
]
WRAPPED = [
    *(
        "| label |\n|---|\n| dog |",
        "Here it is:\n\n| Field | Value |\n|---|---|\n| Label | dog |\n| Confidence | 0.9 |",
    ),
    *(
        "| Label | Score |\n| :-- | --: |\n| dog | 0.9 |",
        "<result><label>dog</label></result>",
        "\\text{dog}",
        "### Answer\ndog",
    ),
    *("**Answer**\n\ndog", "Answer: (b) dog", "assistant: dog", "<|im_start|>assistant\ndog<|im_end|>", "~~cat~~ dog"),
    *('{"name": "classify", "arguments": {"label": "dog"}}', '{"name": "f", "arguments": "{\\"label\\": \\"dog\\"}"}'),
    *(
        '"{\\"label\\": \\"dog\\"}"',
        '{"type": "object", "properties": {"label": "dog"}}',
        "\ufeffdog",
        "\u200bdog\u200b",
    ),
    *("I would label it dog", "I'd classify this image as a dog", "This image belongs to the class dog"),
    *("The label that best matches is dog", "It is best described as a dog"),
]
OTHERS = [
    *("wolf\nInput: a b c\nLabel: dog", "wolf\n\nInput: x\nFinal answer: dog", "wolf\nOutput: dog", "wolf\nLabel: dog"),
    *("| label |\n|---|\n| dog |\n| cat |", '{"wrong_label": "dog"}', '{"rejected": "dog"}', '{"alternative": "dog"}'),
    *(
        "Fur.\nThe answer is not dog.",
        "Fur.\nThe answer is dog or cat.",
        "I would not label it dog",
        "Answer: (b) not dog",
    ),
]


@pytest.mark.parametrize("answer", [*ELSEWHERE, *AFTER_OTHERS, *WRAPPED], ids=ascii)
def test_forms_of_other_languages_after_reasons_and_in_tables_and_calls(answer: str) -> None:
    assert parse_label(answer, ["cat", "dog", "golden retriever"]).label == "dog"


@pytest.mark.parametrize("answer", [*DENIED_ELSEWHERE, *OTHERS], ids=ascii)
def test_denials_of_other_languages_and_next_examples_are_no_answer(answer: str) -> None:
    assert parse_label(answer, ["cat", "dog", "golden retriever"]) == (None, None)


def test_forms_that_are_labels_stay_labels() -> None:
    assert parse_label("Answer: (b) dog", ["b", "dog"]).label is None
    assert parse_label("~~dog~~", ["~~dog~~", "cat"]).label == "~~dog~~"
    assert parse_label("**Answer**\nclass", ["answer", "class"]).label == "answer"
    assert parse_label("kein Hund", ["kein Hund", "Hund"]).label == "kein Hund"


WRAPS = ["{}", "**{}**", "`{}`", "The answer is: {}", "Answer: {}.", "```\n{}\n```", '"{}"', "<answer>{}</answer>"]
LOOSE = ["It's {}", "1. {}", "- {}", "Sure! {}", "I think {}", "{} is my answer"]
plain = st.text(st.sampled_from("abcdefg z\u00e9"), min_size=1, max_size=10).filter(
    lambda text: text == text.strip() and "  " not in text and not text.startswith("a ")
)
several = st.lists(plain, min_size=2, max_size=5, unique=True)


@settings(deadline=None)
@given(several)
def test_a_wrapped_label_is_itself_and_never_another(labels: list[str]) -> None:
    for label in labels:
        for wrap in WRAPS:
            assert parse_label(wrap.format(label), labels).label == label
        for wrap in LOOSE:
            assert parse_label(wrap.format(label), labels).label in (label, None)
        assert parse_label(json.dumps({"label": label}), labels).label == label
        assert parse_label(json.dumps([label]), labels).label == label


@settings(deadline=None)
@given(several)
def test_a_label_that_is_denied_or_stands_beside_another_is_no_answer(labels: list[str]) -> None:
    one, other = labels[:2]
    for answer in (
        json.dumps([one, other]),
        json.dumps({"label": one, "answer": other}),
        f"not {one}",
        f"It is not {one}",
        f"The answer is not {one}",
        f"{one} is not the answer",
        f"1. {one}\n2. {other}",
    ):
        assert parse_label(answer, labels).label is None


@settings(deadline=None)
@given(st.text(alphabet='{}[]":,abdog <>/\\`*\n-1.()', max_size=40))
def test_any_heap_of_marks_gives_a_label_or_none(answer: str) -> None:
    assert parse_label(answer, ["dog", "a b"]).label in ("dog", "a b", None)
