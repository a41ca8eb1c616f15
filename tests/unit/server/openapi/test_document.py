"""The OpenAPI document against the code: routes, limits, errors."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import jsonschema_rs
import pytest

from pythia_bento import errors
from pythia_bento.errors import PythiaError
from pythia_bento.runtime.runner import PythiaRunner
from pythia_bento.server.http import openai, pages, probes, tokenizer
from pythia_bento.server.openapi.document import DOCUMENTED, describe
from pythia_bento.server.openapi.operations import OPERATIONS
from tests.unit.runtime.toy_runner import toy_runner
from tests.unit.runtime.toy_shelf import toy_shelf

# Never part of an answer: they stop a start, or exist to be refined.
NOT_ANSWERED = {"not_in_store", "invalid_setting", "internal_error"}
BOUNDED = (
    *("max_tokens", "min_tokens", "temperature", "top_k", "top_p", "min_p", "presence_penalty"),
    *("frequency_penalty", "repetition_penalty", "n", "best_of", "seed", "logprobs"),
    *("prompt_logprobs", "truncate_prompt_tokens"),
)


@pytest.fixture(scope="module")
def document() -> Iterator[dict[str, Any]]:
    with toy_runner() as runner:
        yield describe(runner)


def test_it_names_what_is_served(document: dict[str, Any], runner: PythiaRunner) -> None:
    assert runner.info.id in document["info"]["description"]
    model = document["components"]["schemas"]["CompletionRequest"]["properties"]["model"]
    assert model["anyOf"][0]["enum"] == ["toy@step3", "toy", "toy@main"]


def test_of_many_models_it_names_none_but_the_default() -> None:
    with toy_shelf() as runner:
        many = describe(runner)
    assert runner.info.id in many["info"]["description"]
    for name in ("CompletionRequest", "GenerateRequest", "ScoreItem", "LoadRequest"):
        model = many["components"]["schemas"][name]["properties"]["model"]
        assert "shelf" in model["description"]
        assert "enum" not in str(model)


def test_every_reference_leads_to_a_schema(document: dict[str, Any]) -> None:
    for name in document["components"]["schemas"]:
        schema = {"$ref": f"#/components/schemas/{name}", "components": document["components"]}
        jsonschema_rs.Draft202012Validator(schema)
    named = set(_references(document))
    known = {f"#/components/schemas/{name}" for name in document["components"]["schemas"]}
    assert named <= known


def test_every_route_is_an_operation() -> None:
    apps = (("/v1", openai), *(("", module) for module in (tokenizer, probes, pages)))
    found = {
        (prefix + route.path).replace("{id:path}", "{id}"): route.methods - {"HEAD"}
        for prefix, module in apps
        for route in module.create_app().routes
    }
    known = {operation.path: {operation.method.upper()} for operation in OPERATIONS}
    assert {path: known.get(path) for path in found} == found


def test_an_operation_has_a_path_and_an_id_of_its_own() -> None:
    """Who may ask is decided by the path alone."""
    assert len({operation.path for operation in OPERATIONS}) == len(OPERATIONS)
    assert len({operation.id for operation in OPERATIONS}) == len(OPERATIONS)


def test_parts_of_pages_are_not_described(document: dict[str, Any]) -> None:
    undocumented = {operation.path for operation in OPERATIONS} - document["paths"].keys()
    assert undocumented == {
        *("/playground/{name}", "/static_content/{name}", "/favicon.ico"),
        *("/openapi.json", "/v1/chat/completions"),
    }


def test_every_error_is_described_with_its_status(document: dict[str, Any]) -> None:
    described: set[tuple[str, str]] = set()
    for path in document["paths"].values():
        for operation in path.values():
            for status, response in operation["responses"].items():
                described |= {(status, word) for word in response["description"].split("`")[1::2]}
    for error in _leaves(PythiaError):
        if error.code not in NOT_ANSWERED:
            assert (str(error.status), error.code) in described
    assert ("500", "internal_error") in described


def test_keys_are_needed_where_there_are_some(document: dict[str, Any]) -> None:
    assert document["paths"]["/generate"]["post"]["security"] == [{}, {"ApiKey": []}]
    with toy_runner(api_keys="a-key-of-16-or-more") as runner:
        guarded = describe(runner)
    for operation in DOCUMENTED:
        security = guarded["paths"][operation.path][operation.method]["security"]
        assert security == ([{"ApiKey": []}] if operation.needs_key else [])


@pytest.mark.parametrize("field", BOUNDED)
async def test_limits_are_the_engines(
    client: httpx.AsyncClient, document: dict[str, Any], field: str
) -> None:
    properties = document["components"]["schemas"]["CompletionRequest"]["properties"]
    kinds = [kind for kind in properties[field]["anyOf"] if kind != {"type": "null"}]
    [schema] = [part for kind in kinds for part in kind.get("anyOf", [kind]) if "const" not in part]
    for value in _inside(schema):
        assert await _param(client, field, value) is None, value
    for value in _outside(schema):
        assert await _param(client, field, value) == field, value


def _inside(schema: dict[str, Any]) -> list[float]:
    return [schema[bound] for bound in ("minimum", "maximum") if bound in schema]


def _outside(schema: dict[str, Any]) -> Iterator[float]:
    if "exclusiveMinimum" in schema:
        yield schema["exclusiveMinimum"]
    step = 1 if isinstance(schema.get("maximum", schema.get("minimum")), int) else 0.001
    if "minimum" in schema:
        yield schema["minimum"] - step
    if "maximum" in schema:
        yield schema["maximum"] + step


async def _param(client: httpx.AsyncClient, field: str, value: float) -> str | None:
    """The field that a request is refused for; the rest of it can be taken."""
    body = {"prompt": [5], "max_tokens": 63, "stop_token_ids": list(range(64)), field: value}
    response = await client.post("/completions", json=body)
    return None if response.status_code == 200 else response.json()["error"]["param"]


def _leaves(error: type[PythiaError]) -> Iterator[type[PythiaError]]:
    yield error
    for child in error.__subclasses__():
        if child.__module__ in (errors.__name__, "pythia_bento.settings"):
            yield from _leaves(child)


def _references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if isinstance(value.get("$ref"), str):
            yield value["$ref"]
        for part in value.values():
            yield from _references(part)
    elif isinstance(value, list):
        for part in value:
            yield from _references(part)
