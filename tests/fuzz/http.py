"""schemathesis against a server of its own: random requests, right and wrong, over the whole API.

usage: python -m tests.fuzz.http [--examples N] [--seed N]    (or: make fuzz)

Fails on a status of 500 or above, on statuses, media types, headers or bodies that ``/docs.json``
does not describe, on wrong requests that are accepted, and on requests that need no key and should.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

from pythia_bento.server.access.keys import new_key
from tests.e2e.serving import Server, serve

CONFIGURATION = Path(__file__).with_name("schemathesis.toml")
KEY = new_key()
# Small limits, so that no case is a long one, and one key, so that requests without it fail.
ORIGIN = "https://notes.example"  # whose pages may ask
SETTINGS = {
    **{"max_n": 3, "max_sequences": 16, "manage_models": True},
    **{"chat_template": Path(__file__).with_name("chat.jinja")},
    **{"api_keys": f"fuzz {KEY}", "cors_origins": ORIGIN},
}


class Result(NamedTuple):
    """What schemathesis found."""

    passed: bool
    cases: int
    report: str


def fuzz(server: Server, examples: int, seed: int) -> Result:
    """``examples`` random cases for each operation, besides those made of its schema's limits."""
    command = [
        str(Path(sys.executable).with_name("schemathesis")),
        *("--config-file", str(CONFIGURATION)),
        *("run", f"{server.url}/docs.json", "--url", server.url),
        *("--max-examples", str(examples), "--seed", str(seed)),
        # One: several threads that compile source at a time, as its imports do, can break Python
        # 3.11 ("AST constructor recursion depth mismatch").
        *("--workers", "1", "--continue-on-failure", "--no-color"),
    ]
    environment = {**os.environ, "PYTHIA_FUZZ_KEY": KEY}
    with tempfile.TemporaryDirectory() as folder:  # for what schemathesis remembers
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    found = re.search(r"^ +(\d+) generated", done.stdout, re.MULTILINE)
    report = done.stdout + done.stderr
    return Result(done.returncode == 0, int(found[1]) if found else 0, report)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--examples", type=int, default=4000, help="of each operation")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as home, serve(Path(home), **SETTINGS) as server:
        result = fuzz(server, options.examples, options.seed)
        print(result.report)
        server.settled()
    sys.exit(0 if result.passed else 1)


if __name__ == "__main__":
    main()
