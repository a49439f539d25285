"""Which examples a query is shown: near ones, drawn ones, ways and shots, several prompts."""

from __future__ import annotations

from typing import Any

from asked import SceneTokenizer

from icl_vision import Described
from icl_vision.tasks.answer.answered import AnsweredExample
from icl_vision.tasks.answer.selection import Closeness, Selection


def example(question: str | None, answer: str, text: str = "dog grass") -> AnsweredExample:
    return AnsweredExample((Described(text),), question, answer, (answer,))


EXAMPLES = [
    example("what animal is this?", "dog"),
    example("how many cars are there?", "two", "bus street"),
    example("what animal is this?", "cat", "cat sofa"),
    example("what colour is the bus?", "red", "bus street"),
    example("what colour is the cat?", "red", "cat sofa"),
]


def choose(**options: Any) -> Selection:
    return Selection(**({"how": "nearest", "shots": 2, "ways": None, "prompts": 1, "seed": 0} | options))


def test_closeness_is_by_question_and_picture() -> None:
    closeness = Closeness(EXAMPLES, SceneTokenizer())
    by_question = closeness.of([], "how many people are there?")
    assert max(range(5), key=by_question.__getitem__) == 1
    by_picture = closeness.of([Described("cat sofa")], "what animal is this?")
    assert by_picture[2] > by_picture[0] > by_picture[3]
    assert closeness.of([], None) == [0.0] * 5

    class WithoutVectors(SceneTokenizer):
        @property
        def codebook(self) -> Any:
            return None

    shared = Closeness(EXAMPLES, WithoutVectors()).of([Described("bus road")], None)
    assert shared[1] == shared[3] > shared[0] == 0.0


def test_the_nearest_stands_last_and_ties_go_to_the_first() -> None:
    assert choose().nearest(EXAMPLES, [0.1, 0.5, 0.5, 0.2, 0.0]) == [(2, 1)]
    assert choose(shots=None).nearest(EXAMPLES, [0.1, 0.5, 0.4, 0.2, 0.0]) == [(4, 0, 3, 2, 1)]


def test_near_examples_are_dealt_out_to_several_prompts() -> None:
    closeness = [0.5, 0.4, 0.3, 0.2, 0.1]
    assert choose(prompts=2).nearest(EXAMPLES, closeness) == [(2, 0), (3, 1)]
    three = choose(prompts=3, shots=4).nearest(EXAMPLES, closeness)
    assert [row[-1] for row in three] == [0, 1, 2] or len(set(three)) == 3
    alike = choose(prompts=3, shots=None).nearest(EXAMPLES, closeness)
    assert len({*alike}) == 3 and all(sorted(row) == [0, 1, 2, 3, 4] for row in alike)
    assert alike == choose(prompts=3, shots=None).nearest(EXAMPLES, closeness)


def test_draws() -> None:
    first = choose(how="random", prompts=3).random(EXAMPLES)
    assert (
        first
        == choose(how="random", prompts=3).random(EXAMPLES)
        != choose(how="random", seed=4, prompts=3).random(EXAMPLES)
    )
    assert all(len(set(row)) == 2 for row in first)
    assert choose(how="random", seed=None, shots=3).random(EXAMPLES) == [(0, 1, 2)]
    assert choose(how="random").random([]) == [()] == choose().nearest([], [])


def test_ways_count_distinct_answers() -> None:
    closeness = [0.1, 0.2, 0.3, 0.5, 0.4]
    assert choose(ways=2, shots=1).nearest(EXAMPLES, closeness) == [(2, 3)]
    assert choose(ways=2, shots=None).nearest(EXAMPLES, closeness) == [(2, 4, 3)]
    assert choose(ways=9, shots=1).nearest(EXAMPLES, closeness) == [(0, 1, 2, 3)]
    assert choose(ways=1, shots=5).largest(EXAMPLES, [1, 2, 3, 9, 8]) == (3, 4)
