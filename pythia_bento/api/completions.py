"""From a completion request to engine requests, and from outputs to OpenAI's answers."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterable
from typing import Any

from pythia_bento.api.errors import error_body
from pythia_bento.api.events import event
from pythia_bento.api.logprobs import LogprobsBuilder, joined
from pythia_bento.api.schemas import CompletionRequest
from pythia_bento.engine.params import Request, SequenceOutput
from pythia_bento.engine_thread import Outputs
from pythia_bento.errors import PythiaError
from pythia_bento.runner import PythiaRunner, new_request_id, raise_error


class Completion:
    """One request of a client: some prompts, each with ``n`` choices."""

    def __init__(
        self, body: CompletionRequest, prompts: list[tuple[int, ...]], runner: PythiaRunner
    ) -> None:
        self.body = body
        self.id = f"cmpl-{new_request_id()}"
        self.requests = [
            Request(f"{self.id}-{index}", prompt, _params(body), body.n)
            for index, prompt in enumerate(prompts)
        ]
        self._created = int(time.time())
        self._runner = runner
        self._choices = {
            (request.request_id, index): _Choice(self, request, number * body.n + index)
            for number, request in enumerate(self.requests)
            for index in range(body.n)
        }
        self._generated = 0

    @classmethod
    async def create(cls, body: CompletionRequest, runner: PythiaRunner) -> Completion:
        """Tokenise the prompts."""
        return cls(body, [await runner.encode(prompt) for prompt in body.prompt], runner)

    def plain(self, outputs: Iterable[SequenceOutput]) -> dict[str, Any]:
        """The whole answer; raises what ended a sequence."""
        parts: dict[int, list[dict[str, Any]]] = {}
        for output in outputs:
            choice = self._choice(output)
            parts.setdefault(choice["index"], []).append(choice)
        choices = [_merged(parts[index]) for index in sorted(parts)]
        return self._envelope(choices) | {"usage": self._usage()}

    async def events(self, stream: AsyncIterator[Outputs]) -> AsyncIterator[bytes]:
        """Server-sent events, those of one step together; an error is the last event."""
        try:
            async for outputs in stream:
                if events := b"".join(self._events(outputs)):
                    yield events
        except PythiaError as error:
            yield event(error_body(error))
            return
        yield self._last_events()

    def prompt_text(self, number: int, ids: tuple[int, ...]) -> str:
        """What ``echo`` shows: the client's own text where there is one."""
        prompt = self.body.prompt[number]
        return prompt if isinstance(prompt, str) else self._runner.tokenizer.decode(ids)

    def logprobs_builder(self) -> LogprobsBuilder:
        """One for each choice."""
        return LogprobsBuilder(self._runner.tokenizer)

    def _choice(self, output: SequenceOutput) -> dict[str, Any]:
        raise_error(output)
        self._generated += len(output.token_ids)
        return self._choices[output.request_id, output.index].delta(output)

    def _events(self, outputs: Outputs) -> Iterable[bytes]:
        usage = {"usage": None} if self._wants_usage else {}
        for output in outputs:
            choice = self._choice(output)
            if choice["text"] or choice["finish_reason"] or choice["logprobs"]:
                yield event(self._envelope([choice]) | usage)

    def _last_events(self) -> bytes:
        usage = event(self._envelope([]) | {"usage": self._usage()}) if self._wants_usage else b""
        return usage + b"data: [DONE]\n\n"

    @property
    def _wants_usage(self) -> bool:
        options = self.body.stream_options
        return options is not None and options.include_usage

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


class _Choice:
    """Turns one sequence's outputs into deltas of one choice."""

    def __init__(self, completion: Completion, request: Request, index: int) -> None:
        self._completion = completion
        self._request = request
        self._index = index
        self._is_first = True
        self._logprobs = completion.logprobs_builder()

    def delta(self, output: SequenceOutput) -> dict[str, Any]:
        body = self._completion.body
        text, logprobs = output.text, []
        if self._is_first and body.echo:
            prompt = self._request.prompt
            text = self._completion.prompt_text(self._index // body.n, prompt) + text
            if body.logprobs is not None:
                logprobs.append(self._logprobs.echo(prompt, output.prompt_logprobs))
        if output.logprobs:
            logprobs.append(self._logprobs.generated(output.logprobs))
        self._is_first = False
        return {
            "index": self._index,
            "text": text,
            "logprobs": joined(logprobs) if logprobs else None,
            "finish_reason": output.finish_reason,
            "stop_reason": output.stop_reason,
        }


def _params(body: CompletionRequest) -> Any:
    return body.sampling_params(prompt_logprobs=body.logprobs if body.echo else None)


def _merged(deltas: list[dict[str, Any]]) -> dict[str, Any]:
    """All deltas of a choice as one."""
    logprobs = [delta["logprobs"] for delta in deltas if delta["logprobs"]]
    return deltas[-1] | {
        "text": "".join(delta["text"] for delta in deltas),
        "logprobs": joined(logprobs) if logprobs else None,
    }
