"""One continuation of a completion: what each of its outputs adds to the answer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, TypeVar

from pythia_bento.engine.logprobs import PromptLogprobs, TokenLogprob
from pythia_bento.engine.outputs import SequenceOutput
from pythia_bento.engine.tokenizer import Tokenizer
from pythia_bento.protocol.bodies import CompletionRequest
from pythia_bento.protocol.sampling import Ids, Prompt
from pythia_bento.runtime.served import Served
from pythia_bento.runtime.turns import Turns
from pythia_bento.server.http.logprobs import Columns, LogprobsBuilder, by_id, joined

_Tokens = TypeVar("_Tokens", list[TokenLogprob], PromptLogprobs)

AT_ONCE = 64  # tokens that are put into an answer between two turns of others


class EchoedPrompt(NamedTuple):
    """What the model was given, and what ``echo`` shows of it."""

    ids: Ids
    text: str = ""
    starts: Sequence[int] = ()
    """Where its tokens begin in ``text``, where log-probabilities are asked for."""

    @classmethod
    async def of(
        cls, served: Served, written: Prompt, ids: Ids, body: CompletionRequest
    ) -> EchoedPrompt:
        """For ``echo``: with the client's own text where there is one, uncut."""
        made = served.tokenizer.decode(ids)
        is_whole = isinstance(written, str) and body.truncate_prompt_tokens is None
        text = str(written) if is_whole else made
        if body.logprobs is None:
            return cls(ids, text)
        if text != made:  # it is not in the normal form that tokens are of
            return cls(ids, text, await served.starts(text))
        return cls(ids, text, served.tokenizer.token_starts(ids))


class Choice:
    """Turns one sequence's outputs into deltas of one choice."""

    def __init__(
        self, body: CompletionRequest, prompt: EchoedPrompt, index: int, tokenizer: Tokenizer
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
        body, logprobs = self._body, None
        if output.logprobs is not None or (is_first and body.echo):
            logprobs = await self._shown_logprobs(output, is_first)
        delta = {
            "index": self._index,
            **self._content(output, is_first),
            "logprobs": logprobs,
            "finish_reason": output.finish_reason,
            "stop_reason": output.stop_reason,
        }
        if body.return_token_ids or (is_first and body.prompt_logprobs is not None):
            delta |= await self._additions(output, is_first)
        return delta

    def says_something(self, delta: dict[str, Any]) -> bool:
        """Whether a client learns anything from it."""
        said = delta["text"] or delta["finish_reason"] or delta["logprobs"]
        return bool(said) or "token_ids" in delta

    def _content(self, output: SequenceOutput, is_first: bool) -> dict[str, Any]:
        echoed = self._prompt.text if is_first else ""
        return {"text": echoed + output.text}

    async def _shown_logprobs(self, output: SequenceOutput, is_first: bool) -> Any:
        found = await self._echoed(output) if is_first and self._body.echo else []
        turns = Turns()
        for some in some_at_once(output.logprobs):
            found.append(self._logprobs.generated(some))
            await turns.take()
        return joined(found) if found else None

    async def _echoed(self, output: SequenceOutput) -> list[Columns]:
        """Of the prompt's tokens; the first has no log-probability."""
        prompt, num_top = self._prompt, self._body.logprobs
        if num_top is None:
            return []
        turns, starts = Turns(), iter(prompt.starts)
        parts = [self._logprobs.first(prompt.ids[0], next(starts))]
        for some in some_at_once(output.prompt_logprobs):
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
        for some in some_at_once(output.prompt_logprobs):
            scored += by_id(self._tokenizer, some, num_top)
            await turns.take()
        return scored


def some_at_once(tokens: _Tokens | None) -> Iterator[_Tokens]:
    """All of them, some at a time."""
    if tokens is not None:
        for start in range(0, len(tokens), AT_ONCE):
            yield tokens[start : start + AT_ONCE]
