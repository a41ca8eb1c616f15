"""Which operation a request's path names."""

from __future__ import annotations

import pytest

from pythia_bento.server.openapi.operations import OPERATIONS, operation_of


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/", "/"),
        ("/v1/completions", "/v1/completions"),
        ("/v1/models", "/v1/models"),
        ("/v1/models/a", "/v1/models/{id}"),
        ("/v1/models/a/b@c", "/v1/models/{id}"),
        ("/playground", "/playground"),
        ("/playground/tokens.js", "/playground/{name}"),
        ("/static_content/a/b.css", "/static_content/{name}"),
        ("/v1/Completions", None),
        ("/v1/completions/", None),
        ("/v1/models/", None),
        ("/x/v1/models/a", None),
        ("/playground/", None),
        ("", None),
        ("/é\n", None),
        ("/playground/a\n", None),
    ],
)
def test_by_path(path: str, expected: str | None) -> None:
    found = operation_of(path)
    assert (found and found.path) == expected


def test_every_operation_is_found_by_its_own_path() -> None:
    for operation in OPERATIONS:
        path = operation.path.replace("{id}", "some-model").replace("{name}", "a.js")
        assert operation_of(path) is operation
