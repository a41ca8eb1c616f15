"""What was written outside of a folder, and what changed inside that is not to be touched."""

from __future__ import annotations

import hashlib
import os
import stat
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_CHANGES = {
    *("os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.symlink", "os.link", "os.chmod"),
    *("os.truncate", "os.chown", "shutil.rmtree", "shutil.move", "shutil.copyfile"),
}
# Of the interpreter and of what it imports; /dev/null is nobody's file.
_ALLOWED = ("/dev/", "/proc/")


class Watch:
    """Sees every path that Python writes to, makes, moves or deletes in this process."""

    def __init__(self, root: Path) -> None:
        self.root = str(root.resolve())
        self.outside: list[str] = []
        sys.addaudithook(self._see)

    def _see(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            path, mode, flags = arguments
            writes = bool(flags & _WRITING) if isinstance(flags, int) else "r" not in (mode or "r")
            if writes:
                self._look(event, path)
        elif event in _CHANGES:
            for path in arguments[: 1 if event in ("os.symlink", "shutil.copyfile") else 2]:
                self._look(event, arguments[1] if event.endswith(("symlink", "copyfile")) else path)

    def _look(self, event: str, path: Any) -> None:
        if not isinstance(path, (str, bytes, os.PathLike)):
            return
        text = os.fsdecode(path)
        if not os.path.isabs(text) and "/" not in text and text not in ("..", "."):
            return  # of a directory that is held open
        whole = os.path.realpath(text)
        if not (whole.startswith((self.root, *_ALLOWED)) or "__pycache__" in whole):
            self.outside.append(f"{event} {text}")


def tree(root: Path, but: Sequence[Path]) -> dict[str, tuple[int, str]]:
    """Every entry below ``root`` with its kind and content, without ``but``."""
    found = {}
    left_out = {str(path) for path in but}
    for folder, names, files in os.walk(root):
        names[:] = [name for name in names if os.path.join(folder, name) not in left_out]
        for path in (Path(folder, name) for name in (*names, *files)):
            if str(path) in left_out:
                continue
            kind = stat.S_IFMT(path.lstat().st_mode)
            content = path.read_bytes() if stat.S_ISREG(kind) else b""
            found[str(path.relative_to(root))] = (kind, hashlib.sha256(content).hexdigest())
    return found
