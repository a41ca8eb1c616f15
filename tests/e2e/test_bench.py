"""The benchmarks that need a server, on the smallest of loads."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.serving import ROOT, environment

pytestmark = pytest.mark.long


def bench(module: str, home: Path, *arguments: str) -> tuple[list[dict], str]:
    """Rows of the JSON that a benchmark writes, and what it printed."""
    out = home / f"{module}.json"
    command = [sys.executable, "-m", f"bench.{module}", *arguments, "--out", str(out)]
    done = subprocess.run(
        command, cwd=ROOT, env=environment(home), capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    record = json.loads(out.read_text())
    assert record["command"].startswith(f"python -m bench.{module}")
    return record["results"], done.stdout


LOAD = ("--clients", "4", "--rounds", "2", "--prompt", "8", "--new", "12", "--processes", "2")


def test_the_service_beside_its_engine(tmp_path: Path) -> None:
    small = ("--device", "cpu", "--model", "bundled", "--overhead-rounds", "3")
    rows, printed = bench("serving.serve", tmp_path, *small, *LOAD)
    assert [row["backend"] for row in rows] == ["engine alone", "http", "http-stream"]
    assert all(row["tokens"] == 4 * 2 * 12 and row["tokens_per_s"] > 0 for row in rows)
    assert all("share_of_engine" in row and "reached" in row for row in rows[1:])
    assert rows[2]["gap_ms"] and rows[2]["first_token_ms"] and not rows[1]["gap_ms"]
    assert all(row["server_cpu_us_per_token"] > 0 for row in rows[1:])
    assert "of the engine" in printed
    assert "grpc" in printed  # what a transport adds


def test_the_service_over_a_device_that_computes_nothing(tmp_path: Path) -> None:
    rows, _ = bench("serving.serve", tmp_path, "--instant", *LOAD, *("--overhead-rounds", "0"))
    assert [row["tokens"] for row in rows] == [96, 96, 96]
    assert rows[2]["tokens_per_arrival"] > 1  # several steps a visit


def test_several_engines_behind_one_front(tmp_path: Path) -> None:
    small = ("--devices", "cpu:2", "--model", "pythia-14m", "--only", "clients,resident")
    load = ("--clients", "4", *LOAD[2:], "--resident", "3", "--cache-gb", "0.05")
    rows, _ = bench("serving.replicas", tmp_path, *small, *load)
    assert [(row["what"], row["engines"]) for row in rows] == [
        ("clients", 1),
        ("clients", 2),
        ("resident", 2),
        ("resident", 2),
    ]
    assert rows[1]["times"] > 0
    assert [row["loads"] for row in rows[2:]] == [2, 0]
    assert rows[3]["on_device"] == [2, 2]  # the default is on both


def test_the_inside(tmp_path: Path) -> None:
    rows, printed = bench("inside", tmp_path, "--model", "pythia-14m", "--rounds", "2")
    ours = ["scored", "residual streams", "all sites"]
    assert [row["kind"] for row in rows] == [*ours, "transformers fp32", "transformers bf16"]
    assert all(row["ms"] > 0 and len(row["rounds_ms"]) == 2 for row in rows)
    assert rows[0]["cost"] == 1
    assert "all sites" in printed


def test_the_inside_through_the_service(tmp_path: Path) -> None:
    small = ("--device", "cpu", "--model", "bundled", "--length", "20", "--rounds", "2")
    rows, printed = bench("serving.inside", tmp_path, *small)
    streams = "residual streams"
    kinds = ["scores", streams, f"{streams}, our client"]
    assert [row["kind"] for row in rows] == [f"{kind}, HTTP" for kind in kinds]
    assert all(row["ms"] > 0 for row in rows) and rows[2]["bytes"] == 3 * 20 * 128 * 4
    assert "our client" in printed


def test_readers_who_take_their_time(tmp_path: Path) -> None:
    rows, _ = bench(
        *("serving.slow_readers", tmp_path, "--readers", "2", "--seconds", "1", "--alone", "1")
    )
    others, memory, gone, readers = rows
    assert others["alone"]["count"] and others["beside"]["count"]
    assert memory["most_mb"] >= memory["before_mb"] > 0 and len(gone["seconds"]) == 5
    assert readers["count"] == 2 and readers["answer_mb"] > 260


def test_sweeps(tmp_path: Path) -> None:
    rows, _ = bench("sweeps", tmp_path, "--device", "cpu")
    tasks = ["extract", "score", "score with tokens"]
    ends = ["resident", "beside", "beside"]
    assert [row["what"] for row in rows] == ["cold", "cold", *tasks, *ends]
    assert all(row["bytes"] > 0 and row["reading_s"] > 0 < row["compute_s"] for row in rows[:2])
    assert all(row["efficiency"] > 0 for row in rows[:2])
    assert len(rows[-3]["seconds"]) == len(rows[-3]["first_row_ms"]) == 5
