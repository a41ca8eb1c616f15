"""Logits of some tokens, beside what is generated."""

from __future__ import annotations

from collections.abc import Sequence

from pythia_bento.engine.capture import layout
from pythia_bento.engine.outputs import SequenceOutput, num_inputs, raise_error
from pythia_bento.engine.params import Request
from pythia_bento.errors import InvalidRequest
from pythia_bento.handlers.captures import Captures
from pythia_bento.handlers.inside_answer import captured
from pythia_bento.handlers.named_tensors import NamedTensors
from pythia_bento.protocol.inside import MAX_JSON_NUMBERS
from pythia_bento.protocol.interventions import LogitsOf
from pythia_bento.runtime.served import Served

Rows = list[list[float]]


async def with_logits(
    served: Served,
    requests: Sequence[Request],
    logits: LogitsOf | None,
    timeout: float | None = None,
) -> tuple[list[list[SequenceOutput]], list[Rows] | None]:
    """What ``served.complete`` answers, and for each request a row of logits for each position.

    Raises what refuses the requests, and what ended one of them.
    """
    if logits is None:
        return await served.complete(requests, timeout), None
    captures = await Captures.of(served, (), logits, "float32", NamedTensors(None))
    wanted = [await captures.onto(request) for request in requests]
    if (count := captures.numbers(wanted)) > MAX_JSON_NUMBERS:
        raise InvalidRequest(
            f"logits asks for {count:,} numbers, but the limit is {MAX_JSON_NUMBERS:,}",
            param="logits",
        )
    captures.check_size(wanted)
    with await served.capture(wanted, timeout) as found:
        outputs = [[raise_error(output)] for [output] in found.outputs]
        rows = [
            logit_rows(served, request, output, memory)
            for request, [output], memory in zip(wanted, outputs, found.memory, strict=True)
        ]
        return outputs, rows


def logit_rows(
    served: Served, request: Request, output: SequenceOutput, memory: memoryview
) -> Rows:
    """Those of the last of a request's captures: its only one."""
    assert request.capture is not None and request.capture.logits is not None
    [[placed]], _ = layout(request.capture, served.config, request.most_inputs)
    positions = request.capture.logits.positions
    rows: Rows = captured(placed, memory, positions, num_inputs(request, output)).tolist()
    return rows
