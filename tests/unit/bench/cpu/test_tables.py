from __future__ import annotations

import json
from pathlib import Path

from bench.common.report import DECODE_1, LOAD, SCORE
from bench.cpu import tables

RECORD = {
    "machine": {"cpu": "A Processor", "cores": 2, "isa": ["avx2"]},
    "date": "2026-11-30T01:02:03",
    "command": "python -m bench.cpu",
}


def test_the_committed_tables_are_the_generated_ones() -> None:
    page = tables.PAGE.read_text()
    assert len(tables.BLOCK.findall(page)) == 1
    assert tables.filled(page, tables.RESULTS) == page


def test_a_row_has_all_of_an_engine_and_who_ended_is_named(tmp_path: Path) -> None:
    ours = {"model": "pythia-1b", "engine": "ours"}
    other = {"model": "pythia-1b", "engine": "other"}
    rows = [
        {**ours, "task": LOAD, "peak_mb": 1234},
        {**other, "task": LOAD},
        {**ours, "task": DECODE_1, "tokens_per_s": 26.54, "percent_of_limit": 81.6},
        {**ours, "task": SCORE, "tokens_per_s": 1256.0, "batch": 8},
        {**other, "task": DECODE_1, "ended": "killed by SIGILL"},
    ]
    (tmp_path / "cpu-a-processor.json").write_text(json.dumps(RECORD | {"results": rows}))
    text = tables.filled("<!-- bench.cpu.tables -->\nold\n<!-- end -->\n", tmp_path)
    assert "| 1b | ours | 26.5 (82) |  |  | 1,256 (batches of 8) | 1,234 |\n" in text
    assert "| 1b | other | ended |  |  |  |  |\n" in text
    assert f"other, pythia-1b, {DECODE_1}: killed by SIGILL.\n" in text
