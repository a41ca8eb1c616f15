"""A server whose workers are forks, too, of a process that has imported what takes seconds.

circus starts a worker as a command. Here it is a fork of a process that was forked itself before
the server did anything, so that it knows no more than a new interpreter would; and it becomes a
child of the server, as there: who looks at the tree of processes, or ends one, sees it as ever.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import json
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from typing import Any, NoReturn

import circus.process
import psutil

SET_CHILD_SUBREAPER = 36  # of prctl: orphans below become children
MOST_BYTES, MOST_FILES = 1 << 17, 64
ABOVE = 512  # where files wait for their numbers


def fork_workers(run: Callable[..., NoReturn]) -> None:
    """From now on circus has ``run(arguments, folder, environment)`` called in a fork."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    server = os.getpid()
    if not os.fork():
        ours.close()
        _answer(theirs, server, run)
    theirs.close()
    assert not ctypes.CDLL(None).prctl(SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    circus.process.Popen = lambda *args, **options: _Worker(ours, *args, **options)


class _Worker(psutil.Process):
    """As psutil's Popen."""

    stdout = stderr = returncode = None

    def __init__(
        self, seeds: socket.socket, command: list[str], cwd: str, env: dict[str, str], **_: Any
    ) -> None:
        numbers = [number for number in map(int, os.listdir("/proc/self/fd")) if _is_kept(number)]
        asked = json.dumps([command, cwd, env, numbers]).encode()
        socket.send_fds(seeds, [asked], numbers)
        super().__init__(int(seeds.recv(16)))

    def poll(self) -> int | None:
        with contextlib.suppress(psutil.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int | None:
        self.returncode = super().wait(timeout)
        return self.returncode


def _is_kept(number: int) -> bool:
    """Whether a command would have this file."""
    with contextlib.suppress(OSError):
        return os.get_inheritable(number)
    return False


def _answer(asked: socket.socket, server: int, run: Callable[..., NoReturn]) -> NoReturn:
    """Fork for whatever the server asks, until it is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    while True:
        message, files, _, _ = socket.recv_fds(asked, MOST_BYTES, MOST_FILES)
        if not message:
            os._exit(0)
        here, there = os.pipe()
        if not (between := os.fork()):
            if worker := os.fork():
                os.write(there, b"%d" % worker)
                os._exit(0)
            asked.close()
            _become(server, files, run, *json.loads(message))
        os.waitpid(between, 0)  # then its child is the server's
        asked.send(os.read(here, 16))
        for number in (here, there, *files):
            os.close(number)


def _become(
    server: int,
    files: list[int],
    run: Callable[..., NoReturn],
    command: list[str],
    folder: str,
    environment: dict[str, str],
    numbers: list[int],
) -> NoReturn:
    """The worker, with all that circus gives it."""
    while os.getppid() != server:
        time.sleep(0.001)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.setsid()
    waiting = [fcntl.fcntl(number, fcntl.F_DUPFD, ABOVE) for number in files]
    os.closerange(0, ABOVE)
    for held, number in zip(waiting, numbers, strict=True):
        os.dup2(held, number)
        os.close(held)
    os.dup2(os.open(os.devnull, os.O_RDWR), sys.stdin.fileno())
    run(command[1:], folder, environment)
