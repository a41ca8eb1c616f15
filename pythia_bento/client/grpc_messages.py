"""What is said over gRPC: messages of ``pythia.v1`` out and back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from google.protobuf.message import DecodeError
from google.rpc.error_details_pb2 import ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status

from pythia_bento.client.failures import BY_CODE, BY_GRPC_CODE, failure
from pythia_bento.client.grpc_fields import made, prompt_of, sampling_of
from pythia_bento.client.grpc_specs import put_all
from pythia_bento.client.grpc_sweep import FINISH_REASONS, events
from pythia_bento.client.inside import Asked
from pythia_bento.client.transport import Operation
from pythia_bento.errors import InvalidRequest, PythiaError
from pythia_bento.protocol.generated import pythia_pb2 as pb
from pythia_bento.protocol.sweep import Event, SweepItem
from pythia_bento.protocol.types import (
    Delta,
    Info,
    Limits,
    ModelState,
    Part,
    Prompt,
    Residence,
    Score,
    ScoreItem,
    Scores,
    Summary,
    Timings,
    Token,
    TopToken,
)

if TYPE_CHECKING:
    from pythia_bento.client.patches import PatchGrid
    from pythia_bento.protocol.activations import Activations

STATES: dict[int, Residence] = {
    pb.ModelState.DISK: "disk",
    pb.ModelState.LOADING: "loading",
    pb.ModelState.HOST: "host",
    pb.ModelState.DEVICE: "device",
    pb.ModelState.FAILED: "failed",
}
SWEEP_SECONDS = 86_400.0  # as the server's default: a sweep has no deadline but where it is asked
DETAILS = "grpc-status-details-bin"


def info(model: str | None) -> Operation[Info]:
    """``Info``. Raises InvalidRequest for what no message can hold."""
    return Operation("Info", made("model", pb.InfoRequest, model=model), _info)


def models() -> Operation[list[ModelState]]:
    """``Models``."""
    return Operation(
        "Models", pb.ModelsRequest(), lambda response: [_model(one) for one in response.models]
    )


def generate(prompt: Prompt, model: str | None, options: Mapping[str, Any]) -> Operation[Part]:
    """``Generate``, answered by a stream. Raises InvalidRequest for what no message can hold."""
    sampling = sampling_of({n: v for n, v in options.items() if n != "interventions"})
    request = made("model", pb.GenerateRequest, model=model)
    put_all(request, "interventions", options.get("interventions", ()))
    request.MergeFrom(pb.GenerateRequest(prompt=prompt_of("prompt", prompt), sampling=sampling))
    return Operation("Generate", request, _part)


def score(items: Sequence[ScoreItem], model: str | None) -> Operation[Scores]:
    """``Score``. Raises InvalidRequest for what no message can hold."""
    request = made("model", pb.ScoreRequest, model=model)
    request.items.extend(_score_item(item) for item in items)
    return Operation("Score", request, lambda response: [_score(r) for r in response.results])


def sweep(asked: Mapping[str, Any]) -> Operation[list[Event]]:
    """``Sweep``, answered by a stream. Raises InvalidRequest for what no message can hold."""
    request = pb.SweepRequest()
    for name, value in asked.items():
        if name == "items":
            request.items.extend(_sweep_item(item) for item in value)
        elif name == "task":
            request.MergeFrom(_task(value))
        else:
            listed = name == "steps" and not isinstance(value, str)
            value = ",".join(map(str, value)) if listed else value
            request.MergeFrom(made(name, pb.SweepRequest, **{name: value}))
    return Operation("Sweep", request, events, timeout=SWEEP_SECONDS)


def _sweep_item(item: SweepItem) -> pb.SweepItem:
    sent: pb.SweepItem = made("id", pb.SweepItem, id=item.id)
    sent.prompt.CopyFrom(prompt_of("prompt", item.prompt))
    if item.continuation is not None:
        sent.continuation.CopyFrom(prompt_of("continuation", item.continuation))
    return sent


def _task(task: Mapping[str, Any]) -> pb.SweepRequest:
    fields = {name: value for name, value in task.items() if name != "type"}
    kind = task.get("type", "score")
    if kind == "activations":
        raise InvalidRequest(
            "task.type is 'activations', which a sweep has over HTTP; over gRPC ask each "
            "checkpoint for its activations",
            param="task.type",
        )
    if kind == "generate":
        fields = {"sampling": sampling_of(fields)}
    request: pb.SweepRequest = made("task", pb.SweepRequest, **{kind: fields})
    return request


def activations(asked: Asked) -> Operation[Activations]:
    """``Activations``, answered by a stream. Raises InvalidRequest."""
    from pythia_bento.client import grpc_inside

    return grpc_inside.activations(asked)


def patch(asked: Asked) -> Operation[PatchGrid]:
    """``Patch``. Raises InvalidRequest for what no message can hold."""
    from pythia_bento.client import grpc_inside

    return grpc_inside.patch(asked)


def tokenize(text: str, model: str | None) -> Operation[list[int]]:
    """``Tokenize``. Raises InvalidRequest for what no message can hold."""
    request = made("text", pb.TokenizeRequest, text=text)
    request.MergeFrom(made("model", pb.TokenizeRequest, model=model))
    return Operation("Tokenize", request, lambda response: list(response.ids))


def detokenize(ids: Sequence[int], model: str | None) -> Operation[str]:
    """``Detokenize``. Raises InvalidRequest for what no message can hold."""
    request = made("ids", pb.DetokenizeRequest, ids=ids)
    request.MergeFrom(made("model", pb.DetokenizeRequest, model=model))
    return Operation("Detokenize", request, lambda response: str(response.text))


def refusal(error: Any) -> PythiaError:
    """What the grpc.RpcError of a finished call tells of."""
    fallback = BY_GRPC_CODE.get(error.code().name)
    message = error.details() or error.code().name
    try:
        for key, value in error.trailing_metadata() or ():
            if key == DETAILS:
                return _detailed(Status.FromString(value), message, fallback)
    except DecodeError:
        pass  # they are of something before the service
    return failure(fallback, message, None, None)


def _detailed(status: Any, message: str, fallback: type[PythiaError] | None) -> PythiaError:
    info, retry = ErrorInfo(), RetryInfo()
    for detail in status.details:
        detail.Unpack(info) or detail.Unpack(retry)
    kind = BY_CODE.get(info.reason.lower()) or fallback
    seconds = retry.retry_delay.ToNanoseconds() / 1e9 if retry.HasField("retry_delay") else None
    return failure(kind, message, info.metadata.get("param"), seconds)


def _score_item(item: ScoreItem) -> pb.ScoreItem:
    sent: pb.ScoreItem = made("logprobs", pb.ScoreItem, logprobs=item.logprobs)
    sent.MergeFrom(made("model", pb.ScoreItem, model=item.model))
    sent.prompt.CopyFrom(prompt_of("prompt", item.prompt))
    if item.continuation is not None:
        sent.continuation.CopyFrom(prompt_of("continuation", item.continuation))
    return sent


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
            id=token.id,
            text=token.text,
            logprob=token.logprob,
            top=tuple(TopToken(top.id, top.text, top.logprob) for top in token.top),
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
        seed=summary.seed if summary.HasField("seed") else None,
    )


def _score(result: pb.ScoreResult) -> Score | PythiaError:
    if result.HasField("error"):
        error = result.error
        return failure(BY_CODE.get(error.code), error.message, error.param or None, None)
    score = result.score
    return Score(score.logprob, score.num_tokens, score.is_greedy, _tokens(score.tokens))


def _model(state: pb.ModelState) -> ModelState:
    names = set(ModelState.__slots__) - {"aliases", "step", "state", "same_weights"}
    return ModelState(
        **{name: getattr(state, name) for name in names},
        aliases=tuple(state.aliases),
        step=state.step if state.HasField("step") else None,
        state=STATES[state.state],
        same_weights=tuple(state.same_weights),
    )


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
