"""Once installed: FewShotClassifier("lookup:last", "colours", k=1), in Python and on the command line alike."""

from itertools import pairwise

import numpy as np

from icl_vision import ImageTokenizer, PyramidLayout, TokenPyramid, Vocabulary
from icl_vision.contracts import Completion, Profile
from icl_vision.llms import BaseLLM


class ColourTokenizer(ImageTokenizer):
    """One word an image: the colour that most of its light has."""

    name, layout = "colours", PyramidLayout(((1, 1),))
    vocabulary = Vocabulary(["red", "green", "blue"], name="colours")

    def _encode(self, images, k):
        ids = [np.array([[np.asarray(image).mean(axis=(0, 1)).argmax()]], dtype=np.int32) for image in images]
        return [TokenPyramid((one_word,), self.layout, self.vocabulary) for one_word in ids]


class LookupLLM(BaseLLM):
    """Says what the "first" or "last" example with the query's own words says."""

    profile = Profile("lookup", api="completions")

    def __init__(self, which):
        self.step = {"first": 1, "last": -1}[which]

    async def _complete(self, prompt, **settings):
        *examples, asked, begun = prompt.text.split("\n")
        replies = [reply for words, reply in pairwise(examples) if words == asked]
        return Completion((replies or [begun + " nothing"])[:: self.step][0].removeprefix(begun), "stop")
