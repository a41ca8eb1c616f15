"""Over gRPC: ``pythia.v1``."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
from google.rpc.error_details_pb2 import ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status

from pythia_bento.client.failures import BY_CODE, BY_GRPC_CODE, failure
from pythia_bento.client.options import Connection
from pythia_bento.client.transport import Scores
from pythia_bento.errors import InvalidRequest, PythiaError
from pythia_bento.protocol.generated import pythia_pb2 as pb
from pythia_bento.protocol.generated.pythia_pb2_grpc import PythiaStub
from pythia_bento.protocol.types import (
    Delta,
    FinishReason,
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

OPTIONS = (("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1))
FINISH_REASONS: dict[int, FinishReason | None] = {
    pb.FINISH_REASON_UNSPECIFIED: None,
    pb.FINISH_REASON_STOP: "stop",
    pb.FINISH_REASON_LENGTH: "length",
}
DETAILS = "grpc-status-details-bin"


class GrpcTransport:
    """Blocking calls."""

    def __init__(self, connection: Connection) -> None:
        credentials = _credentials(connection)
        self._channel = (
            grpc.insecure_channel(connection.address, OPTIONS)
            if credentials is None
            else grpc.secure_channel(connection.address, credentials, OPTIONS)
        )
        self._stub: Any = PythiaStub(self._channel)
        self._metadata = tuple(connection.headers().items())

    def close(self) -> None:
        self._channel.close()

    def info(self, timeout: float) -> Info:
        return _info(self._call(self._stub.Info, pb.InfoRequest(), timeout))

    def stream(self, prompt: Prompt, options: dict[str, Any], timeout: float) -> Iterator[Part]:
        request = _generate_request(prompt, options)
        call = self._stub.Generate(request, timeout=timeout, metadata=self._metadata)
        try:
            with _translated():
                for response in call:
                    yield _part(response)
        finally:
            call.cancel()  # harmless at the end

    def score(self, items: Sequence[ScoreItem], timeout: float) -> Scores:
        return _scores(self._call(self._stub.Score, _score_request(items), timeout))

    def tokenize(self, text: str, timeout: float) -> list[int]:
        request = _made("text", pb.TokenizeRequest, text=text)
        return list(self._call(self._stub.Tokenize, request, timeout).ids)

    def detokenize(self, ids: Sequence[int], timeout: float) -> str:
        request = _made("ids", pb.DetokenizeRequest, ids=ids)
        return str(self._call(self._stub.Detokenize, request, timeout).text)

    def _call(self, method: Any, request: Any, timeout: float) -> Any:
        with _translated():
            return method(request, timeout=timeout, metadata=self._metadata)


class AsyncGrpcTransport:
    """The same for coroutines; made in the event loop that uses it."""

    def __init__(self, connection: Connection) -> None:
        credentials = _credentials(connection)
        self._channel = (
            grpc.aio.insecure_channel(connection.address, OPTIONS)
            if credentials is None
            else grpc.aio.secure_channel(connection.address, credentials, OPTIONS)
        )
        self._stub: Any = PythiaStub(self._channel)
        self._metadata = tuple(connection.headers().items())

    async def close(self) -> None:
        await self._channel.close()

    async def info(self, timeout: float) -> Info:
        return _info(await self._call(self._stub.Info, pb.InfoRequest(), timeout))

    async def stream(
        self, prompt: Prompt, options: dict[str, Any], timeout: float
    ) -> AsyncIterator[Part]:
        request = _generate_request(prompt, options)
        call = self._stub.Generate(request, timeout=timeout, metadata=self._metadata)
        try:
            with _translated():
                async for response in call:
                    yield _part(response)
        finally:
            call.cancel()  # harmless at the end

    async def score(self, items: Sequence[ScoreItem], timeout: float) -> Scores:
        return _scores(await self._call(self._stub.Score, _score_request(items), timeout))

    async def tokenize(self, text: str, timeout: float) -> list[int]:
        request = _made("text", pb.TokenizeRequest, text=text)
        return list((await self._call(self._stub.Tokenize, request, timeout)).ids)

    async def detokenize(self, ids: Sequence[int], timeout: float) -> str:
        request = _made("ids", pb.DetokenizeRequest, ids=ids)
        return str((await self._call(self._stub.Detokenize, request, timeout)).text)

    async def _call(self, method: Any, request: Any, timeout: float) -> Any:
        with _translated():
            return await method(request, timeout=timeout, metadata=self._metadata)


def _credentials(connection: Connection) -> grpc.ChannelCredentials | None:
    if connection.scheme == "grpc":
        return None
    tls = connection.tls
    ca, key, cert = (
        None if path is None else Path(path).read_bytes() for path in (tls.ca, tls.key, tls.cert)
    )
    return grpc.ssl_channel_credentials(ca, key, cert)


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except grpc.RpcError as error:
        raise _failure(error) from None


def _failure(error: Any) -> PythiaError:
    """``error`` is a grpc.RpcError of a finished call."""
    fallback = BY_GRPC_CODE.get(error.code().name)
    message = error.details() or error.code().name
    for key, value in error.trailing_metadata() or ():
        if key == DETAILS:
            return _detailed(Status.FromString(value), message, fallback)
    return failure(fallback, message, None, None)


def _detailed(status: Any, message: str, fallback: type[PythiaError] | None) -> PythiaError:
    info, retry = ErrorInfo(), RetryInfo()
    for detail in status.details:
        detail.Unpack(info) or detail.Unpack(retry)
    kind = BY_CODE.get(info.reason.lower()) or fallback
    seconds = retry.retry_delay.ToNanoseconds() / 1e9 if retry.HasField("retry_delay") else None
    return failure(kind, message, info.metadata.get("param"), seconds)


def _made(field: str, kind: Any, **fields: Any) -> Any:
    """A message; what cannot be in it is refused here as the server refuses it over HTTP."""
    try:
        return kind(**fields)
    except (TypeError, ValueError) as error:
        raise InvalidRequest(f"{field} cannot be sent: {error}", param=field) from None


def _prompt(name: str, prompt: Prompt) -> pb.Prompt:
    content = {"text": prompt} if isinstance(prompt, str) else {"tokens": {"ids": prompt}}
    made: pb.Prompt = _made(name, pb.Prompt, **content)
    return made


def _generate_request(prompt: Prompt, options: Mapping[str, Any]) -> pb.GenerateRequest:
    sampling = pb.Sampling()
    for name, value in options.items():
        sampling.MergeFrom(_made(name, pb.Sampling, **{name: _sent(name, value)}))
    return pb.GenerateRequest(prompt=_prompt("prompt", prompt), sampling=sampling)


def _sent(name: str, value: Any) -> Any:
    if name == "stop" and isinstance(value, str):
        return [value]
    if name == "seed" and isinstance(value, int) and 2**63 <= value < 2**64:
        return value - 2**64  # the same modulo 2^64
    return value


def _score_request(items: Sequence[ScoreItem]) -> pb.ScoreRequest:
    return pb.ScoreRequest(items=[_score_item(item) for item in items])


def _score_item(item: ScoreItem) -> pb.ScoreItem:
    made: pb.ScoreItem = _made("logprobs", pb.ScoreItem, logprobs=item.logprobs)
    made.prompt.CopyFrom(_prompt("prompt", item.prompt))
    if item.continuation is not None:
        made.continuation.CopyFrom(_prompt("continuation", item.continuation))
    return made


def _part(response: pb.GenerateResponse) -> Part:
    return Part(
        deltas=tuple(_delta(delta) for delta in response.deltas),
        prompt_tokens=_tokens(response.prompt_tokens),
        summary=_summary(response.summary) if response.HasField("summary") else None,
    )


def _delta(delta: pb.Delta) -> Delta:
    stopped_by = delta.WhichOneof("stop_reason")
    return Delta(
        index=delta.index,
        text=delta.text,
        token_ids=tuple(delta.token_ids),
        tokens=_tokens(delta.tokens),
        finish_reason=FINISH_REASONS[delta.finish_reason],
        stop_reason=None if stopped_by is None else getattr(delta, stopped_by),
    )


def _tokens(tokens: Iterable[pb.Token]) -> tuple[Token, ...]:
    return tuple(
        Token(
            *(token.id, token.text, token.logprob),
            tuple(TopToken(top.id, top.text, top.logprob) for top in token.top),
        )
        for token in tokens
    )


def _summary(summary: pb.Summary) -> Summary:
    times = summary.timings
    return Summary(
        model=summary.model,
        fingerprint=summary.fingerprint,
        num_prompt_tokens=summary.num_prompt_tokens,
        num_cached_tokens=summary.num_cached_tokens,
        num_completion_tokens=summary.num_completion_tokens,
        timings=Timings(times.queue, times.prefill, times.decode, times.total),
    )


def _scores(response: pb.ScoreResponse) -> Scores:
    return [_score(result) for result in response.results]


def _score(result: pb.ScoreResult) -> Score | PythiaError:
    if result.HasField("error"):
        error = result.error
        return failure(BY_CODE.get(error.code), error.message, error.param or None, None)
    score = result.score
    return Score(score.logprob, score.num_tokens, score.is_greedy, _tokens(score.tokens))


def _info(response: pb.InfoResponse) -> Info:
    limits = {name: getattr(response.limits, name) for name in Limits.__slots__}
    names = set(Info.__slots__) - {"aliases", "commit", "files", "same_weights", "limits"}
    return Info(
        **{name: getattr(response, name) for name in names},
        aliases=tuple(response.aliases),
        commit=response.commit or None,
        files=dict(response.files),
        same_weights=tuple(response.same_weights),
        limits=Limits(**limits),
    )
