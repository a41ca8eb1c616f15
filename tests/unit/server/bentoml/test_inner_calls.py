"""Pickled calls: read as plain data where only a Bento's services can ask, refused elsewhere."""

from __future__ import annotations

import json
import pickle
import subprocess
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from pythia_bento.errors import InvalidRequest
from pythia_bento.runtime.runner import PythiaRunner
from pythia_bento.server.access.control import BodyRoom
from pythia_bento.server.bentoml.inner_calls import InnerCalls, plain
from pythia_bento.server.http import native
from pythia_bento.server.http.body import INNER_TYPE, RequestMiddleware

ASKED: dict[str, Any] = {"prompt": (5, 6, 7), "max_tokens": 3, "stop": (), "best_of": None}


class Evil:
    """Code that runs where this is unpickled."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return subprocess.check_call, (["touch", self.path],)


def served(runner: PythiaRunner, is_private: bool) -> httpx.AsyncClient:
    app = native.create_app()
    app.state.runner = runner
    whole = RequestMiddleware(InnerCalls(app, is_private), 10**6, BodyRoom(10**7), 60)
    transport = httpx.ASGITransport(whole)
    return httpx.AsyncClient(transport=transport, base_url="http://here")


@pytest.fixture
async def private(runner: PythiaRunner) -> AsyncIterator[httpx.AsyncClient]:
    async with served(runner, True) as client:
        yield client


@pytest.fixture
async def public(runner: PythiaRunner) -> AsyncIterator[httpx.AsyncClient]:
    async with served(runner, False) as client:
        yield client


async def post(client: httpx.AsyncClient, path: str, body: bytes, kind: str = INNER_TYPE) -> Any:
    return await client.post(path, content=body, headers={"content-type": kind})


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
async def test_a_pickled_call_is_answered_with_what_json_is(
    private: httpx.AsyncClient, protocol: int
) -> None:
    answer = await post(private, "/generate", pickle.dumps(ASKED, protocol))
    assert (answer.status_code, answer.headers["content-type"]) == (200, INNER_TYPE)
    as_json = await private.post("/generate", json=ASKED)
    assert as_json.headers["content-type"] == "application/json"
    assert pickle.loads(answer.content) == as_json.json()
    items = {"items": [{"prompt": "the end"}, {"prompt": 3}]}
    scores = await post(private, "/score", pickle.dumps(items, protocol))
    assert pickle.loads(scores.content) == (await private.post("/score", json=items)).json()


async def test_streams_and_errors_are_text(private: httpx.AsyncClient) -> None:
    streamed = await post(private, "/generate_stream", pickle.dumps(ASKED))
    assert streamed.text.startswith("data: ") and streamed.text.endswith("data: [DONE]\n\n")
    wrong = await post(private, "/generate", pickle.dumps(ASKED | {"max_tokens": -1}))
    assert wrong.status_code == 400
    assert wrong.json()["error"]["param"] == "max_tokens"
    stream = await post(private, "/generate", pickle.dumps(ASKED | {"stream": True}))
    assert (stream.status_code, stream.json()["error"]["param"]) == (400, "stream")


@pytest.mark.parametrize(
    "kind", [INNER_TYPE, INNER_TYPE.upper(), f" {INNER_TYPE} ; charset=x", f"{INNER_TYPE};"]
)
async def test_a_public_port_reads_no_pickle(
    public: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch, tmp_path: Any, kind: str
) -> None:
    monkeypatch.setattr("pythia_bento.server.bentoml.inner_calls.plain", None)
    for body in (pickle.dumps(ASKED), pickle.dumps(Evil(f"{tmp_path}/evil")), b"{}"):
        answer = await post(public, "/generate", body, kind)
        assert answer.status_code == 415
        assert answer.json()["error"]["code"] == "unsupported_media_type"
        assert "send application/json" in answer.json()["error"]["message"]
    assert not (tmp_path / "evil").exists()


async def test_other_kinds_are_json_as_ever(
    public: httpx.AsyncClient, private: httpx.AsyncClient
) -> None:
    body = json.dumps(ASKED).encode()
    for client in (public, private):
        for kind in ("text/plain", "application/x-www-form-urlencoded", f"x{INNER_TYPE}"):
            assert (await post(client, "/generate", body, kind)).status_code == 200
        answer = await client.get("/nothing", headers={"content-type": INNER_TYPE})
        assert answer.status_code == 404


async def test_nothing_in_a_pickle_is_run(private: httpx.AsyncClient, tmp_path: Any) -> None:
    path = tmp_path / "evil"
    for nested in (Evil(str(path)), {"prompt": [Evil(str(path))]}):
        answer = await post(private, "/generate", pickle.dumps(nested))
        assert answer.status_code == 400
        assert "subprocess.check_call" in answer.json()["error"]["message"]
    assert not path.exists()


@pytest.mark.parametrize(
    ("pickled", "words"),
    [
        (b"", "not a pickle"),
        (b"{}", "not a pickle"),
        (b"\x80\x05\x97.", "not a pickle"),  # wants a buffer from outside
        (b"\x80\x02\x82\x01.", "not a pickle"),  # an extension's class
        (b"\x80\x04" + b"]\x94" * 10**5 + b"a" * (10**5 - 1) + b".", "as JSON"),
        (pickle.dumps({"prompt": b"bytes"}), "as JSON"),
        (pickle.dumps({"temperature": float("nan")}), "as JSON"),
        (pickle.dumps(complex(1, 2), 0), "complex"),
        (pickle.dumps([1]), "must be a JSON object"),
    ],
)
async def test_what_is_no_call_is_one_sentence(
    private: httpx.AsyncClient, pickled: bytes, words: str
) -> None:
    answer = await post(private, "/generate", pickled)
    assert answer.status_code == 400
    assert words in answer.json()["error"]["message"]


def test_a_class_is_named() -> None:
    with pytest.raises(InvalidRequest, match=r"a pathlib\.\w*Path; they must be strings, numbers"):
        plain(pickle.dumps({"prompt": __import__("pathlib").PurePosixPath("a")}))
