"""Between protobuf's messages and the schemas and outputs that all transports share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from operator import add
from typing import Any

from google.protobuf.message import Message
from typing_extensions import override

from pythia_bento.engine.logprobs import PromptLogprobs
from pythia_bento.engine.residents import State
from pythia_bento.engine.tokenizer import Tokenizer
from pythia_bento.handlers.info import limits
from pythia_bento.handlers.models import shown_model
from pythia_bento.handlers.per_id import per_id
from pythia_bento.handlers.streamed import shown_prompt
from pythia_bento.protocol.bodies import GenerateRequest
from pythia_bento.protocol.generated import pythia_pb2 as pb
from pythia_bento.protocol.parsing import parse
from pythia_bento.runtime.served import Served
from pythia_bento.runtime.served_models import ModelState
from pythia_bento.runtime.turns import Turns

FINISH_REASONS = {
    None: pb.FINISH_REASON_UNSPECIFIED,
    "stop": pb.FINISH_REASON_STOP,
    "length": pb.FINISH_REASON_LENGTH,
}


STATES: dict[State, pb.ModelState.State] = {
    "disk": pb.ModelState.DISK,
    "loading": pb.ModelState.LOADING,
    "host": pb.ModelState.HOST,
    "device": pb.ModelState.DEVICE,
    "failed": pb.ModelState.FAILED,
}


def generate_body(
    request: pb.GenerateRequest, interventions: Sequence[Mapping[str, Any]] = ()
) -> GenerateRequest:
    """Raises InvalidRequest, with the words that HTTP's clients read too."""
    fields = sampling_of(request.sampling)
    if request.HasField("prompt"):
        fields["prompt"] = prompt_of(request.prompt)
    if interventions:
        fields["interventions"] = list(interventions)
    return parse(GenerateRequest, fields)


def sampling_of(sampling: pb.Sampling) -> dict[str, Any]:
    """What was set, as JSON would have it."""
    fields = fields_of(sampling)
    if "logit_bias" in fields:  # JSON has only strings for keys
        fields["logit_bias"] = {str(id): bias for id, bias in fields["logit_bias"].items()}
    return fields


def score_body(item: pb.ScoreItem) -> Any:
    """One item as JSON would have it; what is wrong with it is found later, with the others."""
    body: dict[str, Any] = {"logprobs": item.logprobs, "model": item.model or None}
    for name in ("prompt", "continuation"):
        if item.HasField(name):
            body[name] = prompt_of(getattr(item, name))
    return body


class ScoreBodies(Sequence[Any]):
    """Each item's body when it is asked for: thousands of lists of ids are not there at once.

    Python would look through all of them for cycles, for 50 ms in which all threads stand still.
    """

    def __init__(self, items: Sequence[pb.ScoreItem]) -> None:
        self._items = items

    @override
    def __len__(self) -> int:
        return len(self._items)

    @override
    def __getitem__(self, place: Any) -> Any:
        return score_body(self._items[place])


def generate_part(part: Mapping[str, Any]) -> pb.GenerateResponse:
    """A part of an answer."""
    changed: dict[str, Any] = {"deltas": [_delta(**delta) for delta in part["deltas"]]}
    if (summary := part.get("summary")) and (summary["seed"] or 0) >= 2**63:
        changed["summary"] = {**summary, "seed": summary["seed"] - 2**64}  # the same, signed
    return pb.GenerateResponse(**{**part, **changed})


async def score_results(results: Iterable[Mapping[str, Any]]) -> pb.ScoreResponse:
    """HTTP's results have the same fields, but for ``tokens``, which ``scored_tokens`` made."""
    response, turns = pb.ScoreResponse(), Turns()
    for result in results:
        _put_score(result, response.results.add())
        await turns.take()
    return response


def info(served: Served) -> pb.InfoResponse:
    """What is served."""
    response = pb.InfoResponse(
        model=served.info.id,
        aliases=served.info.aliases,
        fingerprint=served.info.fingerprint,
        limits=pb.Limits(**asdict(limits(served))),
    )
    if served.info.provenance is not None:
        provenance = asdict(served.info.provenance)
        provenance["commit"] = provenance["commit"] or ""
        response.MergeFrom(pb.InfoResponse(**provenance))
    return response


async def models(states: Iterable[ModelState]) -> pb.ModelsResponse:
    """What may be asked for."""
    response, turns = pb.ModelsResponse(), Turns()
    for state in states:
        response.models.append(_model(state))
        await turns.take()
    return response


def _model(state: ModelState) -> pb.ModelState:
    shown: dict[str, Any] = {**shown_model(state), "state": STATES[state.residency.state]}
    del shown["tokens_seen"]  # it follows from the step
    return pb.ModelState(model=state.info.id, fingerprint=state.info.fingerprint, **shown)


def prompt_of(prompt: pb.Prompt) -> str | list[int]:
    """As JSON would have it."""
    # Where there is neither, the list is empty, which the schemas refuse.
    return prompt.text if prompt.HasField("text") else list(prompt.tokens.ids)


def _delta(finish_reason: str | None, stop_reason: str | int | None, **rest: Any) -> pb.Delta:
    delta = pb.Delta(finish_reason=FINISH_REASONS[finish_reason], **rest)
    if isinstance(stop_reason, str):
        delta.stop_string = stop_reason
    elif stop_reason is not None:
        delta.stop_token_id = stop_reason
    return delta


async def scored_tokens(tokenizer: Tokenizer, scored: PromptLogprobs) -> bytes:
    """A Score that has nothing but its tokens.

    A token's bytes end in those of its log-probability, and all before them is the same for an id:
    to put them together is many times quicker than to make a message of each token.
    """
    if scored.num_top:
        message = pb.Score(tokens=await shown_prompt(tokenizer, scored))
        return bytes(message.SerializeToString())
    heads, values = _heads(tokenizer), scored.values.astype("<f8").tobytes()
    ends = [values[place : place + 8] for place in range(0, len(values), 8)]
    return b"".join(map(add, [heads[id] for id in scored.ids.tolist()], ends))


@per_id
def _heads(tokenizer: Tokenizer, id: int) -> bytes:
    """A Score with one token of an id, up to its log-probability."""
    # Fields are written in the order of their numbers; one that is 0 would be left out.
    token = pb.Token(id=id, text=tokenizer.token_text(id), logprob=1.0)
    return bytes(pb.Score(tokens=[token]).SerializeToString()[:-8])


def _put_score(result: Mapping[str, Any], into: pb.ScoreResult) -> None:
    if "error" in result:
        into.error.MergeFrom(pb.Error(**_error(result["error"])))
        return
    into.score.MergeFromString(result["tokens"])
    for name in ("logprob", "num_tokens", "is_greedy"):
        setattr(into.score, name, result[name])


def _error(body: Mapping[str, Any]) -> dict[str, str]:
    return {name: body[name] or "" for name in ("code", "message", "param")}


def fields_of(message: Message) -> dict[str, Any]:
    """What was set, as JSON would have it."""
    return {field.name: _plain(value) for field, value in message.ListFields()}


def _plain(value: Any) -> Any:
    if isinstance(value, Message):
        return fields_of(value)
    if isinstance(value, Mapping):
        return dict(value)
    return list(value) if hasattr(value, "extend") else value
