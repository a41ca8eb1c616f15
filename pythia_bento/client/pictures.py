"""Pictures as files; matplotlib is imported when one is made."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pythia_bento.errors import InvalidRequest, PythiaError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Without the time, so that equal pictures are equal files.
METADATA: dict[str, dict[str, Any]] = {".png": {}, ".pdf": {"CreationDate": None}}


def save(make: Callable[[], Figure], path: Path, instead: str = "") -> None:
    """Write a picture, whole or not at all, the same everywhere whatever a user's own settings are.

    ``instead`` is what else there is where matplotlib is missing. Raises InvalidRequest for a kind
    of file that is not made, PythiaError without matplotlib, and OSError.
    """
    if path.suffix not in METADATA:
        raise InvalidRequest(f"{path.name} must end in .png or .pdf", param="path")
    try:
        import matplotlib
    except ImportError:
        raise PythiaError(
            "pictures are drawn with matplotlib, which is not installed; "
            f"pip install 'pythia-bento[sweep]'{instead}"
        ) from None
    partial = path.with_name(f".{path.name}.partial{path.suffix}")
    try:
        with matplotlib.rc_context(), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Glyph .* missing from")
            matplotlib.rcdefaults()
            matplotlib.rcParams["text.parse_math"] = False  # "$" in a name is a "$"
            make().savefig(partial, dpi=150, metadata=METADATA[path.suffix])
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
