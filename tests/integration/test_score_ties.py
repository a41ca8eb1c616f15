"""Of two tokens with equal logits greedy decoding takes the lower id, and scores say so."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from pythia_bento.engine.outputs import raise_error
from pythia_bento.handlers.score import score
from pythia_bento.runtime.runner import PythiaRunner
from pythia_bento.settings import Settings
from tests.models import random_model
from tests.tokenizer_parts import raw_tokenizer
from tests.unit.runtime.toy_runner import ask

PROMPT = (5, 6, 7)


@pytest.fixture(scope="module")
def twins(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint whose head has every row twice: each id ties with its neighbour."""
    path = tmp_path_factory.mktemp("twins")
    model = random_model(layers=2, heads=2, head_dim=16, vocab=300)
    with torch.no_grad():
        head = model.get_output_embeddings().weight
        head[1::2] = head[0::2]
    model.to(torch.float16).save_pretrained(path)
    raw_tokenizer().save(str(path / "tokenizer.json"))
    return path


@pytest.mark.parametrize("backend", ["cpu", "reference"])
async def test_only_what_greedy_decoding_takes_is_greedy(twins: Path, backend: str) -> None:
    settings = Settings(model=str(twins), device="cpu", backend=backend, kv_cache_gb=0.01)
    with PythiaRunner.load(settings) as runner:
        [[answer]] = await runner.complete([ask(PROMPT, max_tokens=1, temperature=0, logprobs=4)])
        [taken] = raise_error(answer).token_ids
        [chosen] = answer.logprobs or []
        text = {"prompt": list(PROMPT), "logprobs": 2}
        items = [{**text, "continuation": [id]} for id in (taken, taken + 1)]
        first, second = await score(runner, items)
    assert taken % 2 == 0
    assert [id for id, _ in chosen.top[:2]] == [taken, taken + 1]
    assert first["logprob"] == second["logprob"]
    assert (first["is_greedy"], second["is_greedy"]) == (True, False)
    for result in (first, second):
        assert [top["id"] for top in result["tokens"][0]["top"]] == [taken, taken + 1]
