"""A request that was handed to an engine, what was told of it, and how it is asked again.

Answers are deterministic, so that another engine's answer begins with what was told already.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from pythia_bento.engine.outputs import Outputs, SequenceOutput, failure
from pythia_bento.engine.params import Request
from pythia_bento.errors import PythiaError
from pythia_bento.runtime.pool.routing import GENERATED, names_of

MOST_TRIES = 4  # engines that may die over one request: it may be what they die of


@dataclass(slots=True)
class _Told:
    """Of one sequence: what its reader has, and what the engine that has it now has said."""

    tokens: int = 0
    chars: int = 0
    has_begun: bool = False
    has_ended: bool = False
    said_tokens: int = 0  # of an engine that was asked again
    said_chars: int = 0


class Asked:
    """For one thread at a time."""

    def __init__(self, request: Request) -> None:
        self.request = request
        self.names = names_of(request)
        self.work = self._all_work()
        """What is left to do at most; see ``routing``."""
        self.tries = 0
        self._has_spoken = False  # whether the engine that has it has told anything
        self.is_abandoned = False
        """Whether only its end is waited for."""
        self._told: dict[int, _Told] = {}

    def begin(self) -> None:
        """An engine is given it."""
        self.tries += 1
        self.work, self._has_spoken = self._all_work(), False
        for told in self._told.values():
            told.said_tokens = told.said_chars = 0

    def take(self, output: SequenceOutput) -> SequenceOutput | None:
        """What is new of an engine's output; None where nothing is."""
        if (told := self._told.get(output.index)) is None:
            told = self._told[output.index] = _Told()
        elif told.has_ended:
            return None
        if not self._has_spoken:
            self.work -= len(self.request.prompt)
            self._has_spoken = True
        new = output if self.tries == 1 else _rest(output, told)
        if new is not None:
            count = len(new.token_ids)
            told.tokens += count
            told.chars += len(new.text)
            told.has_begun = True
            told.has_ended = new.finish_reason is not None
            self.work -= GENERATED * count
        return new

    @property
    def has_ended(self) -> bool:
        """Whether all its sequences have."""
        return len(self._told) == self.request.n and all(
            told.has_ended for told in self._told.values()
        )

    def failures(self, error: PythiaError) -> Outputs:
        """The last outputs of what has not ended."""
        ended = {index for index, told in self._told.items() if told.has_ended}
        id, indexes = self.request.request_id, range(self.request.n)
        return [failure(id, index, error) for index in indexes if index not in ended]

    def abandoned(self) -> Outputs:
        """What tells that nobody writes for it any more."""
        return [SequenceOutput(self.request.request_id, 0, [], "", finish_reason="abort")]

    def _all_work(self) -> int:
        request = self.request
        return len(request.prompt) + GENERATED * request.params.max_tokens * request.n


def _rest(output: SequenceOutput, told: _Told) -> SequenceOutput | None:
    """Without what was told before."""
    tokens = _again(told.tokens - told.said_tokens, len(output.token_ids))
    chars = _again(told.chars - told.said_chars, len(output.text))
    told.said_tokens += len(output.token_ids)
    told.said_chars += len(output.text)
    new = replace(
        output,
        token_ids=output.token_ids[tokens:],
        text=output.text[chars:],
        logprobs=None if output.logprobs is None else output.logprobs[tokens:],
        prompt_logprobs=None if told.has_begun else output.prompt_logprobs,
    )
    is_empty = not (new.token_ids or new.text or new.finish_reason or not told.has_begun)
    return None if is_empty else new


def _again(ahead: int, count: int) -> int:
    """How many of ``count`` were told before, where the reader is so many ahead."""
    return min(max(ahead, 0), count)
