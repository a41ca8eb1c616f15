from __future__ import annotations

from bench.common import workload_tables


def row(workload: str, rate: float, **more: object) -> dict:
    fields = {"model": "pythia-1b", "backend": "pythia-bento w8a16", "workload": workload}
    return fields | more | {"tokens_per_s": rate}


def budgets(tokens: int, most: int) -> dict[str, int]:
    return {"max_tokens_per_step": tokens, "max_tokens_per_prompt_step": most}


RESULTS = [
    row("score", 100000.4, texts=1024, prompt=128, max_tokens_per_step=512),
    row("score", 200000.4, texts=1024, prompt=128, max_tokens_per_step=2048),
    row("score", 250000.4, texts=1024, prompt=128, max_tokens_per_step=8192),
    row("score", 230000.4, texts=1024, prompt=128, batch=256) | {"backend": "transformers fp16"},
    row("score", 270000.4, texts=256, prompt=512, **budgets(2048, 8192)),
    row("score", 260000.4, texts=256, prompt=512, **budgets(2048, 2048)),
    row("mixed", 26000, batch=64, max_tokens_per_step=512),
    row("mixed", 35000, batch=256, max_tokens_per_step=2048),
    row("options", 2000, options="greedy", batch=1, prompt=128),
    row("prefill", 210000, batch=32, prompt=1024, max_tokens_per_step=2048),
    row("prefill", 220000, batch=32, prompt=1024, **budgets(2048, 8192)),
    row("context", 19000, batch=32, context=1024),
]
THEIRS = [
    row("mixed", 27000),
    row("options", 600, options="greedy", batch=1, prompt=128),
    row("prefill", 300000, batch=32, prompt=1024),
    row("context", 13000, batch=32, context=1024),
]
BOTH = RESULTS + [theirs | {"backend": "vLLM 0.24.0 fp16"} for theirs in THEIRS]


def test_scoring_has_a_column_for_each_backend() -> None:
    lines = workload_tables.scoring(RESULTS).splitlines()
    assert lines[0] == (
        "| tokens/s | pythia-bento w8a16 | pythia-bento w8a16, 8,192 tokens a step "
        "| transformers fp16 | pythia-bento w8a16, 2,048 tokens a step |"
    )
    assert lines[2:] == [
        "| 1b, 1,024 x 128 | 200,000 | 250,000 | 230,000 |  |",
        "| 1b, 256 x 512 | 270,000 |  |  | 260,000 |",
    ]


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
    assert "| tokens/s | 2,048 tokens a step | up to 8,192 tokens a step |" in long
    assert "| prompts of 1,024, 32 at once | 210,000 | 220,000 |" in long
    assert "| context 1,024 | 19,000 |" in long


def test_what_others_reach_with_their_defaults_stands_beside_it() -> None:
    mixed = workload_tables.mixed(BOTH).splitlines()
    assert mixed[0] == "| tokens/s | 512 tokens a step | 2,048 tokens a step | defaults |"
    assert mixed[-1] == "| vLLM 0.24.0 fp16 |  |  | 27,000 |"
    options = workload_tables.options(BOTH).splitlines()
    assert options[0] == "| tokens/s | batch 1 | batch 1, vLLM 0.24.0 fp16 |"
    assert options[2:] == ["| greedy | 2,000 | 600 |"]
    long = workload_tables.long(BOTH)
    assert "| prompts of 1,024, 32 at once | 210,000 | 220,000 | 300,000 |" in long
    assert "| context 1,024 | 19,000 | 13,000 |" in long


def test_checkpoints_have_what_was_aimed_at_beside_them() -> None:
    rows = [
        {"what": "switch", "switches": 10000, "p50_ms": 0.5984, "p99_ms": 0.656},
        {"what": "capacity", "cache_bytes": 8e9, "residents": 112},
        {"what": "host", "gb_per_s": 48.81, "share": 0.884},
        {"what": "pair", "residents": 1, "clients_each": 32, "tokens_per_s": 32520.3},
        {"what": "pair", "residents": 2, "clients_each": 32, "tokens_per_s": 31637.4},
        {"what": "one model", "tokens_per_s": 32689.2, "pair_share": 0.968},
        {"what": "bits", "compared": 148, "different": ["seed 1: r3"]},
    ]
    assert workload_tables.checkpoints(rows).splitlines()[2:] == [
        "| other weights before each of 10,000 steps, p50, p99 ms | 0.60, 0.66 | 0.8 |",
        "| checkpoints beside 8.0 GB of keys and values | 112 | 100 |",
        "| from the host, GB/s (of a plain copy) | 48.8 (88 %) | 80 % |",
        "| tokens/s of two with 32 clients each (of one model with as many) "
        "| 31,637 (97 %) | 93 % |",
        "| answers with the bits of each alone | 147 of 148 | all |",
    ]
