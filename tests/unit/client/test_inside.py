"""What the client asks of the inside, and how it reads answers of many bytes, over HTTP."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from email import message_from_bytes
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
import pytest
import torch

from pythia_bento.client import AsyncClient, Client, http_transport
from pythia_bento.client.inside import Asked, activations_of, patch_of
from pythia_bento.client.specs import inline, inline_task
from pythia_bento.errors import (
    DeadlineExceeded,
    EngineUnavailable,
    InvalidRequest,
    Overloaded,
    PythiaError,
)
from pythia_bento.protocol import tensors
from tests.unit.protocol.test_activations import ARRAYS, file

SITE = "blocks.*.hook_resid_post"
RESID = "blocks.1.hook_resid_pre"
GRID = {
    **{"values": [[1.5, 2.0]], "clean": 3.0, "corrupted": 1.0, "layers": [0]},
    **{"positions": [0, 1], "tokens": ["a", " b"], "model": "toy", "system_fingerprint": "print"},
}
ERROR = {"error": {"code": "overloaded", "message": "full", "param": None}}


def asked(prompts: Any = "a b", capture: Any = SITE, **others: Any) -> Asked:
    options = {"interventions": (), "logits": None, "dtype": "float32", "names": "transformer-lens"}
    options |= {"model": None, "options": {}} | others
    return activations_of(prompts, capture, **options)


@pytest.mark.parametrize(
    ("prompts", "sent"),
    [
        ("a b", ["a b"]),
        (["a", "b"], ["a", "b"]),
        ([5, 6], [[5, 6]]),
        (np.array([5, 6]), [[5, 6]]),
        (torch.tensor([5, 6]), [[5, 6]]),
        ([[5, 6], "a", (7,)], [[5, 6], "a", [7]]),
        (np.array([[5], [6]]), [[5], [6]]),
        ([], []),
    ],
)
def test_prompts(prompts: Any, sent: list[Any]) -> None:
    assert asked(prompts).fields["prompts"] == sent


def test_what_is_to_be_seen_as_json_has_it() -> None:
    assert asked().fields == {
        **{"prompts": ["a b"], "capture": [{"site": SITE}], "interventions": []},
        "dtype": "float32",
    }
    spec = {
        **{"site": "layers_output[5]", "positions": range(2, 4), "heads": np.array([0, 3])},
        **{"neurons": None, "reduce": {"lens": {"top": 2, "tokens": [1]}}},
    }
    found = asked(capture=[spec, "resid"], names="nnterp", options={"max_tokens": 3, "seed": None})
    assert found.fields["capture"] == [
        {
            **{"site": "blocks.5.hook_resid_post", "positions": [2, 3], "heads": [0, 3]},
            "reduce": {"lens": {"top": 2, "tokens": [1]}},
        },
        {"site": "resid"},
    ]
    assert found.fields["max_tokens"] == 3 and "seed" not in found.fields
    logits = {"tokens": (np.int64(7), 8), "positions": [-1]}
    assert asked(logits=logits).fields["logits"] == {"tokens": [7, 8], "positions": [-1]}
    assert json.dumps(found.fields)
    with pytest.raises(TypeError, match="beams is not an option"):
        asked(options={"beams": 2})
    with pytest.raises(InvalidRequest, match="names must be one of"):
        asked(names="baukit")


def test_arrays_are_tensors_beside_the_body() -> None:
    vector = torch.arange(4, dtype=torch.bfloat16, requires_grad=True)
    heads = np.arange(12).reshape(2, 3, 2)
    found = asked(
        capture={"site": SITE, "reduce": {"project": np.eye(2)}},
        interventions=[
            {"site": RESID, "op": "add", "vector": vector, "scale": np.float64(4)},
            {"site": RESID, "op": "add", "vector": [1.0, 2.0]},
            {"site": RESID, "op": "set", "vector": heads, "positions": [0, 1]},
            {"site": RESID, "op": "set", "from": {"prompt": 0}, "prompts": [1]},
        ],
    )
    assert found.fields["capture"][0]["reduce"] == {"project": "tensor0"}
    assert [one.get("vector") for one in found.fields["interventions"]] == [
        *("tensor1", [1.0, 2.0], "tensor2", None)
    ]
    assert {name: array.shape for name, array in found.tensors.items()} == {
        **{"tensor0": (2, 2), "tensor1": (4,), "tensor2": (2, 6)}
    }
    assert {array.dtype for array in found.tensors.values()} == {np.dtype(np.float32)}
    assert found.tensors["tensor1"].tolist() == [0, 1, 2, 3]
    [one] = inline([{"site": RESID, "op": "add", "vector": np.array([0.1], np.float32)}])
    assert np.float32(one["vector"][0]) == np.float32(0.1)


def test_a_task_of_a_sweep_has_all_numbers_in_it() -> None:
    assert inline_task({"type": "score"}) == {"type": "score"}
    project = {"site": SITE, "reduce": {"project": np.eye(2)}}
    change = {"site": RESID, "op": "add", "vector": np.ones(2), "scale": np.float32(2)}
    task = inline_task({"type": "activations", "capture": project, "interventions": [change]})
    assert task["capture"] == [{"site": SITE, "reduce": {"project": [[1, 0], [0, 1]]}}]
    assert task["interventions"] == [
        {"site": RESID, "op": "add", "vector": [1.0, 1.0], "scale": 2.0}
    ]
    assert inline_task({"capture": SITE})["capture"] == [{"site": SITE}]
    assert json.dumps(task)


def test_metrics_of_patches() -> None:
    def metric(value: Any) -> Any:
        return patch_of("a", [5], SITE, ("layer", "head"), value, None, "nnterp").fields["metric"]

    assert metric(("logit_diff", " Paris", " Rome")) == {"logit_diff": [" Paris", " Rome"]}
    assert metric(("logprob", 7)) == {"logprob": 7}
    assert metric({"logprob": 7}) == {"logprob": 7}
    for wrong in ("logprob", ("logprob",)):
        with pytest.raises(InvalidRequest, match="metric is a name and its tokens"):
            metric(wrong)


class Handler(BaseHTTPRequestHandler):
    seen: tuple[str | None, bytes] = ("", b"")
    encodings: str | None = None

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        Handler.seen = (self.headers["content-type"], body)
        Handler.encodings = self.headers["accept-encoding"]
        status, length, content = ANSWERS[self.path.split("/")[1]]
        self.send_response(status)
        if length is not None:
            self.send_header("content-length", str(length))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *arguments: Any) -> None:
        pass


WHOLE = bytes(file())
ANSWERS: dict[str, tuple[int, int | None, bytes]] = {
    "whole": (200, len(WHOLE), WHOLE),
    "short": (200, len(WHOLE), WHOLE[:-1]),
    "endless": (200, None, WHOLE),
    "huge": (200, 2**62, WHOLE),
    "junk": (200, 4, b"junk"),
    "full": (429, len(json.dumps(ERROR)), json.dumps(ERROR).encode()),
    "grid": (200, len(json.dumps(GRID)), json.dumps(GRID).encode()),
    "no-grid": (200, 2, b"{}"),
}


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture(params=["in pieces", "from its socket"])
def is_much(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "from its socket":
        monkeypatch.setattr(http_transport, "MUCH", 0)


@pytest.mark.usefixtures("is_much")
async def test_an_answer_of_many_bytes(url: str) -> None:
    with Client(f"{url}/whole") as client:
        found = client.activations("a", capture=SITE, names="nnterp")
    assert (Handler.seen[0], Handler.encodings) == ("application/json", "identity")
    assert json.loads(Handler.seen[1])["capture"] == [{"site": SITE}]
    async with AsyncClient(f"{url}/whole") as aclient:
        again = await aclient.activations("a", capture=SITE)
    for name, array in again[0].items():
        assert np.array_equal(array, ARRAYS[f"0:{name}"])
    assert np.array_equal(found[0]["layers_input[1]"], ARRAYS[f"0:{RESID}"])


def test_tensors_go_as_a_part_of_their_own(url: str) -> None:
    vector = np.arange(3, dtype=np.float32)
    change = {"site": RESID, "op": "add", "vector": vector}
    with Client(f"{url}/whole") as client:
        client.activations("a", capture=SITE, interventions=[change])
    kind, body = Handler.seen
    message = message_from_bytes(f"content-type: {kind}\r\n\r\n".encode() + body)
    request, sent = message.get_payload()  # type: ignore[misc]
    assert request.get_param("name", header="content-disposition") == "request"
    assert sent.get_param("name", header="content-disposition") == "tensors"
    fields = json.loads(request.get_payload(decode=True))
    read, _ = tensors.read(sent.get_payload(decode=True))
    assert np.array_equal(read[fields["interventions"][0]["vector"]].raw(), vector)


@pytest.mark.parametrize(
    ("name", "kind", "words"),
    [
        ("short", EngineUnavailable, "cannot be reached"),
        ("endless", PythiaError, "has no length to read"),
        ("huge", PythiaError, "has no length to read"),
        ("junk", PythiaError, "cannot be read"),
        ("full", Overloaded, "full"),
    ],
)
async def test_answers_that_are_none(
    url: str, name: str, kind: type[PythiaError], words: str
) -> None:
    with Client(f"{url}/{name}") as client, pytest.raises(kind, match=words) as caught:
        client.activations("a", capture=SITE)
    assert type(caught.value) is kind
    async with AsyncClient(f"{url}/{name}") as aclient:
        with pytest.raises(kind, match=words):
            await aclient.activations("a", capture=SITE)


async def test_a_grid(url: str) -> None:
    metric = ("logit_diff", " Paris", 7)
    with Client(f"{url}/grid") as client:
        found = client.patch("a", "b", SITE, metric=metric, model="toy")
    assert json.loads(Handler.seen[1]) == {
        **{"model": "toy", "clean": "a", "corrupted": "b", "site": SITE},
        **{"over": ["layer", "position"], "metric": {"logit_diff": [" Paris", 7]}},
    }
    assert found.recovered.tolist() == [[0.25, 0.5]]
    assert (found.metric, found.site) == ("logit_diff ' Paris' 7", SITE)
    async with AsyncClient(f"{url}/no-grid") as aclient:
        with pytest.raises(PythiaError, match="cannot be read"):
            await aclient.patch("a", "b", SITE, metric=metric)


def test_much_is_read_from_the_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    """With an end that comes too early, with silence, and again on a new connection."""
    monkeypatch.setattr(http_transport, "MUCH", 0)
    head = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(WHOLE)
    half = len(WHOLE) // 2
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"http://127.0.0.1:{listener.getsockname()[1]}"
        with Client(address) as client, ThreadPoolExecutor(1) as threads:

            def ask(timeout: float = 60) -> tuple[Future[Any], socket.socket]:
                asked = threads.submit(client.activations, "a", capture=SITE, timeout=timeout)
                connection, _ = listener.accept()
                connection.sendall(head + WHOLE[:9])
                return asked, connection

            asked, connection = ask()
            with connection:
                for piece in (WHOLE[9:half], WHOLE[half:]):
                    connection.sendall(piece)
                found = asked.result(60)
            assert np.array_equal(found[0][RESID], ARRAYS[f"0:{RESID}"])
            found[0][RESID][0] = 7  # whoever has it may change it
            asked, connection = ask()
            connection.shutdown(socket.SHUT_WR)
            with connection, pytest.raises(EngineUnavailable, match="broke off"):
                asked.result(60)
            asked, connection = ask(timeout=0.05)
            with connection, pytest.raises(DeadlineExceeded, match=r"silent for 0\.05 seconds"):
                asked.result(60)
