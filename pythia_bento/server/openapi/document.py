"""The OpenAPI document of everything that is served over HTTP, made from ``OPERATIONS``."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from pythia_bento import __version__
from pythia_bento.errors import PythiaError
from pythia_bento.protocol.bodies import CompletionRequest
from pythia_bento.protocol.structured import FIELD
from pythia_bento.runtime.runner import PythiaRunner
from pythia_bento.server.openapi.answers import Error
from pythia_bento.server.openapi.failures import ACCESS
from pythia_bento.server.openapi.fields import (
    MEANINGS,
    alias_fields,
    limits_of_fields,
    unsupported_fields,
)
from pythia_bento.server.openapi.operation import Content, Events, Lines, Operation
from pythia_bento.server.openapi.operations import OPERATIONS

Schema = dict[str, Any]
DOCUMENTED = [operation for operation in OPERATIONS if operation.is_documented]
_REF = "#/components/schemas/{model}"
_KEY: list[Schema] = [{"ApiKey": []}]
_HEADERS: dict[int, dict[str, tuple[str, str]]] = {
    401: {"WWW-Authenticate": ("string", "Bearer")},
    429: {"Retry-After": ("integer", "Seconds after which to try again.")},
    503: {"Retry-After": ("integer", "Seconds after which to try again, where that is known.")},
}


@lru_cache(maxsize=1)
def describe(runner: PythiaRunner) -> Schema:
    """The document for what ``runner`` serves, with its names and limits."""
    is_open = not runner.settings.has_keys
    paths: dict[str, Schema] = defaultdict(dict)
    for operation in DOCUMENTED:
        paths[operation.path][operation.method] = _operation(operation, is_open)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "pythia-bento",
            "version": __version__,
            "description": f"Pythia in 8 bits: {runner.info.id}. Try it in the "
            "[playground](playground), or see a text over all [steps of training](steps).",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "."}],
        "paths": dict(paths),
        "components": {
            "schemas": _schemas(runner),
            "securitySchemes": {"ApiKey": {"type": "http", "scheme": "bearer"}},
        },
    }


def _operation(operation: Operation, is_open: bool) -> Schema:
    needs_key = _KEY if not is_open else [{}, *_KEY]
    described: Schema = {
        "operationId": operation.id,
        "tags": [operation.tag],
        "summary": operation.summary,
        "security": needs_key if operation.needs_key else [],
        "responses": _responses(operation),
    }
    if operation.parameters:
        described["parameters"] = [
            {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
            | {"example": example}
            for name, example in operation.parameters.items()
        ]
    if operation.body is not None:
        described["requestBody"] = {"required": True, "content": _body(operation)}
    return described


def _body(operation: Operation) -> Schema:
    assert operation.body is not None
    examples = {
        f"example{number}": {"summary": summary, "value": value}
        for number, (summary, value) in enumerate(operation.examples.items(), 1)
    }
    content: Schema = {"application/json": {"schema": _ref(operation.body), "examples": examples}}
    if operation.takes_tensors:
        content["multipart/form-data"] = {"schema": _parts(operation.body)}
    return content


def _parts(body: type[BaseModel]) -> Schema:
    """The same, with a file beside it."""
    file = {"type": "string", "contentMediaType": "application/vnd.safetensors"}
    parts = {"request": _ref(body), "tensors": file}
    return {
        **{"type": "object", "properties": parts, "required": ["request"]},
        "additionalProperties": False,
    }


def _responses(operation: Operation) -> Schema:
    by_status: dict[int, list[type[PythiaError]]] = defaultdict(list)
    for error in (*operation.errors, *(ACCESS if operation.needs_key else ())):
        by_status[error.status].append(error)
    failed = {str(status): _failure(status, by_status[status]) for status in sorted(by_status)}
    content = {_media_type(answer): _content(answer) for answer in operation.answers}
    return {"200": {"description": operation.summary, "content": content}, **failed}


def _failure(status: int, errors: list[type[PythiaError]]) -> Schema:
    described: Schema = {
        "description": " ".join(f"`{error.code}`: {_sentence(error)}" for error in errors),
        "content": {"application/json": {"schema": _ref(Error)}},
    }
    if status in _HEADERS:
        described["headers"] = {
            name: {"description": text, "schema": {"type": kind}}
            for name, (kind, text) in _HEADERS[status].items()
        }
    return described


def _sentence(error: type[PythiaError]) -> str:
    if error is PythiaError:
        return "The server is at fault."
    return (error.__doc__ or "").split("\n\n")[0].replace("\n    ", " ").replace("``", "`")


def _media_type(content: Content) -> str:
    if isinstance(content, Events):
        return "text/event-stream"
    if isinstance(content, Lines):
        return "application/x-ndjson"
    return content if isinstance(content, str) else "application/json"


def _content(content: Content) -> Schema:
    if isinstance(content, Events):
        return {"schema": _event([_ref(model) for model in content.models])}
    if isinstance(content, Lines):
        return {"schema": _json([_ref(model) for model in content.models])}
    return {"schema": {"type": "string"} if isinstance(content, str) else _ref(content)}


def _event(data: list[Schema]) -> Schema:
    kinds = [{"const": "[DONE]"}, _json(data)]
    return {"type": "object", "required": ["data"], "properties": {"data": {"anyOf": kinds}}}


def _json(kinds: list[Schema]) -> Schema:
    """Text that is JSON, or lines of it."""
    text: Schema = {"type": "string", "contentMediaType": "application/json"}
    return {**text, "contentSchema": {"anyOf": kinds}}


def _ref(model: type[BaseModel]) -> Schema:
    return {"$ref": _REF.format(model=model.__name__)}


def _schemas(runner: PythiaRunner) -> dict[str, Schema]:
    """Of all bodies, with limits and meanings, and of all answers."""
    bodies = [operation.body for operation in DOCUMENTED if operation.body is not None]
    models = [model for operation in DOCUMENTED for model in _models(operation)]
    requests = _definitions(bodies)
    limits = limits_of_fields(runner)
    for name, schema in requests.items():
        schema["properties"] = {
            field: _field(name, field, described, schema.get("required", ()), limits)
            for field, described in schema["properties"].items()
        }
        if FIELD in schema["properties"]:
            schema["properties"] |= alias_fields()
    requests[CompletionRequest.__name__]["properties"] |= unsupported_fields()
    return {**requests, **_definitions([*models, Error])}


def _models(operation: Operation) -> Iterable[type[BaseModel]]:
    """Those of its answers."""
    for answer in operation.answers:
        if isinstance(answer, (Events, Lines)):
            yield from answer.models
        elif not isinstance(answer, str):
            yield answer


def _definitions(models: list[type[BaseModel]]) -> dict[str, Schema]:
    wanted = [(model, "validation") for model in dict.fromkeys(models)]
    _, schema = models_json_schema(wanted, ref_template=_REF)  # type: ignore[arg-type]
    definitions: dict[str, Schema] = schema["$defs"]
    return definitions


def _field(
    model: str, name: str, found: Schema, required: list[str], limits: dict[str, Schema]
) -> Schema:
    """A field with its meaning and limits; null stands for its default."""
    kept = {key: found[key] for key in ("default",) if found.get(key) is not None}
    schema = limits.get(f"{model}.{name}", limits.get(name, _without_null(found)))
    if name not in required:
        schema = _or_null(schema)
    return {"description": MEANINGS.get(f"{model}.{name}") or MEANINGS[name], **schema, **kept}


def _or_null(schema: Schema) -> Schema:
    kinds = schema["anyOf"] if set(schema) == {"anyOf"} else [schema]
    return {"anyOf": [*kinds, {"type": "null"}]}


def _without_null(found: Schema) -> Schema:
    named = {key: value for key, value in found.items() if key not in ("title", "default")}
    if "anyOf" in named:
        named["anyOf"] = [kind for kind in named["anyOf"] if kind != {"type": "null"}]
        if len(named["anyOf"]) == 1:
            return dict(named["anyOf"][0])
    return named
