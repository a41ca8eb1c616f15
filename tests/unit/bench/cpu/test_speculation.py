from __future__ import annotations

from bench.cpu import speculation
from pythia_bento.checkpoints.checkpoint import find_checkpoint
from pythia_bento.engine.tokenizer import Tokenizer


def test_a_row_has_what_drafts_brought() -> None:
    bundled = find_checkpoint("bundled")
    tokenizer = Tokenizer.from_bytes(bundled.tokenizer, bundled.tokenizer_path)
    model = speculation._model("bundled", bundled)
    model.texts = [(list(range(50, 60)) * 30)[: speculation.PROMPT + speculation.NEW]]
    row = speculation._measured(model, tokenizer, batch=1, rounds=1)
    assert row["accepted"] == 1
    assert row["tokens_a_pass"] > 4
    assert len(row["rounds"]) == 2
    assert row["with_drafts"] > 0
