"""A planted key shows up nowhere: not in reprs, errors, warnings, logs, caches, recordings, meters or identities."""

from __future__ import annotations

import base64
import contextlib
import copy
import io
import logging
import pickle
import traceback
import types
import warnings
from pathlib import Path

import pytest
from llm_contract import ADAPTERS, LABELS, PROMPT, all_text_of, quick
from llm_servers import CANARY, Fault, LoopbackServer

from icl_vision import connect
from icl_vision.contracts import Constraint
from icl_vision.errors import IclVisionError, LLMSpecError, LLMTimeoutError, UsageError
from icl_vision.llms import FallbackLLM, Meter, MeteredLLM, ResponseCache, record
from icl_vision.llms.redaction import Secret, quote, redact, redacted_url, shown_url, without_login

# Where a careless server puts what it got.
ECHO = f"the header was 'Bearer {CANARY}'"
FAULTS = [
    Fault(status=401, message=ECHO),
    Fault(status=400, message=ECHO, code="context_length_exceeded"),
    Fault(status=400, message=f"prompt is too long: {ECHO}"),
    Fault(status=403, body=ECHO.encode()),
    Fault(status=404, body={"detail": ECHO}),
    Fault(status=422, body={"error": ECHO}),
    Fault(status=429, message=ECHO, code="insufficient_quota"),
    Fault(status=500, body=b"<html>" + ECHO.encode()),
    Fault(raw=ECHO.encode()),
    Fault(raw=b'["' + ECHO.encode() + b'"]'),
    Fault(raw=b'{"error": "' + CANARY.encode() + b'"}'),
    Fault(reset=True),
    Fault(truncated=True),
]


def read_all(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("adapter", ADAPTERS, ids=str)
async def test_the_key_shows_up_nowhere(adapter, tmp_path, capfd):
    log = io.StringIO()
    handler = logging.StreamHandler(log)
    ours = logging.getLogger("icl_vision")
    level = ours.level
    ours.addHandler(handler)
    ours.setLevel(logging.DEBUG)
    shown: list[str] = []
    try:
        with LoopbackServer(adapter.provider()) as server, warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            llm = adapter.llm(server, resilience=quick(attempts=2))
            cache = ResponseCache(tmp_path / "answers.sqlite")
            meter = Meter()
            recorded = record(MeteredLLM(llm, meter), tmp_path / "recording.jsonl")
            outer = connect(recorded, cache=cache, fallback=["fake"])
            shown += [repr(one) for one in (llm, recorded, outer, llm.profile, vars(llm))]
            shown += [str(getattr(one, "identity", "")) for one in (llm, recorded, outer)]
            for number, fault in enumerate(FAULTS):
                server.faults.extend([fault] * 2)
                try:
                    await llm.complete(f"bark {number}:")
                except IclVisionError as error:
                    shown += [all_text_of(error), "".join(traceback.format_exception(error))]
                server.faults.clear()
                # The same failure through everything that can be put around an LLM.
                server.faults.extend([fault] * 2)
                try:
                    await outer.complete(f"fetch {number}:")
                except IclVisionError as error:
                    shown.append(all_text_of(error))
                server.faults.clear()
            hasty = adapter.llm(server, resilience=quick(attempts=1, attempt_timeout=0.05))
            server.faults.append(Fault(slow=30))
            with pytest.raises(LLMTimeoutError) as caught:
                await hasty.complete(PROMPT)
            shown.append(all_text_of(caught.value))
            await hasty.aclose()
            server.faults.clear()
            await outer.complete(PROMPT, seed=3)
            if llm.profile.constraint:
                await recorded.complete(PROMPT, constraint=Constraint(LABELS))
            if llm.profile.scores_text:
                await recorded.score([(PROMPT, " cat")])
            shown += [repr(meter.spent), str(meter.total()), *(str(one.message) for one in warned)]
            sent = [request.headers["authorization"] for request in server.requests]
            assert len(sent) > 20 and set(sent) == {f"Bearer {CANARY}"}  # it was there to be leaked
            await llm.aclose()
            cache.close()
    finally:
        ours.removeHandler(handler)
        ours.setLevel(level)
    out, err = capfd.readouterr()
    assert CANARY not in "".join(shown)
    assert CANARY not in log.getvalue() + out + err
    assert CANARY.encode() not in read_all(tmp_path)
    assert (tmp_path / "answers.sqlite").exists() and len(read_all(tmp_path)) > 1000


@pytest.mark.parametrize("adapter", [one for one in ADAPTERS if one.name in ("openai-chat", "anthropic")], ids=str)
async def test_the_sdks_own_debug_logs(adapter, caplog):
    """The SDKs blot out their headers by themselves; this holds them to it."""
    with LoopbackServer(adapter.provider()) as server, caplog.at_level(logging.DEBUG):
        llm = adapter.llm(server)
        await llm.complete(PROMPT)
        await llm.aclose()
    assert CANARY not in caplog.text


def test_a_base_url_with_a_password(tmp_path):
    with LoopbackServer(ADAPTERS[0].provider()) as server:
        secret = server.url.replace("http://", "http://me:pass-4711@") + "?token=tok-0815"
        for spec in (f"openai-compatible:m@{secret}", "openai:gpt-4o-mini", "anthropic:claude-haiku-4-5"):
            options = {} if "@" in spec else {"base_url": secret}
            llm = connect(spec, api_key="sk-wrong-1", resilience=quick(attempts=1), **options)
            message = Fault(status=404, message=f"no such page: {secret} me:pass-4711 tok-0815")
            server.faults.extend([message])
            with pytest.raises(IclVisionError) as caught:
                llm.complete_sync(PROMPT)
            text = all_text_of(caught.value) + repr(llm) + str(llm.identity) + repr(vars(llm)) + repr(llm.profile)
            assert "pass-4711" not in text and "tok-0815" not in text
            llm.close()
    for spec in ("openai-compatible:m@http://me:pass-4711@", "openai-compatibel:m@http://me:pass-4711@h/v1"):
        with pytest.raises(IclVisionError) as caught:
            connect(spec)
        assert "pass-4711" not in str(caught.value)


def test_a_key_is_neither_pickled_nor_shown():
    secret = Secret(CANARY)
    assert CANARY not in repr(secret) and secret.reveal() == CANARY
    assert Secret(lambda: CANARY).reveal() == CANARY
    with pytest.raises(TypeError, match="a key is not pickled"):
        pickle.dumps(secret)
    with pytest.raises(TypeError):
        copy.copy(secret)
    llm = connect("openai:gpt-4o-mini", api_key=CANARY)
    assert copy.deepcopy(llm) is llm and CANARY not in repr(vars(llm))
    assert CANARY not in repr(FallbackLLM([llm, connect("fake")]))


def test_a_wrong_option_does_not_show_the_key():
    for options in ({"api_key": CANARY, "temprature": 1}, {"api_key": CANARY, "attempts": 0}):
        with pytest.raises(UsageError) as caught:
            connect("openai:gpt-4o-mini", **options)
        assert CANARY not in all_text_of(caught.value)
    with pytest.raises(LLMSpecError) as caught:
        connect("opnai:gpt-5", api_key=CANARY)
    assert CANARY not in all_text_of(caught.value)


@pytest.mark.parametrize(
    ("text", "secrets", "expected"),
    [
        ("key sk-123456 here", ["sk-123456"], "key *** here"),
        ("sk-1234567890 and sk-123456", ["sk-123456", "sk-1234567890"], "*** and ***"),
        ("a%20b+c", ["a b+c"], "a%20b+c"),
        ("p%40ss%2Fword", ["p@ss/word"], "***"),
        ("a cat", ["cat", ""], "a cat"),
    ],
)
def test_redact(text, secrets, expected):
    assert redact(text, secrets) == expected


@pytest.mark.parametrize(
    "shown",
    ['p/a#"s&', "p%2Fa%23%22s%26", "p%2fa%23%22s%26", r"p/a#\"s&", r"p\/a#\"s&", "p/a#&quot;s&amp;"],
)
def test_a_secret_is_blotted_out_however_it_is_escaped(shown):
    assert redact(f"say {shown} again", ['p/a#"s&']) == "say *** again"


def test_quotes_are_short_and_on_one_line():
    assert quote(b"a\n  b\xff", []) == "a b\ufffd"
    assert len(quote("x" * 9999, [])) < 410


def test_urls_for_messages():
    assert shown_url("https://u:p@h.example:8443/v1/?q=1#f") == "https://h.example:8443/v1"
    assert shown_url("http://[::1]:80/v1") == "http://[::1]:80/v1"
    assert redacted_url("http://u:p@ss@h/x?y") == "http://***@h/x"
    assert redacted_url("m@http://u:p@ss@h/x?y") == "m@http://***@h/x"
    assert redacted_url("m@u:pass@h/x") == redacted_url("m@http:/u:pass@h/x") == "m@***@h/x"  # a slip in the scheme
    assert redacted_url("langchain:provider:model@2") == "langchain:provider:model@2"


@pytest.mark.parametrize("adapter", ADAPTERS, ids=str)
async def test_no_log_of_any_library_shows_an_addresss_password(adapter, caplog, monkeypatch):
    basic = base64.b64encode(b"m\xc3\xa9:pass-4711").decode()
    with LoopbackServer(adapter.provider()) as server, caplog.at_level(logging.DEBUG):
        loggers = [logging.getLogger(name) for name in ("httpx2", "httpx", "openai", "anthropic", "httpcore2")]
        for logger in loggers:
            monkeypatch.setattr(logger, "level", logging.DEBUG)
        secret = server.url.replace("http://", "http://m%C3%A9:pass-4711@")
        placed = types.SimpleNamespace(url=secret, provider=server.provider)
        llm = adapter.llm(placed, resilience=quick(attempts=1))
        shown = ""
        for fault in (None, Fault(status=400, message="no")):
            server.faults.extend([fault] if fault else [])
            with pytest.raises(IclVisionError) as caught:  # the server wants a key where an address has a login
                await llm.complete(PROMPT)
            shown += all_text_of(caught.value)
            if llm.profile.scores_text:
                with pytest.raises(IclVisionError) as caught:
                    await llm.score([(PROMPT, " cat")])
                shown += all_text_of(caught.value)
        await llm.aclose()
        sent = {request.headers["authorization"] for request in server.requests}
    assert sent == {f"Basic {basic}"}  # as before: where an address has a login, that is what is sent
    shown += caplog.text
    assert "127.0.0.1" in caplog.text and "pass-4711" not in shown and basic not in shown


async def test_an_address_in_the_environment_is_stripped_too(caplog, monkeypatch):
    with LoopbackServer(ADAPTERS[0].provider()) as server, caplog.at_level(logging.DEBUG):
        for variable in ("OPENAI_BASE_URL", "ANTHROPIC_BASE_URL"):
            monkeypatch.setenv(variable, server.url.replace("http://", "http://me:pass-4711@"))
        for spec in ("openai:gpt-4o-mini", "anthropic:claude-haiku-4-5"):
            llm = connect(spec, api_key="sk-1", attempts=1)
            with contextlib.suppress(IclVisionError):  # the server speaks one of the two
                await llm.complete(PROMPT)
            await llm.aclose()
        sent = {request.headers["authorization"] for request in server.requests}
    assert len(sent) == 1 and sent.pop().startswith("Basic ")
    assert "127.0.0.1" in caplog.text and "pass-4711" not in caplog.text


async def test_what_an_addresss_query_holds_is_blotted_out_of_logs(caplog):
    with LoopbackServer(ADAPTERS[0].provider()) as server, caplog.at_level(logging.DEBUG):
        llm = connect(f"openai-compatible:m@{server.url}?token=tok-0815", attempts=1)
        with contextlib.suppress(IclVisionError):
            await llm.complete(PROMPT)
        await llm.aclose()
    assert "127.0.0.1" in caplog.text and "tok-0815" not in caplog.text


def test_an_address_is_split_into_place_and_login():
    for url, plain, login in (
        ("http://h:1/v1?a=b", "http://h:1/v1?a=b", None),
        ("http://u:p@h:1/v1?a=b", "http://h:1/v1?a=b", b"u:p"),
        ("https://u@[::1]:2/v1", "https://[::1]:2/v1", b"u:"),
        ("http://u%40x:p%3A%2F@h", "http://h", b"u@x:p:/"),
        ("http://@h/v1", "http://h/v1", None),
    ):
        found, secret = without_login(url)
        assert found == plain and (secret is None) == (login is None)
        if secret is not None and login is not None:
            assert secret.reveal() == "Basic " + base64.b64encode(login).decode() and "Secret(...)" in repr(secret)
