"""Under what names and labels BentoML's store has a model."""

from __future__ import annotations

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pythia_bento.catalog import parse
from pythia_bento.checkpoints.store_names import labels_of, store_name
from pythia_bento.errors import ModelNotFound

COMMIT = "7199d8fc61a6d565cd1f3c62bf11525b563e13b2"


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        ("pythia-1b-deduped@step3000", {"size": "1b", "variant": "deduped", "step": "3000"}),
        ("pythia-1.4b", {"size": "1.4b", "variant": "standard", "step": "143000"}),
        (f"pythia-70m@{COMMIT}", {"size": "70m", "variant": "standard"}),
        ("pythia-70m-deduped-v0", {"size": "70m", "variant": "deduped", "step": "143000"}),
        (
            "pythia-intervention-long-1.4b-deduped",
            {"size": "1.4b", "variant": "deduped", "step": "143000"},
        ),
        ("Someone/else@v1", {}),
    ],
)
def test_labels(text: str, labels: dict[str, str]) -> None:
    assert labels_of(parse(text)) == labels


@given(st.from_regex(r"\w[\w.-]{0,90}/\w[\w.-]{0,90}", fullmatch=True))
@example("0/_")
@example("a/" + "b" * 57 + "-_.c")
def test_store_names_are_what_bentoml_allows(text: str) -> None:
    try:
        name = store_name(parse(text))
    except ModelNotFound:
        return
    assert len(name) <= 63
    assert re.fullmatch(r"[a-z0-9]([-._a-z0-9]*[a-z0-9])?", name)


def test_no_two_repositories_share_a_name() -> None:
    long = "b" * 57
    repositories = [
        *("pythia-14m", "someone/pythia-14m", "Someone/pythia-14m", "someone/Pythia-14m"),
        *("someone/pythia_14m", "some-one/pythia-14m", "some_one/pythia-14m"),
        *(f"a/{long}{end}" for end in ("", "c", "d", "-", ".x", ".y") if end != "-"),
    ]
    names = {store_name(parse(text)) for text in repositories}
    assert len(names) == len(repositories)
    assert store_name(parse("EleutherAI/pythia-14m@step8")) == "pythia-14m-int8"
    assert store_name(parse("someone/pythia-14m")) == "someone--pythia-14m-int8"
