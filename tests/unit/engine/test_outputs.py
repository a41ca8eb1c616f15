"""Deltas of continuations: joined, and told apart when they end."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from pythia_bento.engine.logprobs import PromptLogprobs, TokenLogprob
from pythia_bento.engine.outputs import SequenceOutput, collect, failure, raise_error
from pythia_bento.engine.params import Request, SamplingParams
from pythia_bento.errors import EngineUnavailable, OutOfMemory


def delta(id: str, index: int, *tokens: int, **fields: Any) -> SequenceOutput:
    return SequenceOutput(id, index, list(tokens), "".join(map(chr, tokens)), **fields)


def test_deltas_of_each_continuation_join_in_order() -> None:
    requests = [Request("a", (1,), SamplingParams(), 2), Request("b", (1,))]
    scored = PromptLogprobs(np.array([[9], [0], [1]], np.int32))
    answers = collect(
        requests,
        [
            delta("b", 0, 97, logprobs=[TokenLogprob(97, -0.5)]),
            delta("a", 1, 98, prompt_logprobs=scored),
            delta("a", 0, 99, finish_reason="length"),
            delta("b", 0, 100, logprobs=[TokenLogprob(100, -0.25)], finish_reason="stop"),
            delta("a", 1, 101, 102, finish_reason="stop", stop_reason=102),
        ],
    )
    [[first, second], [other]] = answers
    assert (first.text, second.text, other.text) == ("c", "bef", "ad")
    assert (second.finish_reason, second.stop_reason) == ("stop", 102)
    assert second.prompt_logprobs == scored
    assert [entry.logprob for entry in other.logprobs or ()] == [-0.5, -0.25]


def test_what_ended_a_sequence_badly_is_raised() -> None:
    good = delta("a", 0, 97, finish_reason="stop")
    assert raise_error(good) is good
    with pytest.raises(OutOfMemory, match="no memory"):
        raise_error(failure("a", 0, OutOfMemory("no memory")))
    with pytest.raises(EngineUnavailable, match="ended the request"):
        raise_error(delta("a", 0, finish_reason="abort"))
