"""The command line in a process of its own, which may end itself at any moment without a word."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from functools import wraps
from typing import Any

import pythia_bento.cli.sweeping
import pythia_bento.runtime.loading  # which a sweep would import, in seconds
from pythia_bento.cli import main
from pythia_bento.sweep import durable, table, tensor_file

__all__ = ["child", "pythia_bento"]


def child(arguments: list[str], moments: int | None) -> None:
    """Run a command; SIGKILL after so many moments: rows, writes, what is synced and renamed."""
    os.environ["PYTHIA_DEVICE"] = "cpu"
    if moments is not None:
        _Clock(moments).watch()
    sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115
    main(arguments)


class _Clock:
    def __init__(self, moments: int) -> None:
        self._left = moments

    def watch(self) -> None:
        for holder, name in (
            (table.TableFile, "add"),
            (table.TableFile, "_flush"),
            (table.TableFile, "finish"),
            (table, "write_json"),
            (tensor_file.TensorFile, "add"),
            (tensor_file.TensorFile, "finish"),
            (tensor_file.shutil, "copyfileobj"),
            (durable.os, "fsync"),
        ):
            setattr(holder, name, self._counted(getattr(holder, name)))

    def _counted(self, function: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(function)
        def counted(*arguments: Any, **options: Any) -> Any:
            result = function(*arguments, **options)
            self._left -= 1
            if self._left <= 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        return counted
