"""The pages on security and faults name tests that are there: no sentence without its test."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

ROOT = Path(__file__).parents[2]
HEADS = ("| tried ", "| fault ", "| | found ", "| what ")  # of tables
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])
NAMED = re.compile(r"`((?:e2e|unit|integration|gpu)/[\w/]+(?:\.py)?)?(?:::(\w+))?`")


def named(text: str) -> list[tuple[str, str]]:
    """Files and functions; where the file is left out, it is the one before."""
    found, file = [], ""
    for name, function in NAMED.findall(text):
        if name or function:
            file = name or file
            found.append((file, function))
    return found


def test_the_index_has_a_line_for_every_page() -> None:
    index = (ROOT / "docs" / "README.md").read_text()
    listed = re.findall(r"^- \[([\w.]+)\]\(([\w.]+)\): \S.*\.$", index, re.MULTILINE)
    assert all(shown == target for shown, target in listed)
    pages = {path.name for path in (ROOT / "docs").glob("*.md")} - {"README.md"}
    assert sorted(name for name, _ in listed) == sorted(pages)


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_links_lead_to_pages_and_headings_that_are_there(page: Path) -> None:
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    for target in re.findall(r"\]\((?!\w+:)([^)\s]+)\)", text):
        name, _, heading = target.partition("#")
        path = page.parent / name if name else page
        assert path.exists(), target
        if heading:
            assert heading in headings(path), target


def headings(page: Path) -> set[str]:
    """As GitHub names them."""
    found = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in found}


def test_the_picture_of_a_request_s_way_names_rooms_and_has_words_for_who_cannot_see_it() -> None:
    picture = ElementTree.parse(ROOT / "docs" / "pictures" / "request.svg").getroot()
    assert picture.get("role") == "img"
    for name in (picture.get("aria-labelledby") or "").split():
        [words] = [node for node in picture.iter() if node.get("id") == name]
        assert words.text
    rooms = [node.text for node in picture.iter() if node.get("class") == "head"]
    assert rooms == ["server", "handlers", "runtime", "engine", "model", "checkpoints"]
    assert all((ROOT / "pythia_bento" / str(room)).is_dir() for room in rooms)
    styles = "".join(node.text or "" for node in picture.iter() if node.tag.endswith("style"))
    light, dark = styles.split("@media (prefers-color-scheme: dark)")
    coloured = set(re.findall(r"[.\w]+(?= \{)", light)) - {".head", ".how", ".a", ".b", ".c"}
    assert coloured <= set(re.findall(r"[.\w]+(?= \{)", dark))  # nothing dark on dark


@pytest.mark.parametrize("page", ["security.md", "faults.md"])
def test_the_tests_that_a_page_names_are_there(page: str) -> None:
    tests = named((ROOT / "docs" / page).read_text())
    assert len(tests) > 50
    for name, function in tests:
        path = ROOT / "tests" / name
        assert path.exists(), name
        if function:
            assert f"def {function}(" in path.read_text(), (name, function)


@pytest.mark.parametrize(
    ("page", "heading", "least"),
    [
        ("security.md", "## What an attacker may try", 50),
        ("faults.md", "## Faults", 20),
        ("faults.md", "## What was found, and the tests that show it", 30),
        ("faults.md", "## What held, and the tests that show it", 15),
    ],
)
def test_every_row_has_a_test(page: str, heading: str, least: int) -> None:
    text = (ROOT / "docs" / page).read_text().partition(heading)[2].partition("\n## ")[0]
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    rows = [row for row in rows if not row.startswith(HEADS)]
    assert len(rows) >= least
    for row in rows:
        assert named(row) or "`make " in row or row.endswith("| same |"), row
