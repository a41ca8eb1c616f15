"""The alert rules, by Prometheus' own promtool (Debian's package ``prometheus``)."""

from __future__ import annotations

import copy
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.unit.deploy.manifests import ROOT, document

needs_promtool = pytest.mark.needs("promtool")
CASES = Path(__file__).with_name("alerts.yaml")


def groups() -> list[dict[str, Any]]:
    found = document("overlays/monitoring/prometheusrule.yaml")["spec"]["groups"]
    return list(found)


def rules() -> list[dict[str, Any]]:
    return [rule for group in groups() for rule in group["rules"]]


def promtool(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = ["promtool", *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=120)


def place(folder: Path, found: list[dict[str, Any]], alert: str = "") -> None:
    """The rules as a file of Prometheus' own, and beside it the cases, or those of one alert."""
    (folder / "rules.yaml").write_text(yaml.safe_dump({"groups": found}))
    cases = yaml.safe_load(CASES.read_text())
    cases["tests"] = [case for case in cases["tests"] if alert in ("", alert_of(case))]
    (folder / "cases.yaml").write_text(yaml.safe_dump(cases))


def alert_of(case: dict[str, Any]) -> str:
    return str(case["name"].split()[0])


@needs_promtool
def test_rules_are_right_for_prometheus(tmp_path: Path) -> None:
    place(tmp_path, groups())
    done = promtool("check", "rules", "--lint-fatal", "rules.yaml", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(rules())} rules found" in done.stdout


@needs_promtool
def test_each_alert_fires_on_its_series_and_none_on_a_service_that_is_well(tmp_path: Path) -> None:
    place(tmp_path, groups())
    done = promtool("test", "rules", "cases.yaml", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


def test_each_alert_has_a_case() -> None:
    cases = {alert_of(case) for case in yaml.safe_load(CASES.read_text())["tests"]}
    assert cases - {"a"} == {rule["alert"] for rule in rules()}


@needs_promtool
@pytest.mark.parametrize("alert", [rule["alert"] for rule in rules()])
def test_control_without_the_alert_its_case_fails(alert: str, tmp_path: Path) -> None:
    without = copy.deepcopy(groups())
    for group in without:
        group["rules"] = [rule for rule in group["rules"] if rule["alert"] != alert]
    place(tmp_path, without, alert)
    done = promtool("test", "rules", "cases.yaml", cwd=tmp_path)
    assert done.returncode != 0
    assert alert in done.stdout + done.stderr


def test_the_guide_explains_each_alert_where_it_points_to() -> None:
    guide = (ROOT / "docs" / "operations.md").read_text()
    titles = {title.lower() for title in re.findall(r"^#+ (.*)$", guide, re.MULTILINE)}
    for rule in rules():
        path, _, anchor = rule["annotations"]["runbook"].partition("#")
        assert path == "docs/operations.md"
        assert anchor == rule["alert"].lower()
        assert anchor in titles, anchor
