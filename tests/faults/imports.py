"""The real service that writes down late imports: ``bentoml serve tests.faults.imports:Pythia``.

Each line of the file that IMPORTS names is a module that a process looked for and did not have yet.
"""

from __future__ import annotations

import os
import sys
from importlib.machinery import ModuleSpec
from typing import Any

from pythia_bento.service import Pythia

__all__ = ["Pythia"]


class Recorder:
    """Python asks it for whatever is not there yet; it finds nothing itself."""

    def __init__(self, path: str) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC)

    def find_spec(self, name: str, *_: Any) -> ModuleSpec | None:
        os.write(self._file, f"{name}\n".encode())
        return None


sys.meta_path.insert(0, Recorder(os.environ["IMPORTS"]))
