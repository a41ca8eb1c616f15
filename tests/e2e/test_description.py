"""``/docs.json`` of a running server: its examples work, and answers are as it says."""

from __future__ import annotations

import json
import re
from typing import Any

import jsonschema_rs
import pytest
import safetensors.numpy

from pythia_bento.server.http.inside import SAFETENSORS
from pythia_bento.server.openapi.document import DOCUMENTED
from pythia_bento.settings import Settings
from tests.e2e.serving import HTTP, ROOT, Server
from tests.fuzz.http import KEY

EXAMPLES = [
    pytest.param(operation.path, value, id=f"{operation.id}-{summary}")
    for operation in DOCUMENTED
    for summary, value in operation.examples.items()
]


@pytest.fixture(scope="module")
def document(server: Server) -> dict[str, Any]:
    return HTTP.get(f"{server.url}/docs.json").json()


@pytest.mark.parametrize(("path", "body"), EXAMPLES)
def test_examples_are_described_and_work(
    server: Server, guarded: Server, document: dict[str, Any], path: str, body: Any
) -> None:
    operation = document["paths"][path]["post"]
    request = operation["requestBody"]["content"]["application/json"]
    assert body in [example["value"] for example in request["examples"].values()]
    check(document, request["schema"], body)
    # That one takes orders, of those who have a key.
    asked = guarded if path.startswith("/v1/models/") else server
    headers = {"Authorization": f"Bearer {KEY}"}
    response = HTTP.post(asked.url + path, json=body, headers=headers, timeout=60)
    assert response.status_code == 200, response.text
    kind = response.headers["content-type"].split(";")[0]
    schema = operation["responses"]["200"]["content"][kind]["schema"]
    if kind == "application/json":
        check(document, schema, response.json())
    elif kind == "application/x-ndjson":
        for line in response.text.splitlines():
            check(document, schema["contentSchema"], json.loads(line))
    elif kind == SAFETENSORS:
        assert safetensors.numpy.load(response.content)
    else:
        check_events(document, schema, response.text)


@pytest.mark.parametrize("operation", [op for op in DOCUMENTED if op.method == "get"])
def test_what_is_got_is_as_described(
    server: Server, document: dict[str, Any], operation: Any
) -> None:
    response = HTTP.get(server.url + operation.path.format(**operation.parameters))
    described = document["paths"][operation.path]["get"]["responses"]["200"]["content"]
    assert response.status_code == 200
    kind = response.headers["content-type"].split(";")[0]
    assert set(described) == {kind}
    if kind == "application/json":
        check(document, described[kind]["schema"], response.json())


def test_what_is_refused_is_as_described(server: Server, document: dict[str, Any]) -> None:
    requests = [
        ("/v1/completions", {"prompt": ""}, 400),
        ("/v1/completions", {"prompt": "a", "model": "other"}, 404),
        ("/v1/completions", {"prompt": "a" * (8 * 2**20)}, 413),
        ("/generate", {"prompt": "a", "n": 0}, 400),
        ("/score", {"items": 1}, 400),
        ("/v1/sweep", {"items": []}, 400),
        ("/v1/activations", {"prompts": []}, 400),
        ("/v1/activations", {"prompts": ["a" * (8 * 2**20)]}, 413),
        ("/v1/patch", {"clean": "a"}, 400),
        ("/tokenize", {}, 400),
        ("/detokenize", {"tokens": [-1]}, 400),
        ("/v1/models/load", {"model": "bundled"}, 403),
        ("/v1/models/unload", {"model": "bundled"}, 403),
    ]
    for path, body, status in requests:
        response = HTTP.post(server.url + path, json=body)
        assert response.status_code == status, response.text
        described = document["paths"][path]["post"]["responses"][str(status)]
        check(document, described["content"]["application/json"]["schema"], response.json())


def test_bentos_own_routes_are_all_described(server: Server, document: dict[str, Any]) -> None:
    routes = {route["route"] for route in HTTP.get(f"{server.url}/schema.json").json()["routes"]}
    assert routes == {"/generate", "/generate_stream", "/score"} <= set(document["paths"])


def test_the_readme_lists_all_operations() -> None:
    readme = (ROOT / "README.md").read_text()
    rows = set(re.findall(r"^\| `(GET|POST) (\S+)` \|", readme, re.M))
    assert rows >= {
        (operation.method.upper(), operation.path)
        for operation in DOCUMENTED
        if operation.path not in ("/healthz", "/schema.json", "/v1/models/{id}")
    }


def test_settings_and_defaults_in_the_documents() -> None:
    text = (ROOT / "docs/api.md").read_text() + (ROOT / "docs/access.md").read_text()
    assert set(re.findall(r"PYTHIA_([A-Z_]+)", text)) <= {
        name.upper() for name in Settings.model_fields
    }
    rows = re.findall(r"^\| [^|]+ \| (\d+)[^|]* \| `PYTHIA_([A-Z_]+)` \|$", text, re.M)
    limits = {name.lower(): int(number) for number, name in rows}
    assert len(limits) >= 6
    limits["max_body_bytes"] *= 2**20
    for name, limit in limits.items():
        assert Settings.model_fields[name].default == limit, name


def check(document: dict[str, Any], schema: dict[str, Any], value: Any) -> None:
    whole = {**schema, "components": document["components"]}
    jsonschema_rs.Draft202012Validator(whole).validate(value)


def check_events(document: dict[str, Any], schema: dict[str, Any], text: str) -> None:
    data = [event.removeprefix("data: ") for event in text.strip().split("\n\n")]
    # How many there are is a matter of time: what arrives together goes out as one event.
    assert data[-1] == "[DONE]" and len(data) > 1
    done, event = schema["properties"]["data"]["anyOf"]
    assert done == {"const": data.pop()}
    parts = [json.loads(text) for text in data]
    for part in parts:
        check(document, event["contentSchema"], part)
    pieces = [piece for part in parts for piece in part.get("deltas") or part["choices"]]
    assert "".join(piece["text"] for piece in pieces)
    if summary := parts[-1].get("summary"):
        count = sum(len(piece["token_ids"]) for piece in pieces)
        assert count == summary["num_completion_tokens"] > 0
