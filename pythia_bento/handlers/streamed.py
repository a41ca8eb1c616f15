"""The answer to one prompt while it is being made: what each step brought, and a summary."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import TypedDict

from pythia_bento.engine.logprobs import PromptLogprobs, TokenLogprob
from pythia_bento.engine.outputs import FinishReason, Outputs, SequenceOutput, collect, raise_error
from pythia_bento.engine.params import Request, new_request_id
from pythia_bento.engine.tokenizer import Tokenizer
from pythia_bento.handlers.changed import changed, without_tensors
from pythia_bento.handlers.requests import best, fingerprint, make_request, with_seed
from pythia_bento.protocol.bodies import GenerateStreamRequest
from pythia_bento.protocol.sampling import Sampling
from pythia_bento.runtime.served import Served
from pythia_bento.runtime.streams import AsyncStream
from pythia_bento.runtime.turns import Turns
from pythia_bento.telemetry.request_timings import Phases


class ShownAlternative(TypedDict):
    """A token that might have stood in another's place."""

    id: int
    text: str
    logprob: float


class ShownToken(ShownAlternative, total=False):
    """A token, with its alternatives where they were asked for."""

    top: list[ShownAlternative]


class _Continuation(TypedDict):
    text: str
    token_ids: list[int]
    finish_reason: FinishReason | None
    stop_reason: str | int | None


class ShownOutput(_Continuation, total=False):
    """A continuation, with its tokens where log-probabilities were asked for."""

    tokens: list[ShownToken]


class ShownDelta(ShownOutput):
    """What a step added to one of the continuations."""

    index: int


class ShownSummary(TypedDict):
    """What is known at the end."""

    model: str
    fingerprint: str
    seed: int | None  # what was sampled with; None where neither given nor needed
    num_prompt_tokens: int
    num_cached_tokens: int
    num_completion_tokens: int
    timings: Phases


class _Part(TypedDict):
    deltas: list[ShownDelta]


class AnswerPart(_Part, total=False):
    """What a step brought."""

    prompt_tokens: list[ShownToken]  # with the first deltas, where they were asked for
    summary: ShownSummary  # with the last ones


class StreamedAnswer:
    """Turns the outputs of one request into parts, in the names that all transports use."""

    def __init__(self, served: Served, asked: Request, body: Sampling, stream: AsyncStream) -> None:
        """``stream`` has the outputs of ``asked`` alone; whoever reads it closes it."""
        self._served = served
        self._asked = asked
        self._body = body
        self.stream = stream
        self._held: Outputs | None = [] if asked.n > body.n else None  # which are best?

    @classmethod
    async def begin(
        cls, served: Served, body: GenerateStreamRequest, timeout: float | None = None
    ) -> StreamedAnswer:
        """Queue the request; raises what refuses it."""
        body = with_seed(body, served)
        asked = await make_request(served, new_request_id(), body.prompt, body)
        if body.interventions:
            asked = await changed(asked, await without_tensors(served, body.interventions))
        return cls(served, asked, body, await served.submit([asked], timeout))

    async def part(self, outputs: Outputs) -> AnswerPart | None:
        """What the stream brought just now; the last part has the summary.

        None while continuations are made of which the best are not known. Raises what ended a
        sequence.
        """
        for output in outputs:
            raise_error(output)
        if self._held is not None:
            self._held += outputs
            if not self.stream.has_ended:
                return None
            outputs = await self._best(self._held)
        return await self._part(outputs)

    async def _best(self, held: Outputs) -> Outputs:
        [answers] = collect([self._asked], held)
        prompt_logprobs = answers[0].prompt_logprobs
        return [
            replace(answer, index=index, prompt_logprobs=None if index else prompt_logprobs)
            for index, answer in enumerate(await best(answers, self._body))
        ]

    async def _part(self, outputs: Outputs) -> AnswerPart:
        tokenizer = self._served.tokenizer
        part: AnswerPart = {"deltas": []}
        for output in outputs:
            shown = await shown_output(tokenizer, output)
            part["deltas"].append({"index": output.index, **shown})
            if output.index == 0 and (scored := output.prompt_logprobs) is not None:
                part["prompt_tokens"] = await shown_prompt(tokenizer, scored)
        if self.stream.has_ended:
            part["summary"] = self._summary()
        return part

    def _summary(self) -> ShownSummary:
        [timings] = self.stream.timings
        return {
            "model": self._served.info.id,
            "fingerprint": fingerprint(self._served, [self._asked]),
            "seed": self._body.seed,
            "num_prompt_tokens": len(self._asked.prompt),
            "num_cached_tokens": timings.num_cached_tokens,
            "num_completion_tokens": timings.num_generated,
            "timings": timings.phases(),
        }


async def shown_output(tokenizer: Tokenizer, output: SequenceOutput) -> ShownOutput:
    """What is known about a continuation."""
    shown: ShownOutput = {
        "text": output.text,
        "token_ids": output.token_ids,
        "finish_reason": output.finish_reason,
        "stop_reason": output.stop_reason,
    }
    if output.logprobs is not None:
        shown["tokens"] = await shown_tokens(tokenizer, output.logprobs)
    return shown


async def shown_tokens(tokenizer: Tokenizer, tokens: Iterable[TokenLogprob]) -> list[ShownToken]:
    """Each with all alternatives that were asked for."""
    turns, shown = Turns(), []
    for token in tokens:
        shown.append(_shown_token(tokenizer, token))
        await turns.take()
    return shown


async def shown_prompt(tokenizer: Tokenizer, scored: PromptLogprobs) -> list[ShownToken]:
    """The same of a prompt."""
    if scored.num_top:
        return await shown_tokens(tokenizer, scored)
    ids = scored.ids.tolist()
    rows = zip(ids, tokenizer.token_texts(ids), scored.values.tolist(), strict=True)
    return [{"id": id, "text": text, "logprob": logprob} for id, text, logprob in rows]


def _shown_token(tokenizer: Tokenizer, token: TokenLogprob) -> ShownToken:
    """A token with its log-probability and alternatives."""
    shown: ShownToken = {
        "id": token.token_id,
        "text": tokenizer.token_text(token.token_id),
        "logprob": token.logprob,
    }
    if token.top:
        shown["top"] = [
            {"id": id, "text": tokenizer.token_text(id), "logprob": logprob}
            for id, logprob in token.top
        ]
    return shown
