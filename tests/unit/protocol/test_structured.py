"""Every way to say what a text must be, and everything that is no way to say it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pythia_bento.engine.grammars import MOST_CHARS, MOST_CHOICES, Constraint
from pythia_bento.errors import InvalidRequest
from pythia_bento.protocol.bodies import CompletionRequest, GenerateRequest
from pythia_bento.protocol.parsing import parse
from pythia_bento.protocol.structured import ALIASES
from tests.constraints import CASES, SCHEMA

ANY = json.dumps({"type": "object"})
FORMAT = {"type": "json_schema", "json_schema": {"name": "n", "strict": True, "schema": SCHEMA}}


def said(**fields: Any) -> Constraint | None:
    bodies = [
        parse(kind, {"prompt": "a"} | fields) for kind in (CompletionRequest, GenerateRequest)
    ]
    first, second = (body.sampling_params().constraint for body in bodies)
    assert first == second
    return first


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, None),
        ({"structured_outputs": None, "guided_json": None, "response_format": None}, None),
        ({"response_format": {"type": "text"}}, None),
        ({"guided_regex": "a", "max_tokens": 0}, None),
        (
            {"structured_outputs": {"regex": "a", "json": None}},
            ("structured_outputs", "regex", "a"),
        ),
        ({"structured_outputs": {"grammar": "b"}}, ("structured_outputs", "grammar", "b")),
        ({"guided_regex": "a"}, ("guided_regex", "regex", "a")),
        ({"guided_grammar": "start: b"}, ("guided_grammar", "grammar", "start: b")),
        ({"guided_choice": ["é", "b"]}, ("guided_choice", "choice", '["é", "b"]')),
        ({"guided_json": SCHEMA}, ("guided_json", "json", json.dumps(SCHEMA, ensure_ascii=False))),
        ({"guided_json": ANY}, ("guided_json", "json", ANY)),
        ({"response_format": {"type": "json_object"}}, ("response_format", "json", ANY)),
        (
            {"response_format": FORMAT},
            ("response_format", "json", json.dumps(SCHEMA, ensure_ascii=False)),
        ),
        (
            {"response_format": {"type": "text"}, "guided_regex": "a"},
            ("guided_regex", "regex", "a"),
        ),
    ],
)
def test_what_is_said(fields: dict[str, Any], expected: tuple[str, str, str] | None) -> None:
    assert said(**fields) == (expected and Constraint(*expected))  # type: ignore[arg-type]


LONG = "a" * (MOST_CHARS + 1)


@pytest.mark.parametrize(
    ("fields", "param", "words"),
    [
        ({"structured_outputs": {}}, None, "one of choice, regex, json and grammar"),
        ({"structured_outputs": "a"}, None, "must be an object with one of"),
        ({"structured_outputs": {"regex": "a", "json": {}}}, None, "and nothing else"),
        ({"structured_outputs": {"regex": "a", "backend": None}}, None, "'backend': None"),
        ({"structured_outputs": {"structural_tag": {}}}, None, "one of choice"),
        ({"structured_outputs": {"regex": 1}}, None, "structured_outputs.regex must be a text"),
        ({"structured_outputs": {"grammar": ""}}, None, "grammar must be a text, not ''"),
        ({"structured_outputs": {"choice": []}}, None, "list of 1 to 1024 texts"),
        ({"guided_choice": ["a", ""]}, "guided_choice", "not empty"),
        ({"guided_choice": "ab"}, "guided_choice", "list of 1 to"),
        ({"guided_choice": ["a"] * (MOST_CHOICES + 1)}, "guided_choice", "list of 1 to 1024"),
        ({"guided_choice": [LONG]}, "guided_choice", "longer than the limit of 65536"),
        ({"guided_regex": LONG}, "guided_regex", "longer than the limit of 65536"),
        ({"guided_json": {"enum": [LONG]}}, "guided_json", "longer than the limit of 65536"),
        ({"guided_json": [1]}, "guided_json", "must be a JSON schema, as an object or a text"),
        ({"guided_json": "[1]"}, "guided_json", "must be a JSON schema that is an object"),
        ({"guided_json": "{"}, "guided_json", "must be a JSON schema that is an object"),
        ({"guided_regex": "\ud800"}, "guided_regex", "lone surrogate"),
        ({"response_format": "json"}, "response_format", 'must be {"type": "text"}'),
        ({"response_format": {"type": "json"}}, "response_format", "'type': 'json'"),
        ({"response_format": {"type": "json_schema"}}, "response_format", '"json_schema": {'),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "n"}}},
            "response_format",
            '{"schema": {...}}',
        ),
        (
            {"guided_regex": "a", "guided_choice": ["a"]},
            "guided_regex",
            "guided_choice and guided_regex both say what the text must be",
        ),
        (
            {"guided_regex": "a", "structured_outputs": {"regex": "a"}},
            "structured_outputs",
            "give one of them",
        ),
    ],
)
def test_what_is_wrong(fields: dict[str, Any], param: str | None, words: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        said(**fields)
    assert words in caught.value.message and len(caught.value.message) < 400
    assert caught.value.param == (param or "structured_outputs")


@pytest.mark.parametrize("name", CASES)
def test_what_is_written_is_read_again(name: str) -> None:
    body = parse(GenerateRequest, {"prompt": "a", "structured_outputs": CASES[name].value})
    again = GenerateRequest.model_validate_json(body.model_dump_json())
    assert again.structured_outputs == body.structured_outputs == CASES[name].constraint


def test_nothing_is_written_as_nothing() -> None:
    body = parse(GenerateRequest, {"prompt": "a"})
    assert GenerateRequest.model_validate_json(body.model_dump_json()) == body
    assert body.model_dump()["structured_outputs"] is None


_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["type", "json_schema", "schema", "regex", "choice", "json", "x"]),
            inner,
            max_size=3,
        )
    ),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from([*ALIASES, "structured_outputs"]), _values, max_size=2))
def test_anything_is_a_constraint_or_refused_by_name(fields: dict[str, Any]) -> None:
    try:
        constraint = said(**fields)
    except InvalidRequest as error:
        assert error.param in fields
    else:
        assert constraint is None or constraint.field in fields
