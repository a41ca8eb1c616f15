from __future__ import annotations

import re
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]


def test_the_bento_installs_what_the_package_needs() -> None:
    bentofile = yaml.safe_load((ROOT / "bentofile.yaml").read_text())
    listed = re.search(
        r"^dependencies = \[\n(.*?)^\]", (ROOT / "pyproject.toml").read_text(), re.M | re.S
    )
    assert listed
    assert bentofile["python"]["packages"] == re.findall(r'^    "(.*)",$', listed[1], re.M)
