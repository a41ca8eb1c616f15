from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench.common import tables

HOST = {"machine": {"gpu": "NVIDIA T", "cpu": "c"}, "versions": {"torch": "2.0"}}
RECORD = {**HOST, "date": "2026-11-24T01:02:03", "command": "python -m bench.gpu.decode"}


def decode_row(model: str, batch: int, rate: float, backend: str = tables.OURS) -> dict:
    more = {"step_ms": 0.5, "gb_per_s": 1234.5, "share_of_limit": 0.434, "first_token_ms": 1.5}
    return {"model": model, "backend": backend, "batch": batch, "tokens_per_s": rate, **more}


@pytest.fixture
def results(tmp_path: Path) -> Path:
    rows = [
        decode_row("pythia-1b", 1, 1778.6),
        decode_row("pythia-1b", 8, 12345.6),
        decode_row("pythia-1b", 1, 23.4, "transformers fp16"),
        decode_row("pythia-12b", 1, 246.3),
    ]
    record = RECORD | {"results": rows, "caveat": "Old."}
    (tmp_path / "h200-decode.json").write_text(json.dumps(record))
    return tmp_path


@pytest.mark.parametrize("page", tables.PAGES)
def test_the_committed_tables_are_the_generated_ones(page: str) -> None:
    text = (tables.ROOT / page).read_text()
    assert text == tables.filled(text, tables.RESULTS)


def test_every_table_is_on_a_page() -> None:
    pages = "".join((tables.ROOT / page).read_text() for page in tables.PAGES)
    assert {name for _, name, _ in tables.BLOCK.findall(pages)} == set(tables.TABLES)


def test_only_what_is_between_the_marks_changes(results: Path) -> None:
    page = "before\n<!-- bench.common.tables: gpu -->\nold\n<!-- end -->\nafter <!-- end -->\n"
    new = tables.filled(page, results)
    assert new.startswith(
        "before\n<!-- bench.common.tables: gpu -->\n| tokens/s | batch 1 | batch 8 |\n"
    )
    assert new.endswith("<!-- end -->\nafter <!-- end -->\n")
    assert "old" not in new
    assert tables.filled(new, results) == new


def test_a_name_that_is_no_table_is_an_error(results: Path) -> None:
    with pytest.raises(KeyError):
        tables.filled("<!-- bench.common.tables: nothing -->\n<!-- end -->", results)


def test_decode_has_targets_and_a_gap_where_nothing_was_measured(results: Path) -> None:
    text = tables.table("decode", results)
    assert "| target | 2,000 | 12,000 |" in text
    assert "| pythia-bento w8a16 | 1,779 | 12,346 |" in text
    assert "| transformers fp16 | 23 |  |" in text
    assert (
        "NVIDIA T, torch 2.0, 2026-11-24: `python -m bench.gpu.decode` (`h200-decode.json`)."
        in text
    )
    assert text.endswith("**Caveat.** Old.\n")
    assert "Old." not in tables.table("sizes", results)


def test_sizes_are_ordered_and_come_from_two_files(results: Path) -> None:
    rows = [decode_row("pythia-70m", batch, 8590.4) for batch in (1, 32)]
    (results / "h200-sizes.json").write_text(json.dumps(RECORD | {"results": rows}))
    text = tables.table("sizes", results).splitlines()
    assert text[0] == "|  | batch 1, tokens/s (% of the limit) |"  # 8 and 32: one size each
    assert text[2:5] == ["| 70m | 8,590 (43 %) |", "| 1b | 1,779 (43 %) |", "| 12b | 246 (43 %) |"]


def test_what_was_not_measured_says_how(tmp_path: Path) -> None:
    text = tables.table("serve", tmp_path)
    assert "python -m bench.serving.serve" in text
    assert "bench/results/h200-serve.json" in text
