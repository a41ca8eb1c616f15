from __future__ import annotations

from bench.common import workload_tables


def row(workload: str, rate: float, **more: object) -> dict:
    fields = {"model": "pythia-1b", "backend": "pythia-bento w8a16", "workload": workload}
    return fields | more | {"tokens_per_s": rate}


RESULTS = [
    row("score", 100000.4, texts=1024, prompt=128, max_tokens_per_step=512),
    row("score", 200000.4, texts=1024, prompt=128, max_tokens_per_step=2048),
    row("score", 250000.4, texts=1024, prompt=128, max_tokens_per_step=8192),
    row("score", 230000.4, texts=1024, prompt=128, batch=256) | {"backend": "transformers fp16"},
    row("mixed", 26000, batch=64, max_tokens_per_step=512),
    row("mixed", 35000, batch=256, max_tokens_per_step=2048),
    row("options", 2000, options="greedy", batch=1, prompt=128),
    row("prefill", 210000, batch=32, prompt=1024, max_tokens_per_step=2048),
    row("context", 19000, batch=32, context=1024),
]


def test_scoring_has_a_column_for_each_backend() -> None:
    lines = workload_tables.scoring(RESULTS).splitlines()
    assert lines[0] == (
        "| tokens/s | pythia-bento w8a16 | pythia-bento w8a16, 8,192 tokens a step "
        "| transformers fp16 |"
    )
    assert lines[2:] == ["| 1b, 1,024 x 128 | 200,000 | 250,000 | 230,000 |"]


def test_what_was_not_measured_is_empty() -> None:
    lines = workload_tables.mixed(RESULTS).splitlines()
    assert lines[0] == "| tokens/s | 512 tokens a step | 2,048 tokens a step |"
    assert lines[2:] == [
        "| 64 sequences in a step | 26,000 |  |",
        "| 256 sequences in a step |  | 35,000 |",
    ]


def test_options_prompts_and_contexts_are_tables_of_their_own() -> None:
    assert "| greedy | 2,000 |" in workload_tables.options(RESULTS)
    long = workload_tables.long(RESULTS)
    assert "| prompts of 1,024, 32 at once | 210,000 |" in long
    assert "| context 1,024 | 19,000 |" in long
