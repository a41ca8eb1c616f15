"""Activations and patches in the messages of ``pythia.v1``, out and back. Needs numpy."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pythia_bento.client.grpc_fields import made, prompt_of, sampling_of, sending
from pythia_bento.client.grpc_specs import LISTS, put_all, spec_of
from pythia_bento.client.inside import Asked
from pythia_bento.client.patches import PatchGrid, grid
from pythia_bento.client.transport import Operation
from pythia_bento.protocol import tensors
from pythia_bento.protocol.activations import Activations, read
from pythia_bento.protocol.generated import pythia_pb2 as pb

_PLAIN = ("model", "dtype")


def activations(asked: Asked) -> Operation[Activations]:
    """``Activations``, answered by a stream. Raises InvalidRequest."""
    request = pb.ActivationsRequest()
    if asked.tensors:
        request.tensors = b"".join(tensors.write(asked.tensors))
    options = {}
    for name, value in asked.fields.items():
        if name in _PLAIN:
            request.MergeFrom(made(name, pb.ActivationsRequest, **{name: value}))
        elif name in LISTS:
            put_all(request, name, value)
        elif name == "logits":
            request.logits.CopyFrom(spec_of("logits", pb.LogitsOf, value))
        else:
            options[name] = value
    request.sampling.CopyFrom(sampling_of(options))
    return Operation("Activations", request, lambda parts: read(_file(parts), asked.names))


def patch(asked: Asked) -> Operation[PatchGrid]:
    """``Patch``. Raises InvalidRequest."""
    request = pb.PatchRequest()
    for name, value in asked.fields.items():
        if name in ("clean", "corrupted"):
            getattr(request, name).CopyFrom(prompt_of(name, value))
        elif name == "metric":
            with sending(name):
                request.metric.CopyFrom(_metric(value))
        else:
            request.MergeFrom(made(name, pb.PatchRequest, **{name: value}))
    return Operation("Patch", request, lambda response: _grid(response, asked.fields))


def _file(parts: Iterable[pb.ActivationsPart]) -> bytearray:
    """All data, end to end; raises ValueError where some is missing."""
    header, file, is_whole = pb.TensorsHeader(), bytearray(), False
    for part in parts:
        kind = part.WhichOneof("part")
        if kind == "header":
            header = part.header
        file += part.data
        is_whole = kind == "summary"
    if not is_whole or len(file) != header.nbytes:
        raise ValueError(f"{len(file)} bytes of {header.nbytes} came")
    return file


def _grid(response: pb.PatchResponse, asked: Mapping[str, Any]) -> PatchGrid:
    names = ("model", "clean", "corrupted", "layers", "positions", "heads", "tokens")
    told = {name: getattr(response, name) for name in names}
    values = [list(row.numbers) for row in response.values]
    return grid({**told, "values": values, "system_fingerprint": response.fingerprint}, asked)


def _metric(metric: Mapping[str, Any]) -> pb.Metric:
    [(kind, what)] = metric.items()
    if kind == "logit_diff":
        first, second = map(_token, what)
        return pb.Metric(logit_diff=pb.LogitDiff(first=first, second=second))
    token: dict[str, Any] = {kind: _token(what)}
    return pb.Metric(**token)


def _token(token: int | str) -> pb.OneToken:
    return pb.OneToken(text=token) if isinstance(token, str) else pb.OneToken(id=token)
