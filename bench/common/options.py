"""The command line of a benchmark."""

from __future__ import annotations

import argparse


def parser_of(module: str, description: str | None) -> argparse.ArgumentParser:
    """Of ``python -m module``; its docstring is its help, as it stands."""
    return argparse.ArgumentParser(
        prog=f"python -m {module}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
