"""From a completion request to engine requests, and from outputs to OpenAI's answers."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Any

import orjson
from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from pythia_bento.engine.outputs import Outputs, SequenceOutput, collect, raise_error
from pythia_bento.engine.params import Request, new_request_id
from pythia_bento.engine.validate import alternatives_of, check_alternatives, check_sequences
from pythia_bento.errors import PythiaError
from pythia_bento.handlers.changed import changed, without_tensors
from pythia_bento.handlers.logits import Rows, with_logits
from pythia_bento.handlers.requests import best, fingerprint, make_request, with_seed
from pythia_bento.protocol.bodies import CompletionRequest, StreamOptions
from pythia_bento.protocol.errors import error_body
from pythia_bento.protocol.parsing import parse
from pythia_bento.runtime.served import Served, loaded
from pythia_bento.runtime.turns import Turns, freed
from pythia_bento.server.http.body import read_json
from pythia_bento.server.http.choice import Choice, EchoedPrompt
from pythia_bento.server.http.json_answer import PIECE_BYTES, Joiner, Pieces
from pythia_bento.server.http.sse import DONE, EventStream, event

OBFUSCATED = 128  # bytes: events are filled to a multiple of this, not at random: equal bits


async def completions(request: HttpRequest) -> Response:
    """POST ``/v1/completions``."""
    runner = loaded(request.app.state.runner)
    body = parse(CompletionRequest, await read_json(request, runner.limits))
    return await answer(Completion, body, await runner.served(body.model))


async def answer(kind: type[Completion], body: CompletionRequest, served: Served) -> Response:
    """Ask the engine; raises what refuses the request."""
    body = with_seed(body, served)
    completion = await kind.create(body, served)
    if body.logits is not None:
        answers, logits = await with_logits(served, completion.requests, body.logits)
        return await completion.plain([answer for [answer] in answers], logits)
    stream = await served.submit(completion.requests)
    if body.stream:
        return EventStream(completion.events(stream), stream)
    try:
        return await completion.plain(await stream.all())
    finally:
        stream.close()


class Completion:
    """One request of a client: some prompts, each with ``n`` choices."""

    id_prefix = "cmpl"
    object_names = "text_completion", "text_completion"  # of an answer, and of a stream's event
    choice_class = Choice

    def __init__(
        self,
        body: CompletionRequest,
        id: str,
        requests: list[Request],
        prompts: list[EchoedPrompt],
        served: Served,
    ) -> None:
        self.body = body
        self.id = id
        self.requests = requests
        self._prompts = prompts
        self._created = int(time.time())
        self._served = served
        self._numbers = {request.request_id: n for n, request in enumerate(requests)}
        self._choices: dict[int, Choice] = {}
        self._generated = 0
        self._fingerprint = fingerprint(served, requests)
        # What every event of a stream begins with: choices are the last of the fields.
        self._event_head = b"data: " + orjson.dumps(self._envelope([]))[: -len(b"]}")]
        self._event_tail = self._same_tail(body.stream_options)

    @classmethod
    async def create(cls, body: CompletionRequest, served: Served) -> Completion:
        """Tokenise the prompts; raises InvalidRequest."""
        check_sequences(len(body.prompt), body.num_sequences, served.limits)
        id = f"{cls.id_prefix}-{new_request_id()}"
        requests, prompts, alternatives, turns = [], [], 0, Turns()
        asked = body.interventions
        changes = await without_tensors(served, asked) if asked else None
        for number, written in enumerate(body.prompt):
            request = await make_request(served, f"{id}-{number}", written, body)
            if changes is not None:
                request = await changed(request, changes)
            check_alternatives(alternatives := alternatives + alternatives_of(request))
            requests.append(request)
            ids, echo = request.prompt, body.echo
            shown = await EchoedPrompt.of(served, written, ids, body) if echo else EchoedPrompt(ids)
            prompts.append(shown)
            await turns.take()
        return cls(body, id, requests, prompts, served)

    async def plain(
        self, outputs: Iterable[SequenceOutput], logits: Sequence[Rows] | None = None
    ) -> Pieces:
        """The whole answer; raises what ended a sequence. ``usage`` counts all of ``best_of``.

        ``logits`` are those of each prompt, which has one choice.
        """
        turns, joiner, separator = Turns(), Joiner(), b""
        joiner.add(orjson.dumps(self._envelope([]))[: -len(b"]}")])
        for number, answers in enumerate(collect(self.requests, map(raise_error, outputs))):
            self._generated += sum(len(answer.token_ids) for answer in answers)
            for place, answer in enumerate(await best(answers, self.body)):
                delta = await self._choice(answer, place).delta(answer)
                delta |= {} if logits is None else {"logits": logits[number]}
                joiner.add(separator + orjson.dumps(delta))
                separator = b","
                answer.prompt_logprobs = None
                if answer.logprobs:
                    await freed(answer.logprobs)
                await turns.take()
        joiner.add(b"]," + orjson.dumps({"usage": self._usage()})[1:])
        return Pieces(joiner.pieces())

    async def events(self, stream: AsyncIterator[Outputs]) -> AsyncIterator[bytes]:
        """Server-sent events, those of one step together as far as they are small.

        An error is the last event.
        """
        try:
            async for outputs in stream:
                if len(outputs) == 1:
                    if line := await self._event(outputs[0]):
                        yield line
                    continue
                events, turns = bytearray(), Turns()
                for output in outputs:
                    events += await self._event(output)
                    if len(events) > PIECE_BYTES:
                        yield bytes(events)
                        events.clear()
                    await turns.take()
                if events:
                    yield bytes(events)
        except PythiaError as error:
            yield event(error_body(error))
            return
        yield self._last_events()

    def _choice(self, output: SequenceOutput, place: int) -> Choice:
        """The choice at ``place`` among those of the output's prompt."""
        number = self._numbers[output.request_id]
        index = number * self.body.n + place
        if index not in self._choices:
            make, tokenizer = self.choice_class, self._served.tokenizer
            self._choices[index] = make(self.body, self._prompts[number], index, tokenizer)
        return self._choices[index]

    async def _event(self, output: SequenceOutput) -> bytes:
        """The event of one output, or nothing."""
        raise_error(output)
        self._generated += len(output.token_ids)
        choice = self._choice(output, output.index)
        # Text may be held back, and then there is nothing to say.
        if not choice.says_something(delta := await choice.delta(output)):
            return b""
        line = self._event_head + orjson.dumps(delta)
        return self._filled(line + b"]") if self._event_tail is None else line + self._event_tail

    def _same_tail(self, options: StreamOptions | None) -> bytes | None:
        """What every event ends with; None where each has its own."""
        if options is None or not (options.include_usage or options.include_obfuscation):
            return b"]}\n\n"
        if options.include_obfuscation or options.continuous_usage_stats:
            return None
        return b'],"usage":null}\n\n'

    def _filled(self, line: bytes) -> bytes:
        fields, options = self._event_usage(), self.body.stream_options
        if options is not None and options.include_obfuscation:
            fields["obfuscation"] = "0" * (-len(line) % OBFUSCATED)
        return line + (b"," + orjson.dumps(fields)[1:] if fields else b"}") + b"\n\n"

    def _event_usage(self) -> dict[str, Any]:
        options = self.body.stream_options
        if options is None or not options.include_usage:
            return {}
        return {"usage": self._usage() if options.continuous_usage_stats else None}

    def _last_events(self) -> bytes:
        if not self._event_usage():
            return DONE
        return event(self._envelope([]) | {"usage": self._usage()}) + DONE

    def _envelope(self, choices: list[dict[str, Any]]) -> dict[str, Any]:
        return {
            "id": self.id,
            "object": self.object_names[self.body.stream],
            "created": self._created,
            "model": self._served.info.id,
            "system_fingerprint": self._fingerprint,
            "seed": self.body.seed,
            "choices": choices,
        }

    def _usage(self) -> dict[str, int]:
        prompt = sum(len(request.prompt) for request in self.requests)
        return {
            "prompt_tokens": prompt,
            "completion_tokens": self._generated,
            "total_tokens": prompt + self._generated,
        }
