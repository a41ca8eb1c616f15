"""``activations``: what a model computes of some prompts, perhaps with parts of it changed."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

import numpy as np

from pythia_bento.engine.capture import Capture, Tap
from pythia_bento.engine.outputs import raise_error
from pythia_bento.engine.params import Request, SamplingParams, new_request_id
from pythia_bento.engine.validate import alternatives_of, check_alternatives, check_sequences
from pythia_bento.errors import InvalidRequest
from pythia_bento.handlers.captures import Captures
from pythia_bento.handlers.changed import digested
from pythia_bento.handlers.changes import Borrowed, Change, Changes
from pythia_bento.handlers.inside_answer import Answer, rows_of
from pythia_bento.handlers.named_tensors import NamedTensors
from pythia_bento.handlers.requests import make_request, of_field, with_seed
from pythia_bento.protocol.inside import MAX_JSON_NUMBERS, ActivationsRequest
from pythia_bento.protocol.tensors import Stored
from pythia_bento.runtime.served import Served
from pythia_bento.runtime.turns import Turns


async def activations(
    served: Served,
    body: ActivationsRequest,
    tensors: Mapping[str, Stored] | None = None,
    timeout: float | None = None,
) -> Answer:
    """All of the answer, whose memory is taken until it is closed.

    Raises what refuses the request, and what ended one of its prompts.
    """
    asked = await _Asked.of(with_seed(body, served), served, NamedTensors(tensors or {}))
    until = Until(served, timeout)
    requests = await asked.changed_requests(until)
    found = await served.capture(requests, until.left())
    try:
        outputs = [raise_error(output) for [output] in found.outputs]
        return await Answer.of(served, asked.body, requests, outputs, found.memory, found.close)
    except BaseException:
        found.close()
        raise


class Until:
    """When all stages of a request have to be done."""

    def __init__(self, served: Served, timeout: float | None) -> None:
        longest = served.settings.request_timeout
        self._end = time.monotonic() + (longest if timeout is None else min(timeout, longest))

    def left(self) -> float:
        """Seconds."""
        return max(self._end - time.monotonic(), 0)


class _Asked:
    """A body on its way to the engine."""

    def __init__(
        self,
        body: ActivationsRequest,
        served: Served,
        requests: list[Request],
        changes: list[list[Change]],
    ) -> None:
        self.body = body
        self._served = served
        self._requests = requests
        self._changes = changes  # of each

    @classmethod
    async def of(cls, body: ActivationsRequest, served: Served, tensors: NamedTensors) -> _Asked:
        """Raises what refuses it; nothing is asked of the engine before all is right."""
        captures = await Captures.of(served, body.capture, body.logits, body.dtype, tensors)
        captures.check_prompts(len(body.prompts))
        changes = await Changes.of(served, body.interventions, tensors)
        changes.check_prompts(len(body.prompts))
        requests = [await captures.onto(one) for one in await _requests(body, served)]
        captures.check_size(requests)
        if body.format == "json" and (count := captures.numbers(requests)) > MAX_JSON_NUMBERS:
            raise InvalidRequest(
                f"format json holds up to {MAX_JSON_NUMBERS:,} numbers, but capture asks for "
                f"{count:,}; safetensors has no such limit",
                param="format",
            )
        turns, of_prompts = Turns(), []
        for number in range(len(requests)):
            of_prompts.append(await changes.of_prompt(number, requests))
            await turns.take()
        return cls(body, served, requests, of_prompts)

    async def changed_requests(self, until: Until) -> list[Request]:
        """With their interventions: what they take of other prompts is computed first."""
        found: dict[tuple[int, Tap], np.ndarray] = {}
        for sources in _stages(self._changes):
            await self._compute(sources, found, until)
        return [await self._changed(number, found) for number in range(len(self._requests))]

    async def _compute(
        self,
        sources: Mapping[int, Collection[Tap]],
        found: dict[tuple[int, Tap], np.ndarray],
        until: Until,
    ) -> None:
        """What is taken of some prompts, copied: the memory is back before more is asked for."""
        requests = [
            replace(
                await self._changed(number, found),
                request_id=new_request_id(),
                params=SamplingParams(max_tokens=0),
                capture=Capture(tuple(taps)),
            )
            for number, taps in sources.items()
        ]
        config = self._served.config
        with await self._served.capture(requests, until.left()) as computed:
            for index, number in enumerate(sources):
                raise_error(computed.outputs[index][0])
                for tap, rows in rows_of(requests[index], computed.memory[index], config):
                    found[number, tap] = rows

    async def _changed(self, number: int, found: Mapping[tuple[int, Tap], np.ndarray]) -> Request:
        items = [
            one.with_values(found[one.source, one.tap]) if isinstance(one, Borrowed) else one
            for one in self._changes[number]
        ]
        return replace(self._requests[number], interventions=await digested(items))


async def _requests(body: ActivationsRequest, served: Served) -> list[Request]:
    check_sequences(len(body.prompts), 1, served.limits)
    id, requests, alternatives, turns = new_request_id(), [], 0, Turns()
    for number, prompt in enumerate(body.prompts):
        try:
            request = await make_request(served, f"{id}-{number}", prompt, body)
            served.check(request)
        except InvalidRequest as error:
            raise of_field(error, f"prompts[{number}]") from None
        check_alternatives(alternatives := alternatives + alternatives_of(request))
        requests.append(request)
        await turns.take()
    return requests


def _stages(changes: Sequence[Sequence[Change]]) -> list[dict[int, dict[Tap, None]]]:
    """What is to be computed of which prompts before the others, in stages.

    A prompt's sources are before it, so its stage is known when it is reached.
    """
    borrowed = [[one for one in own if isinstance(one, Borrowed)] for own in changes]
    stage_of: list[int] = []
    for own in borrowed:
        stage_of.append(max((stage_of[one.source] + 1 for one in own), default=0))
    stages: list[dict[int, dict[Tap, None]]] = [{} for _ in range(max(stage_of, default=0))]
    for one in (one for own in borrowed for one in own):
        stages[stage_of[one.source]].setdefault(one.source, {})[one.tap] = None
    return stages
