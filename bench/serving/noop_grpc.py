"""A ``grpc.aio`` server that does nothing: what gRPC itself costs on this machine.

It answers ``Score`` and ``Generate`` of ``pythia.v1.Pythia`` at once, with as many messages as the
service and about as many bytes, in the event loop that the service has.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import grpc

from bench.serving.client import run_loop
from pythia_bento.protocol.generated import pythia_pb2 as pb
from pythia_bento.protocol.generated.pythia_pb2_grpc import (
    PythiaServicer,
    add_PythiaServicer_to_server,
)

HOST = "127.0.0.1"
TOKEN = {"id": 300, "text": " there", "logprob": -1.5}
SCORE = pb.ScoreResponse(
    results=[{"score": {"logprob": -10.5, "num_tokens": 7, "tokens": [TOKEN] * 7}}]
)
PART = pb.GenerateResponse(
    deltas=[{"text": " there", "token_ids": [300], "finish_reason": pb.FINISH_REASON_LENGTH}],
    summary={"model": "none", "num_prompt_tokens": 8, "num_completion_tokens": 1},
)


class Nothing(PythiaServicer):
    """Says the same whatever it is asked."""

    async def Score(self, request: Any, context: Any) -> pb.ScoreResponse:
        return SCORE

    async def Generate(self, request: Any, context: Any) -> None:
        await context.write(PART)


@contextmanager
def noop_server() -> Iterator[str]:
    """Its address, while it runs in a process of its own."""
    command = [sys.executable, "-m", "bench.serving.noop_grpc"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            port = int(process.stdout.readline())
            yield f"{HOST}:{port}"
        finally:
            process.terminate()


async def _serve() -> None:
    server = grpc.aio.server()
    add_PythiaServicer_to_server(Nothing(), server)
    port = server.add_insecure_port(f"{HOST}:0")
    await server.start()
    print(port, flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    run_loop(_serve())
