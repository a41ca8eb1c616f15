"""What is served, and how far loading it is."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace

from pythia_bento.checkpoints.shelf_entry import ShelfEntry

Progress = Callable[[str, int, int], None]  # what, done, total


@dataclass(frozen=True, slots=True)
class Provenance:
    """Which bytes answer, and by what arithmetic."""

    commit: str | None  # 40 hex digits; None for a local directory
    files: dict[str, str]  # name -> sha256
    weights_sha256: str  # over the names and hashes of ``files``
    quantization: str
    dtype: str  # of the weights
    matmul: str
    backend: str
    batch_invariant: bool
    version: str  # of this package
    same_weights: tuple[str, ...] = ()  # other branches that hold the same weights

    @property
    def root(self) -> bytes:
        """32 bytes for what decides keys and values: weights, kernels, arithmetic."""
        text = f"{self.weights_sha256} {self.backend} {self.matmul}"
        return hashlib.sha256(text.encode()).digest()

    def fingerprint(self, sources: str) -> str:
        """Names weights, code and arithmetic: equal ones give equal bits; see ``sources_hash``."""
        commit = (self.commit or "local")[:12]
        build = f"{self.version}-{commit}-{self.weights_sha256[:12]}-{sources}"
        return f"pythia-bento-{build}-{self.backend}-{self.matmul}"


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """What is served, as clients see it."""

    id: str
    aliases: tuple[str, ...] = ()
    fingerprint: str = ""  # names weights, code and arithmetic: equal ones give equal bits
    created: int = 0  # Unix time
    provenance: Provenance | None = None
    checkpoint: ShelfEntry | None = None  # what was loaded
    sources: str = ""  # hash of the code that decides bits

    @property
    def root(self) -> bytes:
        """Of keys and values; see ``Provenance``."""
        assert self.provenance is not None  # as all that was loaded has one
        return self.provenance.root

    @property
    def is_on_gpu(self) -> bool:
        """Whether a GPU computes."""
        return self.provenance is not None and self.provenance.backend == "triton"

    def of(self, entry: ShelfEntry) -> ModelInfo:
        """Of another checkpoint under the same code and arithmetic."""
        provenance = self.provenance and replace(
            self.provenance,
            commit=entry.commit,
            files=entry.files,
            weights_sha256=entry.weights,
            quantization=entry.quantization,
            same_weights=entry.same_weights,
        )
        return ModelInfo(
            id=entry.name,
            aliases=entry.names[1:],
            fingerprint=provenance.fingerprint(self.sources) if provenance else "",
            created=entry.created,
            provenance=provenance,
            checkpoint=entry,
            sources=self.sources,
        )
