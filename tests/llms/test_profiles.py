"""What known models can do, and how a user says what theirs can."""

from __future__ import annotations

import typing
from dataclasses import fields

import pytest

from icl_vision import connect
from icl_vision.contracts import Profile
from icl_vision.errors import UsageError
from icl_vision.llms import profiles, register_profile
from icl_vision.llms.profiles import RULES, profile_for


@pytest.fixture(autouse=True)
def _nothing_registered(monkeypatch):
    monkeypatch.setattr(profiles, "_registered", [])


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("openai:gpt-3.5-turbo", {"context_window": 16_385, "constraint": None, "seed": True, "reasoning": "never"}),
        ("openai:gpt-4", {"context_window": 8_192, "constraint": None, "tokenizer": "cl100k_base"}),
        ("openai:gpt-4-turbo-2024-04-09", {"context_window": 128_000, "constraint": None}),
        ("openai:gpt-4o-2024-05-13", {"constraint": None, "tokenizer": "o200k_base"}),
        ("openai:gpt-4o-2024-08-06", {"constraint": "json_schema", "constraint_limit": 1000, "stop_strings": 4}),
        ("openai:gpt-4.1-nano", {"context_window": 1_047_576, "temperature": True}),
        ("openai:o3-mini", {"reasoning": "always", "least_reasoning": "low", "temperature": False, "api": "chat"}),
        ("openai:o3-pro", {"reasoning": "always", "api": "responses", "seed": False}),
        ("openai:o1-mini", {"constraint": None, "least_reasoning": None}),
        ("openai:gpt-5", {"reasoning": "always", "least_reasoning": "minimal", "context_window": 272_000}),
        ("openai:gpt-5-pro", {"api": "responses", "least_reasoning": "high"}),
        ("openai:gpt-5-chat-latest", {"reasoning": "never", "least_reasoning": None, "temperature": True}),
        ("openai:gpt-5.1", {"reasoning": "optional", "least_reasoning": "none", "temperature": True}),
        ("openai:gpt-5.2-chat-latest", {"reasoning": "always", "least_reasoning": None, "temperature": False}),
        ("openai:gpt-5.4-pro", {"api": "responses", "least_reasoning": "medium", "context_window": 1_050_000}),
        ("openai:gpt-5.4-mini", {"api": "chat", "context_window": 272_000, "prompt_cache": "key"}),
        ("openai:gpt-5.6-terra", {"prompt_cache": "breakpoints", "least_reasoning": "none"}),
        ("openai:gpt-6-astra", {"reasoning": "always", "least_reasoning": "low", "tokenizer": None}),
        ("openai:gpt-6.1-terra", {"reasoning": "optional", "least_reasoning": "none"}),
        ("openai:gpt-6.1-sol", {"reasoning": "always"}),
        ("openai:ft:gpt-4o-mini-2024-07-18:org::id", {"constraint": "json_schema", "seed": True}),
        ("anthropic:claude-3-haiku-20240307", {"constraint": None, "context_window": 200_000}),
        ("anthropic:claude-haiku-4-5", {"constraint": "json_schema", "reasoning": "never"}),
        ("anthropic:claude-opus-4-7", {"context_window": 1_000_000, "prompt_cache_minimum": 2048}),
        ("anthropic:claude-sonnet-5", {"reasoning": "optional", "least_reasoning": "disabled"}),
        ("anthropic:claude-sonnet-5-5", {"least_reasoning": "between_tools", "prompt_cache_minimum": 512}),
        ("anthropic:claude-opus-5", {"reasoning": "optional", "least_reasoning": "disabled"}),
        ("anthropic:claude-opus-5-5", {"reasoning": "always", "least_reasoning": "low"}),
        ("anthropic:claude-fable-5-2", {"reasoning": "always", "context_window": 1_000_000}),
    ],
)
def test_known_models(name, expected):
    profile = profile_for(name)
    assert {field: getattr(profile, field) for field in expected} == expected
    assert profile.name == name


@pytest.mark.parametrize("name", ["openai:codename-7", "anthropic:claude-next"])
def test_an_unknown_model_is_asked_for_nothing_it_could_refuse(name):
    profile = profile_for(name)
    assert (profile.temperature, profile.seed, profile.constraint, profile.context_window) == (False, False, None, None)
    assert (profile.reasoning, profile.least_reasoning) == ("always", None)
    assert not profile.scores_text


def test_no_hosted_model_claims_what_its_api_does_not_have():
    for pattern, _ in RULES:
        profile = profile_for(pattern.replace("*", "").replace("[5-9]", "7"))
        assert not profile.scores_text
        if profile.name.startswith("anthropic:"):
            assert not (profile.temperature or profile.seed)
        if profile.reasoning == "always":
            assert not profile.temperature


def test_the_rules_hold_known_fields_and_values():
    names = {field.name for field in fields(Profile)}
    hints = typing.get_type_hints(Profile, globalns={**vars(typing), "Literal": typing.Literal})
    for pattern, facts in RULES:
        assert set(facts) <= names - {"name"}, pattern
        for name, value in facts.items():
            options = [arg for one in typing.get_args(hints[name]) or [] for arg in (typing.get_args(one) or [one])]
            if typing.get_origin(hints[name]) is typing.Literal:
                assert value in typing.get_args(hints[name]), (pattern, name)
            elif any(isinstance(option, str) for option in options):
                assert value is None or value in options, (pattern, name)


def test_a_user_adds_a_profile_in_one_line():
    register_profile("openai:my-model*", context_window=64_000, constraint="json_schema", seed=True)
    profile = connect("openai:my-model-2").profile
    assert (profile.context_window, profile.constraint, profile.seed) == (64_000, "json_schema", True)
    assert profile.reasoning == "always"  # what was not said stays as it is for unknown models
    assert connect("openai:another").profile.context_window is None
    register_profile("openai:my-model-2", context_window=1_000)
    assert connect("openai:my-model-2").profile.context_window == 1_000
    assert connect("openai:my-model-2", context_window=5).profile.context_window == 5


def test_a_registered_profile_beats_what_a_server_is_assumed_to_be():
    register_profile("openai-compatible:m@*", constraint="json_schema", seed=False)
    profile = connect("openai-compatible:m@http://127.0.0.1:9/v1", dialect="vllm").profile
    assert (profile.constraint, profile.seed, profile.prefix_cache) == ("json_schema", False, True)


@pytest.mark.parametrize(
    ("pattern", "facts", "message"),
    [
        ("gpt-5", {}, "is a provider, a colon and a model, like 'openai:my-\\*'; got 'gpt-5'"),
        (3, {}, "got 3"),
        ("openai:x", {"context": 3}, "a profile has no field 'context'; the fields are api, batch, constraint"),
        ("openai:x", {"name": "y"}, "a profile has no field 'name'"),
    ],
)
def test_profiles_that_cannot_be(pattern, facts, message):
    with pytest.raises(UsageError, match=message):
        register_profile(pattern, **facts)
