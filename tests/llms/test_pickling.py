"""LLMs, caches and classifiers in another process: everything goes along but connections and secrets."""

from __future__ import annotations

import base64
import http.server
import json
import pickle
import threading
import traceback
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from icl_vision.errors import LLMStatusError
from icl_vision.llms import Budget, Meter, connect
from icl_vision.llms.fake import FakeLLM
from icl_vision.llms.redaction import redact, url_secrets, without_secrets
from icl_vision.llms.remote.resilience import Limiter, Resilience, RetryPolicy
from icl_vision.llms.wrappers.cache import CachedLLM, ResponseCache
from icl_vision.llms.wrappers.fallback import FallbackLLM
from icl_vision.llms.wrappers.metered import MeteredLLM
from icl_vision.tasks import FewShotClassifier
from icl_vision.tasks.denoise.denoiser import ImageDenoiser
from icl_vision.tasks.draw.generator import ImageGenerator
from icl_vision.tokenizers import ImageTokenizer
from icl_vision.tokenizers.words_cache import CachedTokenizer, WordsCache

URL = "http://someone:swordfish@127.0.0.1:9/v1?token=anchovy"
SPEC = f"openai-compatible:m@{URL}"


def again(value: Any) -> Any:
    return pickle.loads(pickle.dumps(value))  # noqa: S301 - our own bytes of a moment ago


def key() -> str:
    return "a-key"


LLMS = {
    "openai-compatible": lambda path: connect("openai-compatible:m@http://127.0.0.1:9/v1", attempts=2),
    "openai": lambda path: connect("openai:gpt-5.1", api_key=key),
    "anthropic": lambda path: connect("anthropic:claude-haiku-5-5"),
    "shared": lambda path: connect(
        "openai-compatible:m@http://127.0.0.1:9/v1", resilience=Resilience(RetryPolicy(), Limiter())
    ),
    "cached": lambda path: CachedLLM(FakeLLM("dog"), ResponseCache(path / "r.sqlite")),
    "metered": lambda path: MeteredLLM(FakeLLM("dog"), Meter(budget=Budget(requests=9))),
    "fallback": lambda path: FallbackLLM([FakeLLM("dog"), FakeLLM("cat")]),
    "all": lambda path: connect(
        "openai-compatible:m@http://127.0.0.1:9/v1",
        cache=path / "a.sqlite",
        budget=Budget(requests=9),
        fallback=["openai:gpt-5.1", "fake"],
    ),
}


@pytest.mark.parametrize("name", LLMS)
def test_every_llm_goes_through_a_pickle(name: str, tmp_path: Path) -> None:
    llm = LLMS[name](tmp_path)
    back = again(llm)
    assert type(back) is type(llm)
    assert (back.profile, back.identity, repr(back)) == (llm.profile, llm.identity, repr(llm))
    if name in ("cached", "metered", "fallback"):
        assert back.complete_sync("which?").text == llm.complete_sync("which?").text == "dog"
        # Used ones, with what they hold open, too.
        assert again(llm).complete_sync("which?").text == "dog"


def test_a_key_given_as_text_is_not_pickled() -> None:
    with pytest.raises(TypeError, match="a key is not pickled: set OPENAI_API_KEY, or give connect"):
        pickle.dumps(connect("openai:gpt-5.1", api_key="sk-verysecret"))


def test_a_cached_tokenizer_goes_through_a_pickle(tmp_path: Path) -> None:
    tokenizer = CachedTokenizer(
        ImageTokenizer.from_pretrained("spae-digits-32", threads=1), WordsCache(tmp_path / "w.sqlite")
    )
    picture = Image.new("RGB", (28, 28), (200, 10, 10))
    words = tokenizer.encode([picture])
    back = again(tokenizer)
    assert back.encode([picture]) == words and back.cache.hits == tokenizer.cache.hits + 1


@pytest.mark.parametrize("kind", [FewShotClassifier, ImageGenerator, ImageDenoiser])
def test_nothing_shows_the_password_of_an_address(kind: type, tmp_path: Path) -> None:
    for one in (kind(SPEC), kind(llm=connect(SPEC))):
        for text in (repr(one), repr(pickle.dumps(one)), str(one)):
            assert "swordfish" not in text and "anchovy" not in text and "someone" not in text
    tokenizer = ImageTokenizer.from_pretrained("ascii")
    clf = FewShotClassifier(SPEC, tokenizer, None, scoring="parse")
    pictures = [Image.new("RGB", (8, 8), colour) for colour in ((200, 0, 0), (0, 0, 200))]
    clf.fit(pictures, ["a", "b"])
    clf.save(tmp_path / "clf.json")
    for text in (repr(clf), repr(pickle.dumps(clf)), (tmp_path / "clf.json").read_text(), repr(clf.llm_)):
        assert "swordfish" not in text and "anchovy" not in text
    assert repr(again(clf).llm_) == repr(clf.llm_)


def test_headers_and_addresses_are_blotted_out() -> None:
    basic = "c29tZW9uZTpzd29yZGZpc2g="
    for text in (
        f"got Authorization: Basic {basic}",
        f"'Basic {basic}'",
        f"basic {basic.rstrip('=')}",
        f"the header was {basic}",
        "you sent http://someone:swordfish@host/v1",
        "http://else:sw@rd@host/v1",
        "Bearer abcdefghijklmnop1234",
        "token=anchovy is wrong",
    ):
        shown = redact(text, url_secrets(URL))
        for secret in (basic.rstrip("="), "swordfish", "anchovy", "sw@rd", "abcdefghijklmnop1234"):
            assert secret not in shown, shown
    for text in ("Basic authentication required", "Bearer authentication", "a basic error", "see https://host/v1/x"):
        assert redact(text, []) == text
    assert without_secrets(SPEC) == "openai-compatible:m@http://127.0.0.1:9/v1"
    assert without_secrets("openai-compatible:a@b@http://h/v1") == "openai-compatible:a@b@http://h/v1"


class Refusing(http.server.BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("content-length", 0)))
        said = json.dumps({"error": {"message": "no such key", "got": self.headers.get("authorization")}}).encode()
        self.send_response(401)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(said)))
        self.end_headers()
        self.wfile.write(said)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def refusing() -> Any:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Refusing)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/v1"
    server.shutdown()
    server.server_close()


def fields(refusing: str) -> tuple[FewShotClassifier, list[Image.Image], np.ndarray[Any, Any]]:
    clf = FewShotClassifier(f"openai-compatible:m@{refusing}", "ascii", None, scoring="parse", progress=False)
    pictures = [Image.new("RGB", (8, 8), (20 * place, 0, 0)) for place in range(8)]
    return clf, pictures, np.array(["a", "b"] * 4)


@pytest.mark.slow
def test_cross_validation_in_processes_tells_of_a_refused_key(refusing: str) -> None:
    from sklearn.model_selection import cross_val_score

    from icl_vision.integrations.sklearn import FewShotImageClassifier

    plain, pictures, labels = fields(refusing)
    clf = FewShotImageClassifier(plain.llm, "ascii", None, scoring="parse", progress=False)
    with pytest.raises(LLMStatusError, match="401") as raised:
        cross_val_score(clf, pictures, labels, cv=2, n_jobs=2, error_score="raise")
    assert raised.value.status == 401
    for text in (repr(FewShotImageClassifier(SPEC)), repr(pickle.dumps(FewShotImageClassifier(SPEC)))):
        assert "swordfish" not in text and "anchovy" not in text


def test_a_password_that_a_server_echoes_is_not_told(refusing: str, capfd: Any, caplog: Any) -> None:
    caplog.set_level("INFO", logger="icl_vision")
    address = refusing.replace("http://", "http://someone:swordfish@")
    clf, pictures, labels = fields(address + "?token=anchovy")
    with pytest.raises(LLMStatusError, match="401") as raised:
        clf.fit(pictures, labels).predict(pictures[:1])
    told = "".join(traceback.format_exception(raised.value)) + repr(vars(raised.value)) + caplog.text
    captured = capfd.readouterr()
    for secret in ("swordfish", "anchovy", base64.b64encode(b"someone:swordfish").decode()):
        assert secret not in told + captured.out + captured.err


@pytest.mark.parametrize("kind", [FewShotClassifier, ImageGenerator, ImageDenoiser])
def test_a_langchain_models_address_shows_nowhere_and_is_not_pickled(kind: type) -> None:
    pytest.importorskip("langchain_core")
    from placed_model import Placed

    secret = Placed(responses=["a"], openai_api_base=URL)
    nested = Placed(responses=["a"], options={"proxies": [URL]})
    for model in (secret, nested, secret.with_retry(), secret.bind(proxy=URL), Placed(responses=["a"]).bind(proxy=URL)):
        llm = connect(model)
        for one in (kind(model), kind(llm)):
            for text in (repr(one), str(one)):
                assert "swordfish" not in text and "anchovy" not in text and "someone" not in text
            with pytest.raises(TypeError, match="not pickled: make the model where it is used"):
                pickle.dumps(one)
        assert "swordfish" not in repr(llm) + llm.identity + repr(llm.profile)
    plain = again(kind(Placed(responses=["a"], openai_api_base="http://127.0.0.1:9/v1")))
    assert plain.llm.openai_api_base == "http://127.0.0.1:9/v1"
