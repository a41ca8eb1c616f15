"""Sweeps over checkpoints: how much of a sweep's time is loading and computing, and not waiting.

``python -m bench.sweeps [--device cuda] [--only cold,tasks,resident,beside]``: random checkpoints
in pythia-1b's shape, each in files of its own that are not in the system's cache, are scored with
100 and with 1,000 texts of 128 tokens. *Efficiency* is the longer of two times, that in which the
disk gives all bytes and that in which one checkpoint on the device answers as often, over the
sweep's; the aim is 0.85. Then what single checkpoints take (extraction of 10,000 texts of 32 + 32
tokens, 1,000 texts scored), one text of 64 tokens at 154 checkpoints on the device, and the time to
the first token of somebody else's short requests, alone and beside a sweep; the aim is 3 times at
the median.
``--device cpu`` tries all of it on few checkpoints of pythia-14m's shape.
"""

from __future__ import annotations

import json
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from bench.common.options import parser_of
from bench.gpu import harness
from bench.sweeps.beside import beside
from bench.sweeps.parts import cold, resident, tasks
from bench.sweeps.stage import FULL, TINY
from pythia_bento.runtime.backend import SWITCH_SECONDS

PARTS = {part.__name__: part for part in (cold, tasks, resident, beside)}


def main() -> None:
    """All parts; the file is written after each."""
    parser = parser_of("bench.sweeps", __doc__)
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--only", default=",".join(PARTS))
    parser.add_argument("--checkpoints", type=int, help="with files of their own")
    parser.add_argument("--out")
    options = parser.parse_args()
    sys.setswitchinterval(SWITCH_SECONDS)  # as servers and commands do
    sizes = TINY if options.device == "cpu" else FULL
    if options.checkpoints:
        sizes = replace(sizes, checkpoints=options.checkpoints)
    rows: list[dict[str, Any]] = []
    for part in options.only.split(","):
        with tempfile.TemporaryDirectory() as folder:
            for row in PARTS[part](sizes, options.device, Path(folder)):
                rows.append(row)
                print(json.dumps(row), flush=True)
                if options.out is not None:
                    harness.write(options.out, rows)


if __name__ == "__main__":
    main()
