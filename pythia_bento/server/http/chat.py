"""OpenAI's chat over the same engine, for tools that speak nothing else."""

from __future__ import annotations

import asyncio
from typing import Any

from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from pythia_bento.engine.logprobs import TokenLogprob
from pythia_bento.engine.outputs import SequenceOutput
from pythia_bento.engine.validate import Limits
from pythia_bento.errors import InvalidRequest
from pythia_bento.protocol.chat import as_completion, chat_request
from pythia_bento.runtime.served import loaded
from pythia_bento.runtime.turns import Turns
from pythia_bento.server.http.body import read_json
from pythia_bento.server.http.chat_template import ChatTemplate
from pythia_bento.server.http.choice import Choice, some_at_once
from pythia_bento.server.http.completions import Completion, answer
from pythia_bento.telemetry.calls import current_call


async def chat(request: HttpRequest) -> Response:
    """POST ``/v1/chat/completions``: refused where there is no template."""
    template: ChatTemplate | None = request.app.state.chat_template
    if template is None:
        raise InvalidRequest(
            "Pythia models are not tuned for chat and have no chat template; send plain text as "
            "`prompt` to /v1/completions"
        )
    runner = loaded(request.app.state.runner)
    data = await read_json(request, runner.limits)
    # On a thread: there may be thousands of messages, and a template may compute what it likes.
    options, text = await asyncio.to_thread(_prepared, data, template, runner.limits)
    served = await runner.served(options["model"])
    ids = await served.encode(text, "messages")
    if (call := current_call()) is not None:
        call.operation = "chat"
    body = as_completion(options, ids, served.limits.room(len(ids)))
    return await answer(ChatCompletion, body, served)


def _prepared(data: Any, template: ChatTemplate, limits: Limits) -> tuple[dict[str, Any], str]:
    """Options of a completion, and its prompt; raises InvalidRequest."""
    asked, options = chat_request(data)
    _check_alternatives(asked.top_logprobs or 0, limits)
    return options, template.render(asked.spoken(), begin_answer=asked.add_generation_prompt)


def _check_alternatives(wanted: int, limits: Limits) -> None:
    """The same as of completions, whose field has another name."""
    low, high = limits.integer_range("logprobs")
    if not low <= wanted <= high:
        raise InvalidRequest(
            f"top_logprobs must be an integer between {low} and {high}, not {wanted}",
            param="top_logprobs",
        )


class ChatChoice(Choice):
    """Turns one sequence's outputs into a message, or into parts of one."""

    def says_something(self, delta: dict[str, Any]) -> bool:
        """The first event has the role, whether or not there is text."""
        said = delta["delta"]["content"] or delta["finish_reason"] or delta["logprobs"]
        return bool(said) or "role" in delta["delta"] or "token_ids" in delta

    def _content(self, output: SequenceOutput, is_first: bool) -> dict[str, Any]:
        said: dict[str, Any] = {"role": "assistant"} if is_first else {}
        said["content"] = output.text
        return {"delta": said} if self._body.stream else {"message": said | {"refusal": None}}

    async def _shown_logprobs(self, output: SequenceOutput, is_first: bool) -> Any:
        if output.logprobs is None:
            return None
        turns, shown = Turns(), []
        for some in some_at_once(output.logprobs):
            shown += [self._shown(token) for token in some]
            await turns.take()
        return {"content": shown, "refusal": None}

    def _shown(self, token: TokenLogprob) -> dict[str, Any]:
        best = [self._named(id, logprob) for id, logprob in token.top]
        return self._named(token.token_id, token.logprob) | {"top_logprobs": best}

    def _named(self, id: int, logprob: float) -> dict[str, Any]:
        as_id = self._body.return_tokens_as_token_ids
        return {
            "token": f"token_id:{id}" if as_id else self._tokenizer.token_text(id),
            "logprob": logprob,
            "bytes": list(self._tokenizer.token_bytes(id)),
        }


class ChatCompletion(Completion):
    """One request of a chat's client."""

    id_prefix = "chatcmpl"
    object_names = "chat.completion", "chat.completion.chunk"
    choice_class = ChatChoice
