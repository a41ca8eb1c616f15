"""``pythia_bento.load`` of the bundled checkpoint."""

from __future__ import annotations

import pytest

import pythia_bento
from pythia_bento.client import End, Row, Score


def test_load_generate_score(capsys: pytest.CaptureFixture[str]) -> None:
    with pythia_bento.load("bundled@step512", device="cpu") as lm:
        assert "bundled" in capsys.readouterr().err
        assert lm.info().model == "bundled@step512"
        answer = lm.generate("Once upon a time", max_tokens=8, temperature=0)
        assert lm.tokenize("Once upon a time" + answer.outputs[0].text)
        likely, unlikely = lm.score(["Once upon a time", "time a upon Once"])
    assert likely.logprob > unlikely.logprob


def test_a_sweep_is_what_each_step_scores() -> None:
    texts = ["Once upon a time", "The cat sat on the mat"]
    with pythia_bento.load(models="bundled@*", device="cpu", progress=False) as lm:
        events = list(lm.sweep(texts, steps=[0, 512]))
        for model, checkpoint in (("bundled@step0", 0), ("bundled@step512", 1)):
            rows = [one for one in events if isinstance(one, Row) and one.checkpoint == checkpoint]
            by_item = [row.logprob for row in sorted(rows, key=lambda row: row.item)]
            assert by_item == [
                one.logprob for one in lm.score(texts, model=model) if isinstance(one, Score)
            ]
        assert events[-1] == End(2, 0)
        left = lm.sweep(texts * 200)
        next(left)
        left.close()
        assert lm.tokenize("a")
