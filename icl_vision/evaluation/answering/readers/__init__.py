"""Data of questions and captions, as they lie on disk, in one form: ``QASet``.

    data = read_questions("coco-captions-vqa.tar")
    tuning = data.of_split("tuning")

Knows: layouts of public data sets, by file names and keys. Refuses to know: tokenizers, LLMs, scores, the network.

Archives come from somewhere: a file has a cap, a name that leads out of its archive is refused, and nothing is unpacked
to disk.
"""

from icl_vision.evaluation.answering.readers.items import Picture, QASet, Question
from icl_vision.evaluation.answering.readers.operators import (
    OPERATORS,
    Digits,
    OperatorEpisode,
    digit_set,
    load_operator_episodes,
    operator_episodes,
    operator_questions,
    save_operator_episodes,
)
from icl_vision.evaluation.answering.readers.reading import read_captions, read_questions

__all__ = [
    "OPERATORS",
    "Digits",
    "OperatorEpisode",
    "Picture",
    "QASet",
    "Question",
    "digit_set",
    "load_operator_episodes",
    "operator_episodes",
    "operator_questions",
    "read_captions",
    "read_questions",
    "save_operator_episodes",
]
