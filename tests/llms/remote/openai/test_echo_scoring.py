"""Which tokens of an echoed prompt count, with start tokens, merged boundaries, odd offsets and missing values."""

from __future__ import annotations

import codecs
import math
import random

import pytest

from icl_vision.llms.remote.openai.echo_scoring import echoed_logprob

WHOLE = "a b: c d\n"


def echo(tokens, values, offsets=None):
    return {"tokens": tokens, "token_logprobs": values, "text_offset": offsets, "top_logprobs": None}


def test_counts_continuation_and_terminator_only():
    logprobs = echo(["a", " b", ":", " c", " d", "\n", "X"], [None, -9, -9, -1, -2, -4, -9], [0, 1, 3, 4, 6, 8, 9])
    assert echoed_logprob(logprobs, 4, WHOLE) == -7


def test_a_start_token_shifts_nothing():
    logprobs = echo(["<bos>", "a", " b", ":", " c", " d", "\n", "X"], [None, -9, -9, -9, -1, -2, -4, -9])
    assert echoed_logprob(logprobs, 4, WHOLE) == -7


def test_a_token_over_the_boundary_counts():
    assert echoed_logprob(echo(["a", " b", ": c", " d", "\n"], [None, -9, -1, -2, -4]), 4, WHOLE) == -7


def test_pieces_of_characters_fall_back_to_the_offsets():
    tokens = ["a", " b", ":", " c", "bytes:\\xc3", "bytes:\\xa4", "\n", "X"]
    values, offsets = [None, -9, -9, -1, -2, -8, -4, -9], [0, 1, 3, 4, 6, 7, 7, 8]
    assert echoed_logprob(echo(tokens, values, offsets), 4, "a b: cä\n") == -15


@pytest.mark.parametrize("logprobs", [None, [], {}, {"content": []}, echo(["X"], [-1.0], [0]), echo(["a"], [])])
def test_no_echo(logprobs):
    assert echoed_logprob(logprobs, 4, WHOLE) is None


def test_gaps_are_errors():
    with pytest.raises(ValueError, match="no log-probability for the token at character 4"):
        echoed_logprob(echo(["a b:", " c", " d\n"], [None, None, -1]), 4, WHOLE)


# ---- pieces of characters ----


@pytest.mark.parametrize("offsets", [[0, 1, 2, 2, 2, 3, 4], None, []])
def test_tokens_without_width_at_the_boundary_are_the_continuations(offsets):
    tokens, values = ["a", ":", "", "", "猫", "\n", "X"], [None, -9, -1, -2, -4, -8, -9]
    assert echoed_logprob(echo(tokens, values, offsets), 2, "a:猫\n") == -15


def test_tokens_without_width_behind_a_character_are_its_own():
    tokens, values = ["a", "猫", "", "", " c", "\n", "X"], [None, -9, -9, -9, -1, -2, -9]
    assert echoed_logprob(echo(tokens, values), 2, "a猫 c\n") == -3


@pytest.mark.parametrize(
    ("pieces", "offsets"),
    [
        (["\ufffd", "\ufffd", "\ufffd"], [0, 1, 2, 3, 4, 5, 6, 7]),  # counted over what is shown: wrong from there on
        (["\ufffd", "\ufffd", "\ufffd"], None),
        (["\ufffd", "\ufffd", "\ufffd"], [0, 1, 1, 1, 2, 3, 4, 5]),
        (["bytes:\\xe7", "bytes:\\x8c", "bytes:\\xab"], None),
        (["", "", "猫"], [0, 1, 1, 1, 2, 3, 4, 5]),
    ],
)
def test_a_character_in_pieces_in_an_example_and_a_continuation_in_ascii(pieces, offsets):
    tokens = ["a", *pieces, ":", "c", "\n", "X"]
    values = [None, -9, -9, -9, -9, -1, -2, -9]
    assert echoed_logprob(echo(tokens, values, offsets), 3, "a猫:c\n") == -3


def test_offsets_that_do_not_agree_with_the_text_are_an_error():
    # Nothing to go by: what is shown fits at two places, and the offsets are none of the text's.
    tokens = ["\ufffd", "\ufffd", "猫", "\n", "X"]
    with pytest.raises(ValueError, match="neither its tokens nor its offsets can be placed in it"):
        echoed_logprob(echo(tokens, [None, -1, -1, -1, -9], [0, 5, 9, 11, 12]), 2, "猫猫猫猫\n")
    with pytest.raises(ValueError, match="does not match the text that was sent"):
        echoed_logprob(echo(["another", " text", "\n"], [None, -1, -1], [0, 7, 12]), 4, WHOLE)
    with pytest.raises(ValueError, match="does not match the text that was sent"):
        echoed_logprob(echo(["▁a", "▁b:", "▁c", "▁d", "\n"], [None, -1, -1, -1, -1], [0, 1, 4, 6, 8]), 4, WHOLE)


def test_pieces_on_both_sides_of_the_boundary_are_an_error():
    tokens = ["a", "\ufffd", "\ufffd", "\ufffd", "\ufffd", "\ufffd", "\ufffd", "\n", "X"]
    with pytest.raises(ValueError, match="on both sides of the prompt's end"):
        echoed_logprob(echo(tokens, [None, *[-1] * 8]), 2, "a猫犬\n")


def test_no_first_token_where_there_is_no_start_token():
    # As vLLM's prompt_logprobs have it: nothing precedes the first token.
    assert echoed_logprob(echo([" b", ":", " c", " d", "\n"], [-9, -9, -1, -2, -4]), 4, WHOLE) == -7


@pytest.mark.parametrize("value", [math.nan, math.inf, 0.5, True, "x", None])
def test_values_that_are_no_log_probabilities_are_errors(value):
    with pytest.raises(ValueError, match="no log-probability for the token at character 4"):
        echoed_logprob(echo(["a b:", " c", " d\n"], [None, value, -1]), 4, WHOLE)


def shown(pieces: list[bytes], style: str) -> list[str]:
    """Tokens as a server shows them."""
    if style == "bytes":
        return [
            piece.decode() if _whole(piece) else "bytes:" + "".join(f"\\x{one:02x}" for one in piece)
            for piece in pieces
        ]
    if style == "replacement":
        return [piece.decode("utf-8", "replace") for piece in pieces]
    decoder = codecs.getincrementaldecoder("utf-8")()  # "last": with its last piece
    return [decoder.decode(piece) for piece in pieces]


def _whole(piece: bytes) -> bool:
    try:
        return bool(piece.decode())
    except UnicodeDecodeError:
        return False


def cut(text: str, draw: random.Random) -> list[bytes]:
    """A text as tokens: some characters together, or the pieces of one."""
    pieces: list[bytes] = []
    while text:
        size = draw.randint(1, 3)
        one = text[:1].encode()
        if len(one) > 1 and draw.random() < 0.6:
            size, at = 1, draw.randint(1, len(one) - 1)
            pieces += [one[:at], *(bytes([byte]) for byte in one[at:])]
        else:
            pieces.append(text[:size].encode())
        text = text[size:]
    return pieces


@pytest.mark.parametrize("style", ["bytes", "replacement", "last"])
@pytest.mark.parametrize("offsets", ["none", "shown", "true"])
@pytest.mark.parametrize("start", [[], ["<s>"], [""]])
def test_never_another_number_than_the_right_one(style, offsets, start):
    draw = random.Random(f"{style}{offsets}{start}")
    right = 0
    for _ in range(300):
        prompt = "".join(
            draw.choice(["a", " b", ":", "猫", "ñ", "🙂", "\n", "猫犬", "é"]) for _ in range(draw.randint(1, 9))
        )
        continuation = "".join(draw.choice([" c", "d", "猫", "ñ", "🙂", "e"]) for _ in range(draw.randint(1, 4))) + "\n"
        whole = (prompt + continuation).encode()
        pieces = cut(prompt + continuation, draw)
        ends = [sum(map(len, pieces[: place + 1])) for place in range(len(pieces))]
        values = [None, *(-(2.0**-place) for place in range(1, len(pieces)))]
        boundary = len(prompt.encode())
        counts = [place for place, end in enumerate(ends) if end > boundary]
        if 0 in counts:
            continue
        tokens = [*start, *shown(pieces, style), "X"]
        places = None
        if offsets == "shown":
            places = [sum(map(len, tokens[:place])) for place in range(len(tokens))]
        elif offsets == "true":
            starts = [
                len(whole[: end - len(piece)].decode("utf-8", "ignore"))
                for end, piece in zip(ends, pieces, strict=True)
            ]
            places = [*[0] * len(start), *starts, len(whole.decode())]
        try:
            found = echoed_logprob(
                echo(tokens, [*[None] * len(start), *values, -9.0], places), len(prompt), whole.decode()
            )
        except ValueError as error:
            assert "placed" in str(error) or "both sides" in str(error)
            continue
        assert found == sum(values[place] or 0.0 for place in counts), (prompt, continuation, tokens, places)
        right += 1
    assert right > (250 if style == "bytes" else 60)
