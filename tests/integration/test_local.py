"""``pythia_bento.load`` of the bundled checkpoint."""

from __future__ import annotations

import pytest

import pythia_bento


def test_load_generate_score(capsys: pytest.CaptureFixture[str]) -> None:
    with pythia_bento.load("bundled@step512", device="cpu") as lm:
        assert "bundled" in capsys.readouterr().err
        assert lm.info().model == "bundled@step512"
        answer = lm.generate("Once upon a time", max_tokens=8, temperature=0)
        assert lm.tokenize("Once upon a time" + answer.outputs[0].text)
        likely, unlikely = lm.score(["Once upon a time", "time a upon Once"])
    assert likely.logprob > unlikely.logprob
