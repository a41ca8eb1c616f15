"""Commands that start at once: what takes seconds is imported in one process, which forks.

``at_once()`` is a folder of ``pythia-bento`` and ``python`` (for ``-c``), which stand for those of
the environment. Each hands its arguments, directory, environment and standard streams to that
process, and has the status of the fork.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import select
import socket
import subprocess
import sys
import tempfile
import threading
import traceback
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

ROOT = Path(__file__).parents[1]
CLIENT = """#!{python} -IS
import json, os, socket, sys
with socket.socket(socket.AF_UNIX) as parent:
    parent.connect({address!r})
    socket.send_fds(parent, [b"-"], [0, 1, 2])
    asked = [{name!r}, sys.argv[1:], os.getcwd(), dict(os.environ)]
    parent.sendall(json.dumps(asked).encode())
    parent.shutdown(socket.SHUT_WR)
    status = int(parent.recv(9) or 70)
sys.exit(status)
"""


@contextlib.contextmanager
def at_once() -> Iterator[Path]:
    """The folder of both commands, while they work."""
    pipes: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with tempfile.TemporaryDirectory() as folder:  # a path for sockets has to be short
        address = f"{folder}/parent"
        for name in COMMANDS:
            script = Path(folder) / name
            script.write_text(CLIENT.format(python=sys.executable, address=address, name=name))
            script.chmod(0o755)
        command = [sys.executable, "-m", "tests.at_once", address]
        # It ends when the other end of its input is closed, even by our death.
        with subprocess.Popen(command, cwd=ROOT, **pipes) as parent:
            assert parent.stdout and parent.stdout.readline() == b"ready\n"
            yield Path(folder)


def main(address: str) -> None:
    """Fork for whoever connects, until standard input ends."""
    import bentoml_cli.cli  # noqa: F401
    import matplotlib.pyplot  # noqa: F401
    import pyarrow.parquet  # noqa: F401

    import pythia_bento.cli.capturing
    import pythia_bento.cli.sweeping
    import pythia_bento.runtime.loading  # noqa: F401

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(address)
        listener.listen()
        print("ready", flush=True)
        while listener in select.select([listener, sys.stdin], [], [])[0]:
            connection, _ = listener.accept()
            if not os.fork():
                listener.close()
                return _answer(connection)
            connection.close()
            _reap()


def _reap() -> None:
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def _answer(connection: socket.socket) -> None:
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
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        connection.sendall(b"%d" % (status if status >= 0 else 128 - status))
    os._exit(0)


def _status(name: str, arguments: list[str], folder: str, environment: dict[str, str]) -> int:
    """Of what is asked, once it has run."""
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
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


def _pythia_bento(arguments: list[str]) -> None:
    from pythia_bento.cli import main

    main(arguments)


def _python(arguments: list[str]) -> None:
    option, code = arguments
    assert option == "-c"
    module = sys.modules["__main__"] = types.ModuleType("__main__")
    exec(compile(code, "<string>", "exec"), vars(module))


def _bentoml(arguments: list[str]) -> None:
    from bentoml_cli.cli import cli

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
    main(sys.argv[1])
