"""Values, means and notes that are made of tables."""

from __future__ import annotations

from pathlib import Path

import pytest

from pythia_bento.cli.plot import plot
from pythia_bento.errors import InvalidRequest
from pythia_bento.sweep import curves
from pythia_bento.sweep.curves import METRICS, read_chart, usual_metric
from tests.sweep_tables import STEPS, put, put_all, row


def test_the_command_offers_every_metric() -> None:
    [metric] = [option for option in plot.params if option.name == "metric"]
    assert list(metric.type.to_info_dict()["choices"]) == list(METRICS)


def test_a_curve_for_each_item_and_one_for_all(tmp_path: Path) -> None:
    chart = read_chart(put_all(tmp_path), "logprob")
    assert [curve.name for curve in chart.curves] == ["text 0", "text 1", "text 2"]
    assert {curve.steps for curve in (*chart.curves, *chart.means)} == {STEPS}
    assert chart.curves[1].values[:2] == (-2.0, -1.0)
    [mean] = chart.means
    assert (mean.model, mean.name, mean.values[0]) == ("pythia-14m", "", -2.0)
    assert chart.notes == ()


def test_the_mean_loss_is_that_of_all_tokens(tmp_path: Path) -> None:
    rows = [row(0, logprob=-1.0, num_tokens=1), row(1, logprob=-9.0, num_tokens=9)]
    put(tmp_path, "m", 1, [*rows, row(2, logprob=-10.0, num_tokens=10)])
    chart = read_chart(tmp_path, "loss")
    assert chart.means[0].values == (1.0,)
    assert [curve.values for curve in chart.curves] == [(1.0,)] * 3


def test_ranks_have_a_geometric_mean(tmp_path: Path) -> None:
    put(tmp_path, "m", 1, [row(0, ranks=[1, 4, 16]), row(1, ranks=[4])])
    chart = read_chart(tmp_path, "rank")
    assert chart.is_log
    assert [curve.values[0] for curve in chart.curves] == pytest.approx([4, 4])
    assert chart.means[0].values[0] == pytest.approx(4)


def test_extraction_is_a_share_for_each_model(tmp_path: Path) -> None:
    for model, count in (("a", 1), ("b", 3)):
        put(tmp_path, model, 8, [row(i, extractable=i < count) for i in range(4)])
    assert usual_metric(tmp_path) == "extractable"
    chart = read_chart(tmp_path, "extractable")
    assert chart.curves == ()
    assert [(mean.model, mean.values) for mean in chart.means] == [("a", (0.25,)), ("b", (0.75,))]


def test_lines_of_json_are_read_as_parquet_is(tmp_path: Path) -> None:
    put_all(tmp_path / "parquet")
    put_all(tmp_path / "lines", suffix="jsonl")
    assert usual_metric(tmp_path / "lines") == "loss"
    assert read_chart(tmp_path / "lines", "rank") == read_chart(tmp_path / "parquet", "rank")


def test_what_is_left_out_is_said(tmp_path: Path) -> None:
    failed = row(1, error="too long", logprob=None)
    empty = row(2, logprob=0.0, num_tokens=0)
    put(tmp_path, "m", 1, [row(0), failed, empty])
    put(tmp_path, "m", None, [row(0)])
    assert read_chart(tmp_path, "loss").notes == (
        "1 rows failed and are left out.",
        "1 rows are of no training step and are left out.",
        "1 rows have no value and are left out.",
    )


def test_too_many_items_leave_the_mean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(curves, "MOST_CURVES", 2)
    put_all(tmp_path)
    chart = read_chart(tmp_path, "logprob")
    assert chart.curves == ()
    assert chart.means[0].steps == STEPS
    assert chart.notes == ("There are more than 2 items: only means of all are drawn.",)


@pytest.mark.parametrize(
    ("metric", "column"), [("rank", "ranks"), ("loss", "logprob"), ("extractable", "extractable")]
)
def test_a_metric_that_the_tables_lack_is_refused(tmp_path: Path, metric: str, column: str) -> None:
    put(tmp_path, "m", 1, [row(0, **{column: None})])
    with pytest.raises(InvalidRequest, match=f"has rows without {column}: --metric needs"):
        read_chart(tmp_path, metric)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"{", "line 2 is no row of a sweep"),
        (b"[]", "line 2 is no row of a sweep"),
        (b'{"model": "m", "step": "1", "item": 0}', "whose step is '1', no int"),
        (b'{"model": "m", "step": 1}', "whose item is None, no int"),
        (b'{"model": "m", "step": 1, "item": 0, "logprob": "x", "num_tokens": 1}', "no sweep's"),
    ],
)
def test_damaged_lines_are_named(tmp_path: Path, line: bytes, message: str) -> None:
    path = put(tmp_path, "m", 1, [row(0)], "jsonl")
    path.write_bytes(path.read_bytes().splitlines(keepends=True)[0] + line)
    with pytest.raises(InvalidRequest, match=message):
        read_chart(tmp_path, "loss")


def test_a_damaged_table_is_named(tmp_path: Path) -> None:
    path = put(tmp_path, "m", 1, [row(0)])
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(InvalidRequest, match=r"step=000001\.parquet cannot be read as Parquet"):
        read_chart(tmp_path, "loss")


def test_a_folder_without_tables_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="has no table of a sweep"):
        read_chart(tmp_path, "loss")
    with pytest.raises(InvalidRequest, match="is no folder"):
        read_chart(tmp_path / "none", "loss")
    put(tmp_path, "m", 1, [row(0, error="too long")])
    with pytest.raises(InvalidRequest, match="has no row that could be drawn: 1 rows failed"):
        read_chart(tmp_path, "loss")
