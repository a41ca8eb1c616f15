"""What is said over HTTP: bodies of JSON out, bodies and events back."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from pythia_bento.client import http_sweep
from pythia_bento.client.failures import BY_CODE, BY_STATUS, failure, of_json
from pythia_bento.client.http_json import dumps
from pythia_bento.client.inside import Asked
from pythia_bento.client.transport import Operation, known
from pythia_bento.errors import EngineUnavailable, PythiaError
from pythia_bento.protocol.json_types import tokens_of
from pythia_bento.protocol.sweep import Event, SweepItem
from pythia_bento.protocol.types import (
    Delta,
    Info,
    Limits,
    ModelState,
    Part,
    Prompt,
    Score,
    ScoreItem,
    Scores,
    Summary,
    Timings,
)

if TYPE_CHECKING:
    from pythia_bento.client.patches import PatchGrid
    from pythia_bento.protocol.activations import Activations

END = b"[DONE]"  # the data of the last event


def info(model: str | None) -> Operation[Info]:
    """``GET /v1/models/{id}``, or the first of the list."""
    if model is None:
        return Operation("/v1/models", None, lambda body: _first(json.loads(body)))
    path = f"/v1/models/{quote(model, safe='@/')}"
    return Operation(path, None, lambda body: _info(json.loads(body)))


def models() -> Operation[list[ModelState]]:
    """``GET /v1/models``."""
    return Operation(
        "/v1/models", None, lambda body: [model_state(card) for card in json.loads(body)["data"]]
    )


def generate(prompt: Prompt, model: str | None, options: Mapping[str, Any]) -> Operation[Part]:
    """``POST /generate``, answered by events. Raises InvalidRequest for what JSON cannot hold."""
    body = {**options, "prompt": _plain(prompt), "stream": True} | _named(model)
    for name in ("stop", "stop_token_ids"):
        if name in body:
            body[name] = _plain(body[name])
    if "logit_bias" in body:
        body["logit_bias"] = {str(id): bias for id, bias in body["logit_bias"].items()}
    return Operation("/generate", dumps(body), part)


def score(items: Sequence[ScoreItem], model: str | None) -> Operation[Scores]:
    """``POST /score``. Raises InvalidRequest for what JSON cannot hold."""
    body = {"items": [score_item(item) for item in items]} | _named(model)
    return Operation("/score", dumps(body), lambda body: scores_of(json.loads(body)))


def sweep(asked: Mapping[str, Any]) -> Operation[list[Event]]:
    """``POST /v1/sweep``, answered by events. Raises InvalidRequest for what JSON cannot hold."""
    body = {**asked, "items": [_sweep_item(item) for item in asked["items"]]}
    return Operation("/v1/sweep", dumps(body), http_sweep.events)


def _sweep_item(item: SweepItem) -> dict[str, Any]:
    told = {"prompt": _plain(item.prompt), "id": item.id}
    if item.continuation is not None:
        told["continuation"] = _plain(item.continuation)
    return told


def tokenize(text: str, model: str | None) -> Operation[list[int]]:
    """``POST /tokenize``. Raises InvalidRequest for what JSON cannot hold."""
    body = dumps({"prompt": text} | _named(model))
    return Operation("/tokenize", body, lambda body: list(json.loads(body)["tokens"]))


def detokenize(ids: Sequence[int], model: str | None) -> Operation[str]:
    """``POST /detokenize``. Raises InvalidRequest for what JSON cannot hold."""
    body = dumps({"tokens": list(ids)} | _named(model))
    return Operation("/detokenize", body, lambda body: str(json.loads(body)["prompt"]))


def activations(asked: Asked) -> Operation[Activations]:
    """``POST /v1/activations``. Raises InvalidRequest for what JSON cannot hold."""
    from pythia_bento.client import http_inside  # who does not ask needs no numpy

    return http_inside.activations(asked)


def patch(asked: Asked) -> Operation[PatchGrid]:
    """``POST /v1/patch``. Raises InvalidRequest for what JSON cannot hold."""
    from pythia_bento.client import http_inside

    return http_inside.patch(asked)


def refusal(status: int, retry_after: str | None, body: bytes) -> PythiaError:
    """What an answer with the status of an error tells of, whoever it is from."""
    kind, seconds = BY_STATUS.get(status), _seconds(retry_after)
    try:
        error = json.loads(body)["error"]
        return failure(
            BY_CODE.get(error["code"]) or kind, error["message"], error["param"], seconds
        )
    except (ValueError, TypeError, KeyError, RecursionError):  # not the service's own
        return failure(kind, f"the server answered with status {status}", None, seconds)


def _seconds(retry_after: str | None) -> float | None:
    """None too for a date, which servers before ours may send, and for what is no time to wait."""
    try:
        seconds = float(retry_after or "")
    except ValueError:
        return None
    return seconds if 0 <= seconds < math.inf else None


def _plain(value: Any) -> Any:
    return value if isinstance(value, str) else list(value)


def score_item(item: ScoreItem) -> dict[str, Any]:
    """One of ``/score``."""
    body = {"prompt": _plain(item.prompt), "logprobs": item.logprobs}
    if item.continuation is not None:
        body["continuation"] = _plain(item.continuation)
    return body | _named(item.model)


def _named(model: str | None) -> dict[str, Any]:
    return {} if model is None else {"model": model}


def part(data: bytes) -> Part:
    """The data of an event; raises the error that it tells of."""
    event = json.loads(data)
    if "error" in event:
        raise of_json(event["error"])
    return part_of(event)


def part_of(body: Mapping[str, Any]) -> Part:
    """A part of an answer."""
    summary = body.get("summary")
    return Part(
        deltas=tuple(_delta(delta) for delta in body["deltas"]),
        prompt_tokens=tokens_of(body.get("prompt_tokens", ())),
        summary=None if summary is None else _summary(summary),
    )


def _delta(body: Mapping[str, Any]) -> Delta:
    lists = {"token_ids": tuple(body["token_ids"]), "tokens": tokens_of(body.get("tokens", ()))}
    return Delta(**known(Delta, body) | lists)


def _summary(body: Mapping[str, Any]) -> Summary:
    timings = Timings(**known(Timings, body["timings"]))
    return Summary(**known(Summary, body) | {"timings": timings})


def scores_of(answer: Sequence[Mapping[str, Any]]) -> Scores:
    """Results of ``/score``."""
    return [
        of_json(score["error"])
        if "error" in score
        else Score(**known(Score, score) | {"tokens": tokens_of(score["tokens"])})
        for score in answer
    ]


def model_state(card: Mapping[str, Any]) -> ModelState:
    """A card of ``/v1/models``."""
    lists = {name: tuple(card[name]) for name in ("aliases", "same_weights")}
    names = {"model": card["id"], "fingerprint": card["system_fingerprint"]}
    return ModelState(**known(ModelState, card) | names | lists)


def _first(answer: Mapping[str, Any]) -> Info:
    if not answer["data"]:
        raise EngineUnavailable("the server names no model that it serves")
    return _info(answer["data"][0])


def _info(card: Mapping[str, Any]) -> Info:
    provenance = card["provenance"] or {}  # null where the server does not know
    lists = {"same_weights": tuple(provenance.get("same_weights", ()))}
    return Info(
        model=card["id"],
        aliases=tuple(card["aliases"]),
        fingerprint=card["system_fingerprint"],
        limits=Limits(**known(Limits, card["limits"])),
        **known(Info, provenance) | lists,
    )
