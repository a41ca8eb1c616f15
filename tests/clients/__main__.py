"""Programs that others wrote, unchanged, against this server: ``make clients``.

Each runs in an environment of its own and tells what it was answered; that must be what the server
answers to a plain request. With ``--write`` the table of docs/clients.md is made anew.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.clients.programs import PROGRAMS, Program
from tests.e2e.serving import HTTP, ROOT, Server, serve

DOCUMENT = ROOT / "docs" / "clients.md"
SECONDS = 600
PLAIN = {"max_tokens": 13, "temperature": 0}


class Wrong(Exception):
    """A program failed, or was answered otherwise than a plain request; says how."""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.clients", description=__doc__)
    parser.add_argument("names", nargs="*", help="of programs, by default all")
    parser.add_argument("--write", action="store_true", help="make docs/clients.md anew")
    options = parser.parse_args()
    chosen = [one for one in PROGRAMS if not options.names or one.name in options.names]
    with tempfile.TemporaryDirectory() as home, serve(Path(home)) as server:
        rows = [tried(program, server) for program in chosen]
    failed = [row for row in rows if row is None]
    if options.write and not failed:
        write([row for row in rows if row])
    print(f"{len(rows) - len(failed)} passed, {len(failed)} failed")
    sys.exit(bool(failed))


def tried(program: Program, server: Server) -> str | None:
    """Its row of the table; None if it failed, which is printed."""
    try:
        how = check(program, server)
    except Wrong as wrong:
        print(f"FAIL {program.name}: {wrong}", flush=True)
        return None
    version = program.version()
    print(f"ok   {program.name} {version}: {how}", flush=True)
    return f"| {program.name} | {version} | {how} |"


def check(program: Program, server: Server) -> str:
    """What it was seen to do."""
    with tempfile.TemporaryDirectory() as folder:
        command = program.command(server.url, Path(folder))
        done = subprocess.run(
            command,
            cwd=folder,
            env=program.variables(),
            capture_output=True,
            text=True,
            timeout=SECONDS,
        )
        if done.returncode:
            raise Wrong(f"ended with {done.returncode}: {(done.stdout + done.stderr)[-2000:]}")
        if program.judge:
            return program.judge(done.stdout + done.stderr, Path(folder))
    told = [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"how"')]
    if not told:
        raise Wrong(f"told nothing: {done.stdout[-2000:]}")
    for one in told:
        compare(server, **one)
    return ", ".join(dict.fromkeys(one["how"] for one in told))


def compare(server: Server, how: str, text: str, prompt: str) -> None:
    answer = HTTP.post(f"{server.url}/v1/completions", json={**PLAIN, "prompt": prompt}).json()
    wanted = answer["choices"][0]["text"]
    if text.strip() != wanted.strip():  # some cut spaces off
        raise Wrong(f"{how}: {text!r} and not {wanted!r}")


def write(rows: list[str]) -> None:
    head = "| program | version | what was tried |\n|---|---|---|"
    table = "\n".join([head, *rows])
    text = DOCUMENT.read_text()
    marks = r"(<!-- tests.clients -->\n).*?(\n<!-- end -->)"
    DOCUMENT.write_text(re.sub(marks, lambda m: m[1] + table + m[2], text, flags=re.DOTALL))


if __name__ == "__main__":
    main()
