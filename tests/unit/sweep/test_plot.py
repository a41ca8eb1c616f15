"""Files with curves: what is in them, and that equal tables give equal bytes."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from pythia_bento.cli import main
from pythia_bento.errors import InvalidRequest, PythiaError
from pythia_bento.sweep.curves import Chart, Curve, read_chart
from pythia_bento.sweep.plot import figure_of, write
from pythia_bento.sweep.report import report
from tests.sweep_tables import put, put_all, row

BEGIN = {".png": b"\x89PNG\r\n", ".pdf": b"%PDF-1.", ".html": b"<!doctype html>"}
HOSTILE = "</script><script>alert(1)</script> $x_{ __ 雨 \u0007"


def chart_of(*names: str) -> Chart:
    curves = tuple(Curve("m", name, (0, 8), (-2.0, -1.0)) for name in names)
    return Chart("m: loss", "loss", "loss", False, curves, (Curve("m", "", (0, 8), (3, 1)),), ())


# All files in one process, which takes seconds to start; in another order in the other one.
PLOTS = """
import sys
from pythia_bento.cli import main
for path in sys.argv[2:]:
    try:
        main(["plot", sys.argv[1], "--output", path])
    except SystemExit as end:
        assert not end.code, end.code
"""


def test_processes_with_other_hashes_write_the_same_bytes(tmp_path: Path) -> None:
    put_all(tmp_path, ("pythia-14m", "pythia-31m"))
    for seed, suffixes in (("1", [*BEGIN]), ("2", [*reversed(BEGIN)])):
        paths = [str(tmp_path / f"{seed}{suffix}") for suffix in suffixes]
        command = [sys.executable, "-c", PLOTS, str(tmp_path), *paths]
        subprocess.run(command, env={**os.environ, "PYTHONHASHSEED": seed}, check=True)
    for suffix, begin in BEGIN.items():
        one, other = ((tmp_path / f"{seed}{suffix}").read_bytes() for seed in "12")
        assert one == other
        assert one.startswith(begin)


def test_the_report_holds_every_value_and_no_address(tmp_path: Path) -> None:
    chart = read_chart(put_all(tmp_path), "loss")
    text = report(chart)
    [data] = re.findall(r'<script id="data" type="application/json">(.*?)</script>', text, re.S)
    curves = json.loads(data)["curves"]
    shown = [(one["name"], tuple(one["steps"]), tuple(one["values"])) for one in curves]
    assert shown == [(one.name, one.steps, one.values) for one in (*chart.curves, *chart.means)]
    addresses = set(re.findall(r"\w+://[^\s\"']+", text))
    assert addresses == {"http://www.w3.org/2000/svg"}  # a name, which nobody loads
    assert not re.search(r"\b(src|href)\s*=|@import|url\(", text)


def test_no_text_ends_the_element_that_it_stands_in() -> None:
    text = report(chart_of(HOSTILE, "<b>"))
    assert text.count("<script") == text.count("</script>") == 2
    assert "alert(1)</script>" not in text
    titled = report(Chart("<img src=x>", "loss", "<b>", False, (), chart_of().means, ("<i>",)))
    assert "<img" not in titled and "<b>" not in titled and "<i>" not in titled


@pytest.mark.parametrize("suffix", BEGIN)
def test_any_name_can_be_drawn(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"chart{suffix}"
    write(chart_of(HOSTILE, "_hidden", "x" * 1000, "$\\frac{"), path)
    assert path.read_bytes().startswith(BEGIN[suffix])
    assert [one.name for one in tmp_path.iterdir()] == [path.name]


def test_more_curves_than_a_legend_holds(tmp_path: Path) -> None:
    write(chart_of(*map(str, range(50))), tmp_path / "chart.png")


def test_axes_have_plain_numbers(tmp_path: Path) -> None:
    put_all(tmp_path)
    figure = figure_of(read_chart(tmp_path, "rank"))
    figure.draw_without_rendering()
    [axes] = figure.axes
    assert [label.get_text() for label in axes.get_xticklabels()][:3] == ["0", "1", "10"]
    assert "10,000" in [label.get_text() for label in axes.get_xticklabels()]
    texts = [label.get_text() for label in axes.get_yticklabels(which="both")]
    assert any(texts) and not any("$" in text for text in texts)


def test_other_kinds_of_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match=r"output is a\.gif, but must end in \.html, "):
        write(chart_of(), tmp_path / "a.gif")


def test_a_file_stays_where_a_new_one_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "chart.png"
    path.write_text("the last one")
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(PythiaError, match=r"pip install 'pythia-bento\[sweep\]', or --output"):
        write(chart_of(), path)
    assert path.read_text() == "the last one"
    assert [one.name for one in tmp_path.iterdir()] == [path.name]


def test_tables_need_pyarrow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put_all(tmp_path)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(PythiaError, match=r"pip install 'pythia-bento\[sweep\]'"):
        read_chart(tmp_path, "loss")


def test_the_command_writes_a_report_and_says_what_is_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    put(tmp_path, "m", 1, [row(0), row(1, error="too long")])
    with pytest.raises(SystemExit) as caught:
        main(["plot", str(tmp_path)])
    assert caught.value.code == 0
    out, err = capsys.readouterr()
    assert (out, err) == (f"{tmp_path}/report.html\n", "1 rows failed and are left out.\n")
    assert "loss, nats a token" in (tmp_path / "report.html").read_text()


@pytest.mark.parametrize(
    "arguments", [("none",), (".", "--metric", "bits"), (".", "--output", "a")]
)
def test_input_at_fault_is_status_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...]
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as caught:
        main(["plot", *arguments])
    assert caught.value.code == 2
