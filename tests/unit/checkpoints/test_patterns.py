"""Which models a server answers for, in words."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pythia_bento.catalog import parse
from pythia_bento.checkpoints.patterns import MAX_PATTERNS, Pattern, parse_patterns

COMMIT = "7199d8fc61a6d565cd1f3c62bf11525b563e13b2"


@pytest.mark.parametrize(
    ("text", "patterns"),
    [
        ("", []),
        (" ", []),
        ("bundled@*", [("bundled", "*")]),
        ("pythia-1b", [("pythia-1b", "main")]),
        (f"pythia-1b@{COMMIT}", [("pythia-1b", COMMIT)]),
        (" EleutherAI/pythia-1b@step?000 , bundled@*,", None),
        ("EleutherAI/pythia-1b@step?000,bundled", [("pythia-1b", "step?000"), ("bundled", "main")]),
        ("bundled@*, bundled@*", [("bundled", "*")]),
        ("someone/else@v1.*", [("someone/else", "v1.*")]),
    ],
)
def test_patterns_are_ids_or_globs(text: str, patterns: list[tuple[str, str]] | None) -> None:
    if patterns is None:
        with pytest.raises(ValueError, match="must be ids or"):
            parse_patterns(text)
    else:
        assert parse_patterns(text) == tuple(Pattern(*pattern) for pattern in patterns)


@pytest.mark.parametrize(
    "text",
    [
        *("*", "pythia-*@step0", "pythia-1c@*", "pythia-1b@step7", "../x@*", "a/b/c@*", ",", "@*"),
        *("bundled@[a]*", "bundled@*\n*", "bundled@*/x", "bundled@", "bundled@*" + "a" * 200),
    ],
)
def test_what_is_no_pattern_is_refused_with_the_grammar(text: str) -> None:
    with pytest.raises(ValueError, match="must be ids or <name>@<revision with"):
        parse_patterns(text)


def test_there_are_at_most_so_many() -> None:
    ids = [f"bundled@step{number}" for number in range(MAX_PATTERNS + 1)]
    assert len(parse_patterns(",".join(ids[1:]))) == MAX_PATTERNS
    with pytest.raises(ValueError, match="has 65 patterns; the limit is 64"):
        parse_patterns(",".join(ids))


@given(st.text(alphabet="pythia-1b@*?,/ .step07", max_size=60))
def test_any_text_is_patterns_or_one_error(text: str) -> None:
    try:
        found = parse_patterns(text)
    except ValueError as error:
        assert str(error).isprintable()
    else:
        assert all(parse(one.name).name == one.name for one in found)


def test_stars_match_revisions_of_one_model_alone() -> None:
    steps, all_of_them = parse_patterns("pythia-1b@step*, pythia-14m@*")
    assert steps.matches(parse("EleutherAI/pythia-1b@step1000"))
    assert not steps.matches(parse("pythia-1b"))
    assert not steps.matches(parse("pythia-1b-deduped@step1000"))
    for revision in ("step0", "main", COMMIT):
        assert all_of_them.matches(parse(f"pythia-14m@{revision}"))
