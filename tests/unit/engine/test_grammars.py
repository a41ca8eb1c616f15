"""What is compiled, and what is refused with which sentence."""

from __future__ import annotations

import json
import sys

import pytest

from pythia_bento.engine.grammars import (
    BYTES,
    Constraint,
    check_library,
    compiled,
    make_tokenizer,
)
from pythia_bento.errors import InvalidRequest
from tests.constraints import CASES


@pytest.mark.parametrize("name", CASES)
def test_every_kind_is_compiled(name: str) -> None:
    matcher = compiled(CASES[name].constraint, make_tokenizer(BYTES))
    assert not matcher.is_stopped() and matcher.compute_bitmask().count(0) < 9 * 4


@pytest.mark.parametrize(
    ("kind", "text", "words"),
    [
        ("regex", "(", "invalid regex"),
        ("regex", r"(?=a)b", "invalid regex"),
        ("regex", "(" * 5000 + "a" + ")" * 5000, "invalid regex"),
        ("grammar", "start: missing", "missing"),
        ("grammar", "root = 1", "GBNF"),
        ("grammar", "root ::= " + "(" * 5000, "GBNF"),
        ("grammar", "start: " + "(" * 5000 + '"a"' + ")" * 5000, "too deeply nested"),
        ("json", '{"type": 7}', "type must be"),
        ("json", '{"$ref": "http://127.0.0.1/schema"}', "does not fetch"),
        ("json", '{"$ref": "file:///etc/passwd"}', "does not fetch"),
        ("json", '{"anyOf": []}', ""),
        ("json", json.dumps({"allOf": [{"minimum": 5}, {"maximum": 4}], "type": "integer"}), ""),
    ],
)
def test_what_is_wrong_is_one_sentence_that_names_the_field(
    kind: str, text: str, words: str
) -> None:
    with pytest.raises(InvalidRequest) as caught:
        compiled(Constraint("guided_x", kind, text), make_tokenizer(BYTES))  # type: ignore[arg-type]
    message = caught.value.message
    assert message.startswith("guided_x cannot be followed: ") and words in message
    assert len(message) < 300 and message.isprintable()
    assert caught.value.param == "guided_x"


def test_without_the_library_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    check_library("guided_regex")
    monkeypatch.setitem(sys.modules, "llguidance", None)
    with pytest.raises(InvalidRequest, match=r"^guided_regex needs the extra `guided`") as caught:
        check_library("guided_regex")
    assert caught.value.param == "guided_regex"
