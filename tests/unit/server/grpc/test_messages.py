"""Messages put together from bytes, against those made field by field."""

from __future__ import annotations

import numpy as np
import pytest

from pythia_bento.engine.logprobs import HEAD, PromptLogprobs
from pythia_bento.handlers.streamed import shown_prompt
from pythia_bento.protocol.generated import pythia_pb2 as pb
from pythia_bento.server.grpc.messages import score_results, scored_tokens
from tests.tokenizer_parts import small_tokenizer

TOKENIZER = small_tokenizer()


@pytest.mark.parametrize("num_top", [0, 2])
@pytest.mark.parametrize("count", [0, 1, 600])
async def test_scores_are_those_messages(count: int, num_top: int) -> None:
    columns = np.zeros((HEAD + 2 * num_top, count), np.int32)
    columns[0] = np.arange(count) % TOKENIZER.num_tokens
    columns[1] = np.resize(np.array([0.0, -0.0, -1.5, -3.3], np.float32), count).view(np.int32)
    columns[HEAD : HEAD + num_top] = 7
    scored = PromptLogprobs(columns)
    fields = {"logprob": -12.5, "num_tokens": count, "is_greedy": bool(count % 2)}
    expected = pb.Score(**fields, tokens=await shown_prompt(TOKENIZER, scored))
    error = {"code": "invalid_request", "message": "no", "param": None, "type": "x"}
    results = [fields | {"tokens": await scored_tokens(TOKENIZER, scored)}, {"error": error}]
    [score, failed] = (await score_results(results)).results
    assert score.score == expected
    assert score.score.SerializeToString() == expected.SerializeToString()
    assert failed.error == pb.Error(code="invalid_request", message="no")
