"""A folder tree that holds repositories as a hub sees them.

``<root>/<owner>/<name>/commits/<commit>/...`` are the files of a commit, and
``<root>/<owner>/<name>/refs/<branch>`` holds the commit that a branch points to.
"""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import dataclass
from pathlib import Path

LFS_SUFFIXES = (".safetensors", ".bin", ".pt")
LFS_SIZE = 1 << 20


@dataclass(frozen=True)
class HubFile:
    """One file of a commit, with what the hub tells about it."""

    name: str
    path: Path
    size: int
    sha256: str
    blob_id: str  # git's name of the blob; of the pointer for a file in LFS
    is_lfs: bool
    pointer_size: int

    @property
    def etag(self) -> str:
        return self.sha256 if self.is_lfs else self.blob_id


class HubFolder:
    """Reads and writes such a tree."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._described: dict[Path, HubFile] = {}

    def commit(self, repo: str, branch: str, source: Path, commit: str | None = None) -> str:
        """Make the files of ``source`` the head of ``branch``; older commits stay."""
        names = sorted(p.relative_to(source).as_posix() for p in source.rglob("*") if p.is_file())
        digest = hashlib.sha1(f"{repo} {branch}".encode())
        for name in names:
            digest.update(name.encode() + b"\0" + (source / name).read_bytes())
        commit = commit or digest.hexdigest()
        target = self.root / repo / "commits" / commit
        shutil.copytree(source, target, dirs_exist_ok=True)
        self.point(repo, branch, commit)
        return commit

    def point(self, repo: str, branch: str, commit: str) -> None:
        """Make ``branch`` point to ``commit``."""
        ref = self.root / repo / "refs" / branch
        ref.parent.mkdir(parents=True, exist_ok=True)
        ref.write_text(commit)

    def has(self, repo: str) -> bool:
        return (self.root / repo / "refs").is_dir()

    def refs(self, repo: str) -> dict[str, str]:
        """branch -> commit."""
        return {ref.name: ref.read_text() for ref in sorted((self.root / repo / "refs").iterdir())}

    def resolve(self, repo: str, revision: str) -> str | None:
        """The commit of a branch, or a commit that exists."""
        if (self.root / repo / "commits" / revision).is_dir():
            return revision
        return self.refs(repo).get(revision)

    def files(self, repo: str, commit: str) -> list[HubFile]:
        root = self.root / repo / "commits" / commit
        return [
            self._describe(path, path.relative_to(root).as_posix())
            for path in sorted(root.rglob("*"))
            if path.is_file()
        ]

    def _describe(self, path: Path, name: str) -> HubFile:
        if path not in self._described:
            data = path.read_bytes()
            sha256 = hashlib.sha256(data).hexdigest()
            pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\n"
            pointer += f"size {len(data)}\n"
            is_lfs = name.endswith(LFS_SUFFIXES) or len(data) >= LFS_SIZE
            blob = pointer.encode() if is_lfs else data
            blob_id = hashlib.sha1(b"blob %d\0" % len(blob) + blob).hexdigest()
            described = HubFile(name, path, len(data), sha256, blob_id, is_lfs, len(pointer))
            self._described[path] = described
        return self._described[path]

    def forget(self) -> None:
        """Look at files anew, after a test changed them in place."""
        self._described.clear()
