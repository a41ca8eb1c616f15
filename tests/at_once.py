"""Commands that start at once: what takes seconds is imported in one process, which forks.

``shared()`` is a folder of ``bentoml``, ``pythia-bento`` and ``python``, which stand for those of
the environment. Each hands its arguments, directory, environment and standard streams to that
process, and has the status of the fork. ``Fork`` is a command whose process can be looked at.
Workers of a server are forks too (``tests/forked_workers.py``).
"""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import functools
import importlib
import json
import os
import runpy
import secrets
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import traceback
import types
from pathlib import Path
from typing import NoReturn

ROOT = Path(__file__).parents[1]
IMPORTED = (  # what commands, servers and their workers import, as far as no setting decides it
    *("bentoml_cli.cli", "bentoml.serving", "bentoml._internal.service.loader", "circus.process"),
    *("_bentoml_impl.server.app", "_bentoml_impl.server.serving", "_bentoml_impl.worker.patch"),
    *("grpc.aio", "matplotlib.pyplot", "pyarrow.parquet", "uvloop"),
    *("pythia_bento.cli.capturing", "pythia_bento.cli.sweeping", "pythia_bento.runtime.loading"),
    *("pythia_bento.server.openapi.operations", "pythia_bento.server.http.openai"),
    *("pythia_bento.server.http.native", "pythia_bento.server.grpc.bentoml_v1"),
    *("pythia_bento.server.grpc.intake", "uvicorn.protocols.http.httptools_impl", "tests.frozen"),
)
ADDRESS = "parent"
COVERAGE = "COVERAGE_PROCESS_CONFIG"
CLIENT = """#!{python} -IS
import json, os, socket, sys
with socket.socket(socket.AF_UNIX) as parent:
    parent.connect({address!r})
    socket.send_fds(parent, [b"-"], [0, 1, 2])
    asked = [{name!r}, sys.argv[1:], os.getcwd(), dict(os.environ)]
    parent.sendall(json.dumps(asked).encode())
    parent.shutdown(socket.SHUT_WR)
    _, status = parent.makefile().read().split() or (0, 70)
sys.exit(int(status) if int(status) >= 0 else 128 - int(status))
"""


class Fork:
    """What subprocess.Popen is for a command, here for one of ``shared()``."""

    def __init__(
        self, command: Path, arguments: list[str], cwd: Path, env: dict[str, str], output: int
    ) -> None:
        self._parent = socket.socket(socket.AF_UNIX)
        self._parent.connect(str(command.with_name(ADDRESS)))
        with open(os.devnull) as nothing:
            socket.send_fds(self._parent, [b"-"], [nothing.fileno(), output, output])
        self._parent.sendall(json.dumps([command.name, arguments, str(cwd), env]).encode())
        self._parent.shutdown(socket.SHUT_WR)
        self._said = self._parent.makefile()
        self.pid = int(self._said.readline())
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """The status, negative for a signal, or None as long as it runs."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Raises TimeoutExpired."""
        if self.returncode is None:
            if not select.select([self._parent], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired(f"process {self.pid}", timeout or 0)
            self.returncode = int(self._said.readline())
            self._said.close()
            self._parent.close()
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


@functools.cache
def shared() -> Path:
    """The folder of the commands. All workers of pytest-xdist have one process, until they end."""
    run = os.environ.get("PYTEST_XDIST_TESTRUNUID")
    owner = os.getppid() if run else os.getpid()
    # A path for sockets has to be short.
    folder = Path(tempfile.gettempdir()) / f"at-once-{run or secrets.token_hex(16)}"
    folder.mkdir(exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / ADDRESS).exists():
            command = [sys.executable, "-m", "tests.at_once", folder, str(owner)]
            nothing = subprocess.DEVNULL
            subprocess.run(command, cwd=ROOT, stdin=nothing, stdout=nothing, check=True)
    return folder


def main(folder: Path, owner: int) -> None:
    """Fork for whoever connects, in a process of its own, until the owner is gone."""
    for name in IMPORTED:
        importlib.import_module(name)
    assert "prometheus_client" not in sys.modules  # it asks the environment when it is imported
    address = str(folder / ADDRESS)
    for name in COMMANDS:
        script = folder / name
        script.write_text(CLIENT.format(python=sys.executable, address=address, name=name))
        script.chmod(0o755)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(address)
        listener.listen()
        if os.fork():
            os._exit(0)  # which says that it is ready
        os.dup2(sys.stdin.fileno(), sys.stderr.fileno())  # nobody has to wait for its end
        _serve(listener, owner)
    shutil.rmtree(folder)


def _serve(listener: socket.socket, owner: int) -> None:
    while Path(f"/proc/{owner}").exists():
        _reap()
        if select.select([listener], [], [], 1)[0]:
            connection, _ = listener.accept()
            if not os.fork():
                listener.close()
                _answer(connection)
            connection.close()


def _reap() -> None:
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def _answer(connection: socket.socket) -> NoReturn:
    """Have a fork run what is asked; tell its status."""
    with connection:
        _, streams, _, _ = socket.recv_fds(connection, 1, 3)
        asked = b"".join(iter(lambda: connection.recv(1 << 16), b""))
        if not (child := os.fork()):
            connection.close()
            for number, stream in enumerate(streams):
                os.dup2(stream, number)
                os.close(stream)
            _end(_status(*json.loads(asked)))
        connection.sendall(b"%d\n" % child)
        for stream in (*streams, 0, 1, 2):  # who reads them waits for the end of what was asked
            os.close(stream)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        with contextlib.suppress(BrokenPipeError):
            connection.sendall(b"%d\n" % status)
    os._exit(0)


def _status(name: str, arguments: list[str], folder: str, environment: dict[str, str]) -> int:
    """Of what is asked, once it has run."""
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    _measure()
    try:
        COMMANDS[name](arguments)
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def _measure() -> None:
    """Not for coverage where the environment does not ask for it: the parent may be measured."""
    coverage = sys.modules.get("coverage")
    if coverage and COVERAGE not in os.environ and (current := coverage.Coverage.current()):
        current.stop()


def _pythia_bento(arguments: list[str]) -> None:
    from pythia_bento.cli import main

    main(arguments)


def _python(arguments: list[str]) -> None:
    option, code, *rest = arguments
    if option == "-m":
        sys.argv[:] = [code, *rest]
        sys.path.insert(0, os.getcwd())
        runpy.run_module(code, run_name="__main__", alter_sys=True)
        return
    assert option == "-c"
    module = sys.modules["__main__"] = types.ModuleType("__main__")
    exec(compile(code, "<string>", "exec"), vars(module))


def _bentoml(arguments: list[str]) -> None:
    from bentoml_cli.cli import cli

    from tests.forked_workers import fork_workers

    if arguments[0] == "serve":
        fork_workers(lambda *asked: _end(_status("python", *asked)))
    cli(arguments)


COMMANDS = {"bentoml": _bentoml, "pythia-bento": _pythia_bento, "python": _python}


def _end(status: int) -> NoReturn:
    """As an interpreter ends, but that it does not take all modules apart, for a second."""
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
