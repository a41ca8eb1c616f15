"""From a completion request to engine requests, and from outputs to OpenAI's answers."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from typing import Any, NamedTuple, TypeVar

import orjson
from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from pythia_bento.engine.logprobs import PromptLogprobs, TokenLogprob
from pythia_bento.engine.outputs import Outputs, SequenceOutput, collect, raise_error
from pythia_bento.engine.params import Request, new_request_id
from pythia_bento.engine.tokenizer import Tokenizer
from pythia_bento.engine.validate import alternatives_of, check_alternatives, check_sequences
from pythia_bento.errors import PythiaError
from pythia_bento.handlers.requests import best, make_request
from pythia_bento.protocol.bodies import CompletionRequest
from pythia_bento.protocol.errors import error_body
from pythia_bento.protocol.parsing import parse
from pythia_bento.protocol.sampling import Ids, Prompt
from pythia_bento.runtime.runner import PythiaRunner, loaded
from pythia_bento.runtime.turns import Turns
from pythia_bento.server.http.body import read_json
from pythia_bento.server.http.json_answer import PIECE_BYTES, Joiner, Pieces
from pythia_bento.server.http.logprobs import Columns, LogprobsBuilder, by_id, joined
from pythia_bento.server.http.sse import DONE, EventStream, event

_Tokens = TypeVar("_Tokens", list[TokenLogprob], PromptLogprobs)

AT_ONCE = 64  # tokens that are put into an answer between two turns of others


async def completions(request: HttpRequest) -> Response:
    """POST ``/v1/completions``."""
    runner = loaded(request.app.state.runner)
    body = parse(CompletionRequest, await read_json(request, runner.limits))
    runner.check_model(body.model)
    completion = await Completion.create(body, runner)
    stream = await runner.submit(completion.requests)
    if body.stream:
        return EventStream(completion.events(stream), stream)
    try:
        return await completion.plain(await stream.all())
    finally:
        stream.close()


class Completion:
    """One request of a client: some prompts, each with ``n`` choices."""

    def __init__(
        self,
        body: CompletionRequest,
        id: str,
        requests: list[Request],
        prompts: list[_Prompt],
        runner: PythiaRunner,
    ) -> None:
        self.body = body
        self.id = id
        self.requests = requests
        self._prompts = prompts
        self._created = int(time.time())
        self._runner = runner
        self._numbers = {request.request_id: n for n, request in enumerate(requests)}
        self._choices: dict[int, _Choice] = {}
        self._generated = 0
        # What every event of a stream begins with: choices are the last of the fields.
        self._event_head = b"data: " + orjson.dumps(self._envelope([]))[: -len(b"]}")]

    @classmethod
    async def create(cls, body: CompletionRequest, runner: PythiaRunner) -> Completion:
        """Tokenise the prompts; raises InvalidRequest."""
        check_sequences(len(body.prompt), body.num_sequences, runner.limits)
        id = f"cmpl-{new_request_id()}"
        requests, prompts, alternatives, turns = [], [], 0, Turns()
        for number, written in enumerate(body.prompt):
            request = await make_request(runner, f"{id}-{number}", written, body)
            check_alternatives(alternatives := alternatives + alternatives_of(request))
            requests.append(request)
            prompts.append(await _Prompt.of(runner, written, request.prompt, body))
            await turns.take()
        return cls(body, id, requests, prompts, runner)

    async def plain(self, outputs: Iterable[SequenceOutput]) -> Pieces:
        """The whole answer; raises what ended a sequence. ``usage`` counts all of ``best_of``."""
        turns, joiner, separator = Turns(), Joiner(), b""
        joiner.add(orjson.dumps(self._envelope([]))[: -len(b"]}")])
        for answers in collect(self.requests, map(raise_error, outputs)):
            self._generated += sum(len(answer.token_ids) for answer in answers)
            for place, answer in enumerate(await best(answers, self.body)):
                delta = await self._choice(answer, place).delta(answer)
                joiner.add(separator + orjson.dumps(delta))
                separator = b","
                # Freed one by one: all at once would take as long as to make them.
                answer.logprobs = answer.prompt_logprobs = None
                await turns.take()
        joiner.add(b"]," + orjson.dumps({"usage": self._usage()})[1:])
        return Pieces(joiner.pieces())

    async def events(self, stream: AsyncIterator[Outputs]) -> AsyncIterator[bytes]:
        """Server-sent events, those of one step together; an error is the last event."""
        try:
            async for outputs in stream:
                async for events in self._events(outputs):
                    yield events
        except PythiaError as error:
            yield event(error_body(error))
            return
        yield self._last_events()

    def _choice(self, output: SequenceOutput, place: int) -> _Choice:
        """The choice at ``place`` among those of the output's prompt."""
        number = self._numbers[output.request_id]
        index = number * self.body.n + place
        if index not in self._choices:
            prompt = self._prompts[number]
            self._choices[index] = _Choice(self.body, prompt, index, self._runner.tokenizer)
        return self._choices[index]

    async def _events(self, outputs: Outputs) -> AsyncIterator[bytes]:
        """Those of one step together, as far as they are small."""
        events, turns = bytearray(), Turns()
        for output in outputs:
            raise_error(output)
            self._generated += len(output.token_ids)
            delta = await self._choice(output, output.index).delta(output)
            # Text may be held back, and then there is nothing to say.
            if delta["text"] or delta["finish_reason"] or delta["logprobs"] or "token_ids" in delta:
                events += self._event_head + orjson.dumps(delta) + self._event_tail()
            if len(events) > PIECE_BYTES:
                yield bytes(events)
                events.clear()
            await turns.take()
        if events:
            yield bytes(events)

    def _event_tail(self) -> bytes:
        usage = self._event_usage()
        return b"]," + orjson.dumps(usage)[1:] + b"\n\n" if usage else b"]}\n\n"

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
            "object": "text_completion",
            "created": self._created,
            "model": self._runner.info.id,
            "system_fingerprint": self._runner.info.fingerprint,
            "choices": choices,
        }

    def _usage(self) -> dict[str, int]:
        prompt = sum(len(request.prompt) for request in self.requests)
        return {
            "prompt_tokens": prompt,
            "completion_tokens": self._generated,
            "total_tokens": prompt + self._generated,
        }


class _Prompt(NamedTuple):
    """What the model was given, and what ``echo`` shows of it."""

    ids: Ids
    text: str = ""
    starts: Sequence[int] = ()
    """Where its tokens begin in ``text``, where log-probabilities are asked for."""

    @classmethod
    async def of(
        cls, runner: PythiaRunner, written: Prompt, ids: Ids, body: CompletionRequest
    ) -> _Prompt:
        """With the client's own text where there is one, uncut."""
        if not body.echo:
            return cls(ids)
        made = runner.tokenizer.decode(ids)
        is_whole = isinstance(written, str) and body.truncate_prompt_tokens is None
        text = str(written) if is_whole else made
        if body.logprobs is None:
            return cls(ids, text)
        if text != made:  # it is not in the normal form that tokens are of
            return cls(ids, text, await runner.starts(text))
        return cls(ids, text, runner.tokenizer.token_starts(ids))


class _Choice:
    """Turns one sequence's outputs into deltas of one choice."""

    def __init__(
        self, body: CompletionRequest, prompt: _Prompt, index: int, tokenizer: Tokenizer
    ) -> None:
        self._body = body
        self._prompt = prompt
        self._index = index
        self._tokenizer = tokenizer
        self._is_first = True
        self._logprobs = LogprobsBuilder(
            tokenizer,
            start=len(prompt.text),
            skip_special_tokens=body.skip_special_tokens,
            as_ids=body.return_tokens_as_token_ids,
        )

    async def delta(self, output: SequenceOutput) -> dict[str, Any]:
        """What ``output`` adds."""
        is_first, self._is_first = self._is_first, False
        text, logprobs = output.text, list[Columns]()
        if is_first and self._body.echo:
            text = self._prompt.text + text
            logprobs = await self._echoed(output)
        turns = Turns()
        for some in _some(output.logprobs):
            logprobs.append(self._logprobs.generated(some))
            await turns.take()
        return {
            "index": self._index,
            "text": text,
            "logprobs": joined(logprobs) if logprobs else None,
            "finish_reason": output.finish_reason,
            "stop_reason": output.stop_reason,
            **await self._additions(output, is_first),
        }

    async def _echoed(self, output: SequenceOutput) -> list[Columns]:
        """Of the prompt's tokens; the first has no log-probability."""
        prompt, num_top = self._prompt, self._body.logprobs
        if num_top is None:
            return []
        turns, starts = Turns(), iter(prompt.starts)
        parts = [self._logprobs.first(prompt.ids[0], next(starts))]
        for some in _some(output.prompt_logprobs):
            parts.append(self._logprobs.prompt(some, num_top, starts))
            await turns.take()
        return parts

    async def _additions(self, output: SequenceOutput, is_first: bool) -> dict[str, Any]:
        """vLLM's fields, where they were asked for; those of the prompt with the first delta."""
        body = self._body
        found: dict[str, Any] = {}
        if body.return_token_ids:
            found["token_ids"] = output.token_ids
        if is_first and body.return_token_ids:
            found["prompt_token_ids"] = self._prompt.ids
        if is_first and body.prompt_logprobs is not None:
            found["prompt_logprobs"] = await self._scored(output, body.prompt_logprobs)
        return found

    async def _scored(self, output: SequenceOutput, num_top: int) -> list[dict[str, Any] | None]:
        turns = Turns()
        scored: list[dict[str, Any] | None] = [None]
        for some in _some(output.prompt_logprobs):
            scored += by_id(self._tokenizer, some, num_top)
            await turns.take()
        return scored


def _some(tokens: _Tokens | None) -> Iterator[_Tokens]:
    """All of them, some at a time."""
    if tokens is not None:
        for start in range(0, len(tokens), AT_ONCE):
            yield tokens[start : start + AT_ONCE]
