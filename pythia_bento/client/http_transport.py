"""Over HTTP: the service's own routes."""

from __future__ import annotations

import json
import ssl
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import httpx2

from pythia_bento.client.failures import BY_CODE, BY_STATUS, failure
from pythia_bento.client.options import Connection
from pythia_bento.client.transport import Scores
from pythia_bento.errors import DeadlineExceeded, EngineUnavailable, InvalidRequest, PythiaError
from pythia_bento.protocol.types import (
    Delta,
    Info,
    Limits,
    Part,
    Prompt,
    Score,
    ScoreItem,
    Summary,
    Timings,
    Token,
    TopToken,
)


class HttpTransport:
    """Blocking calls."""

    def __init__(self, connection: Connection) -> None:
        self._http = httpx2.Client(**_client_options(connection))

    def close(self) -> None:
        self._http.close()

    def info(self, timeout: float) -> Info:
        with _translated(timeout):
            return _info(_answer(self._http.get("/v1/models", timeout=timeout)))

    def stream(self, prompt: Prompt, options: dict[str, Any], timeout: float) -> Iterator[Part]:
        body = _generate_body(prompt, options)
        with (
            _translated(timeout),
            self._http.stream("POST", "/generate", content=body, timeout=timeout) as response,
        ):
            if response.is_error:
                response.read()
                _answer(response)
            for line in response.iter_lines():
                if _is_event(line):
                    yield _part(_event(line))

    def score(self, items: Sequence[ScoreItem], timeout: float) -> Scores:
        return _scores(self._post("/score", _score_body(items), timeout))

    def tokenize(self, text: str, timeout: float) -> list[int]:
        return _ids(self._post("/tokenize", {"prompt": text}, timeout))

    def detokenize(self, ids: Sequence[int], timeout: float) -> str:
        return str(self._post("/detokenize", {"tokens": list(ids)}, timeout)["prompt"])

    def _post(self, path: str, body: Any, timeout: float) -> Any:
        with _translated(timeout):
            return _answer(self._http.post(path, content=_dumps(body), timeout=timeout))


class AsyncHttpTransport:
    """The same for coroutines."""

    def __init__(self, connection: Connection) -> None:
        self._http = httpx2.AsyncClient(**_client_options(connection))

    async def close(self) -> None:
        await self._http.aclose()

    async def info(self, timeout: float) -> Info:
        with _translated(timeout):
            return _info(_answer(await self._http.get("/v1/models", timeout=timeout)))

    async def stream(
        self, prompt: Prompt, options: dict[str, Any], timeout: float
    ) -> AsyncIterator[Part]:
        body = _generate_body(prompt, options)
        with _translated(timeout):
            async with self._http.stream(
                "POST", "/generate", content=body, timeout=timeout
            ) as response:
                if response.is_error:
                    await response.aread()
                    _answer(response)
                async for line in response.aiter_lines():
                    if _is_event(line):
                        yield _part(_event(line))

    async def score(self, items: Sequence[ScoreItem], timeout: float) -> Scores:
        return _scores(await self._post("/score", _score_body(items), timeout))

    async def tokenize(self, text: str, timeout: float) -> list[int]:
        return _ids(await self._post("/tokenize", {"prompt": text}, timeout))

    async def detokenize(self, ids: Sequence[int], timeout: float) -> str:
        answer = await self._post("/detokenize", {"tokens": list(ids)}, timeout)
        return str(answer["prompt"])

    async def _post(self, path: str, body: Any, timeout: float) -> Any:
        with _translated(timeout):
            return _answer(await self._http.post(path, content=_dumps(body), timeout=timeout))


def _client_options(connection: Connection) -> dict[str, Any]:
    return {
        "base_url": f"{connection.scheme}://{connection.address}",
        "headers": {**connection.headers(), "content-type": "application/json"},
        "verify": _ssl_context(connection) if connection.scheme == "https" else True,
    }


def _ssl_context(connection: Connection) -> ssl.SSLContext:
    tls = connection.tls
    context = ssl.create_default_context(cafile=None if tls.ca is None else str(tls.ca))
    if tls.cert is not None:
        context.load_cert_chain(tls.cert, tls.key)
    return context


@contextmanager
def _translated(timeout: float) -> Iterator[None]:
    try:
        yield
    except httpx2.TimeoutException:
        raise DeadlineExceeded(f"the server was silent for {timeout:g} seconds") from None
    except httpx2.TransportError as error:
        raise EngineUnavailable(f"the server cannot be reached: {error}") from None


def _dumps(body: Any) -> bytes:
    try:
        return json.dumps(body, allow_nan=False).encode()
    except (TypeError, ValueError) as error:
        raise InvalidRequest(f"the request cannot be written as JSON: {error}") from None


def _answer(response: httpx2.Response) -> Any:
    """The body; raises what it tells of."""
    if response.is_success:
        return response.json()
    raise _failure(_error(response), response.status_code, response.headers.get("retry-after"))


def _error(response: httpx2.Response) -> dict[str, Any]:
    """The error of the body, if it is one of the service's."""
    try:
        error = response.json()["error"]
        return {name: error[name] for name in ("code", "message", "param")}
    except (ValueError, TypeError, KeyError):
        message = f"the server answered with status {response.status_code}"
        return {"code": None, "message": message, "param": None}


def _failure(
    error: Mapping[str, Any], status: int | None = None, retry_after: str | None = None
) -> PythiaError:
    kind = BY_CODE.get(error["code"]) or BY_STATUS.get(status or 0)
    return failure(kind, error["message"], error["param"], _seconds(retry_after))


def _seconds(retry_after: str | None) -> float | None:
    """None too for a date, which servers before ours may send."""
    try:
        return float(retry_after or "")
    except ValueError:
        return None


def _is_event(line: str) -> bool:
    return bool(line) and line != "data: [DONE]"


def _event(line: str) -> dict[str, Any]:
    event: dict[str, Any] = json.loads(line.removeprefix("data: "))
    if "error" in event:
        raise _failure(event["error"])
    return event


def _generate_body(prompt: Prompt, options: dict[str, Any]) -> bytes:
    body = {**options, "prompt": _plain(prompt), "stream": True}
    for name in ("stop", "stop_token_ids"):
        if name in body:
            body[name] = _plain(body[name])
    if "logit_bias" in body:
        body["logit_bias"] = {str(id): bias for id, bias in body["logit_bias"].items()}
    return _dumps(body)


def _score_body(items: Sequence[ScoreItem]) -> dict[str, Any]:
    return {"items": [_score_item(item) for item in items]}


def _score_item(item: ScoreItem) -> dict[str, Any]:
    body = {"prompt": _plain(item.prompt), "logprobs": item.logprobs}
    if item.continuation is not None:
        body["continuation"] = _plain(item.continuation)
    return body


def _plain(value: Any) -> Any:
    return value if isinstance(value, str) else list(value)


def _part(body: Mapping[str, Any]) -> Part:
    summary = body.get("summary")
    return Part(
        deltas=tuple(_delta(delta) for delta in body["deltas"]),
        prompt_tokens=_tokens(body.get("prompt_tokens", ())),
        summary=None if summary is None else _summary(summary),
    )


def _delta(body: Mapping[str, Any]) -> Delta:
    return Delta(
        **{
            **body,
            "token_ids": tuple(body["token_ids"]),
            "tokens": _tokens(body.get("tokens", ())),
        }
    )


def _summary(body: Mapping[str, Any]) -> Summary:
    return Summary(**{**body, "timings": Timings(**body["timings"])})


def _tokens(tokens: Sequence[Mapping[str, Any]]) -> tuple[Token, ...]:
    return tuple(
        Token(
            *(token["id"], token["text"], token["logprob"]),
            tuple(TopToken(**top) for top in token.get("top", ())),
        )
        for token in tokens
    )


def _scores(answer: Sequence[Mapping[str, Any]]) -> Scores:
    return [
        _failure(score["error"])
        if "error" in score
        else Score(**{**score, "tokens": _tokens(score["tokens"])})
        for score in answer
    ]


def _ids(answer: Mapping[str, Any]) -> list[int]:
    ids: list[int] = answer["tokens"]
    return ids


def _info(answer: Mapping[str, Any]) -> Info:
    [card] = answer["data"]
    provenance = {**card["provenance"], "same_weights": tuple(card["provenance"]["same_weights"])}
    return Info(
        model=card["id"],
        aliases=tuple(card["aliases"]),
        fingerprint=card["system_fingerprint"],
        limits=Limits(**card["limits"]),
        **provenance,
    )
