"""Constraints that tell places apart: the contract, its JSON, the grammar, the fake, and llama.cpp's requests."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager

import pytest

from icl_vision.contracts import Completion, Constraint
from icl_vision.errors import CapabilityError, LLMResponseError, UsageError
from icl_vision.llms.fake import FakeLLM
from icl_vision.llms.local.grammar import constraint_grammar
from icl_vision.llms.local.places import write_places
from icl_vision.llms.local.server import Slot

TOKENS = {"a": 11, "b": 12, "c": 13}


def test_places_are_part_of_a_constraint():
    constraint = Constraint.at_places([("a", "b"), ("c",), ["b", "c"]])
    assert constraint == Constraint(("a", "b", "c"), 3, (("a", "b"), ("c",), ("b", "c")))
    for one in (constraint, Constraint(("a", "b"), 2)):
        assert Constraint.from_list(json.loads(json.dumps(one.to_list()))) == one
    assert Constraint(("a", "b"), 2).to_list() == [["a", "b"], 2]  # as it was written before there were places
    assert hash(constraint) != hash(Constraint(("a", "b", "c"), 3))


@pytest.mark.parametrize(
    ("places", "message"),
    [
        ((("a",),), "places must be as many as its count, 2; got 1"),
        ((("a",), ()), "place 2 of a Constraint allows nothing"),
        ((("a",), ("z",)), "place 2 of a Constraint allows 'z', which is not among its allowed"),
    ],
)
def test_places_that_do_not_fit(places, message):
    with pytest.raises(UsageError, match=message):
        Constraint(("a", "b"), 2, places)


def test_grammar_of_places():
    constraint = Constraint.at_places([("a", "b"), ("c",), ("a", "b")])
    assert constraint_grammar(constraint, leading_space=True) == (
        'root ::= " " p1 " " p2 " " p1\np1 ::= "a" | "b"\np2 ::= "c"\n'
    )
    assert constraint_grammar(constraint, leading_space=False).startswith("root ::= p1 ")
    many = [tuple(f"w{number}" for number in range(start, start + 200)) for start in (0, 200)]
    assert constraint_grammar(Constraint.at_places(many), leading_space=True)  # no place has more than 256
    with pytest.raises(CapabilityError, match="a constraint of 300 strings is too slow"):
        constraint_grammar(Constraint.at_places([tuple(f"w{n}" for n in range(300))]), leading_space=True)


def test_the_fake_keeps_places():
    llm = FakeLLM(constraint="logit_bias")
    assert llm.complete_sync("c b a", constraint=Constraint.at_places([("a",), ("b",), ("c",)])).text == " a b c"


class Server:
    """Writes the last allowed word each time; remembers its requests."""

    def __init__(self, wrong: str | None = None) -> None:
        self.requests: list[dict] = []
        self.one = Slot(0)
        self.wrong = wrong

    async def post(self, path, document):
        assert path == "/completion"
        self.requests.append(document)
        words = {token: word for word, token in TOKENS.items()}
        text = (" " + words[document["logit_bias"][-1][0]]) * document["n_predict"]
        timings = {"cache_n": 0 if len(self.requests) == 1 else len(document["prompt"]) - 1, "prompt_n": 1}
        return {"content": self.wrong or text, "timings": timings | {"predicted_n": document["n_predict"]}}

    @asynccontextmanager
    async def slot(self, tokens):
        yield self.one


def write(server: Server, places, **request) -> Completion:
    import asyncio

    return asyncio.run(write_places(server, {"prompt": [1, 2], **request}, places, TOKENS, lift=5.0))


def test_runs_of_equal_places_are_one_request_and_forced_ones_none():
    server = Server()
    answer = write(server, [("a", "b"), ("a", "b"), ("c",), ("b", "c")], seed=2**31 - 1)
    assert answer.text == " b b c c"
    assert [(one["prompt"], one["n_predict"], one["seed"]) for one in server.requests] == [
        ([1, 2], 2, 2**31 - 1),
        ([1, 2, 12, 12, 13], 1, 2),
    ]
    assert server.requests[1]["logit_bias"] == [[12, 5.0], [13, 5.0]]
    assert (answer.usage.requests, answer.usage.prompt_tokens, answer.usage.completion_tokens) == (2, 1, 3)
    assert server.one.tokens == [1, 2, 12, 12, 13]
    assert write(Server(), [("a",), ("b",)]).text == " a b"
    assert write(Server(), [("a",)]).usage.requests == 0


def test_another_word_than_allowed_is_an_error():
    with pytest.raises(LLMResponseError, match="the local LLM wrote ' z' where 1 of 2 words were allowed"):
        write(Server(" z"), [("a", "b")])
