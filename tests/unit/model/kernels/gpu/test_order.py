"""What a copy of weights on the stream relies on."""

from __future__ import annotations

import re
from pathlib import Path

from pythia_bento.model.kernels import gpu

EARLY = re.compile(r"launch_pdl|griddepcontrol|gdc_|programmatic|cudaGridDependency", re.IGNORECASE)


def test_no_kernel_begins_before_the_one_ahead_of_it_has_ended() -> None:
    """Else it might read weights while others are copied over them: see executor/graphs/active."""
    [folder] = gpu.__path__
    files = [path for path in Path(folder).rglob("*") if path.suffix in (".py", ".cu", ".cuh")]
    assert len(files) > 20
    assert not [path.name for path in files if EARLY.search(path.read_text())]
