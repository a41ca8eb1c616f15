"""Programs that others wrote, unchanged, against a server; see tests/clients."""

from __future__ import annotations

import pytest

from tests.clients.__main__ import DOCUMENT, check
from tests.clients.programs import NODE, PROGRAMS, Program
from tests.e2e.serving import Server

NEEDS = {
    place: pytest.mark.needs("node programs" if place == NODE else "python programs")
    for place in {program.place for program in PROGRAMS}
}


@pytest.mark.long
@pytest.mark.parametrize(
    "program", [pytest.param(one, marks=NEEDS[one.place], id=one.name) for one in PROGRAMS]
)
def test_a_program_is_answered_as_a_plain_request_is(program: Program, server: Server) -> None:
    row = f"| {program.name} | {program.version()} | {check(program, server)} |"
    assert row in DOCUMENT.read_text().splitlines()
