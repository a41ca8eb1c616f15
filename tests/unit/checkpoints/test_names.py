from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pythia_bento.checkpoints.names import ModelName
from pythia_bento.errors import ModelNotFound

COMMIT = "7199d8fc61a6d565cd1f3c62bf11525b563e13b2"


@pytest.mark.parametrize(
    ("text", "repo_id", "revision", "id"),
    [
        ("pythia-1b-deduped", "EleutherAI/pythia-1b-deduped", "main", "pythia-1b-deduped"),
        ("EleutherAI/pythia-1b@step3000", "EleutherAI/pythia-1b", "step3000", "pythia-1b@step3000"),
        ("pythia-70m@main", "EleutherAI/pythia-70m", "main", "pythia-70m"),
        (f"pythia-70m@{COMMIT}", "EleutherAI/pythia-70m", COMMIT, f"pythia-70m@{COMMIT}"),
        ("Someone/a_-_b.c", "Someone/a_-_b.c", "main", "Someone/a_-_b.c"),
        ("Someone/x@v1.0", "Someone/x", "v1.0", "Someone/x@v1.0"),
    ],
)
def test_ids(text: str, repo_id: str, revision: str, id: str) -> None:
    name = ModelName.parse(text)
    assert (name.repo_id, name.revision, name.id) == (repo_id, revision, id)
    assert ModelName.parse(name.id) == name


@pytest.mark.parametrize(
    "text",
    ["", "pythia-2b", "pythia-1b@step5", "a/b/c", "../x", "a/..", "a/b@../c", "a/b@", "a/b\n", "/"],
)
def test_what_is_no_id_is_refused(text: str) -> None:
    with pytest.raises(ModelNotFound):
        ModelName.parse(text)


def test_the_bundled_checkpoint_is_on_no_hub() -> None:
    with pytest.raises(ModelNotFound, match="comes with the package"):
        ModelName.parse("bundled@step64")


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        ("pythia-1b-deduped@step3000", {"size": "1b", "variant": "deduped", "step": "3000"}),
        ("pythia-1.4b", {"size": "1.4b", "variant": "standard", "step": "143000"}),
        (f"pythia-70m@{COMMIT}", {"size": "70m", "variant": "standard"}),
        ("Someone/else@v1", {}),
    ],
)
def test_labels(text: str, labels: dict[str, str]) -> None:
    assert ModelName.parse(text).labels == labels


@given(st.from_regex(r"\w[\w.-]{0,90}/\w[\w.-]{0,90}", fullmatch=True))
def test_store_names_are_what_bentoml_allows(text: str) -> None:
    try:
        name = ModelName.parse(text).store_name
    except ModelNotFound:
        return
    assert len(name) <= 63
    assert re.fullmatch(r"[a-z0-9]([-._a-z0-9]*[a-z0-9])?", name)
