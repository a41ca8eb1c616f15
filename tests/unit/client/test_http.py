"""What comes over HTTP from others than the service: proxies and servers of another kind."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from pythia_bento.client import (
    AsyncClient,
    Client,
    Delta,
    Info,
    Limits,
    ModelState,
    Part,
    ScoreItem,
)
from pythia_bento.errors import (
    DeadlineExceeded,
    EngineUnavailable,
    InvalidRequest,
    Overloaded,
    PayloadTooLarge,
    PythiaError,
)

ORIGIN = {
    **{"version": "1.2", "commit": "c" * 40, "files": {"config.json": "a" * 64}},
    **{"weights_sha256": "b" * 64, "quantization": "int8 by row", "dtype": "int8"},
    **{"matmul": "w8a16", "backend": "cpu", "batch_invariant": True, "same_weights": ["step0"]},
}


def card(name: str, provenance: dict[str, Any] | None = None) -> dict[str, Any]:
    limits = dict.fromkeys(Limits.__slots__, 7) | {"a_limit_of_the_future": 1}
    model = {"id": name, "aliases": [f"{name}@main"], "system_fingerprint": f"print-{name}"}
    where = {"state": "device", "pinned": True, "nbytes": 9, "last_used": 1.5, "step": None}
    same = {"weights": "b" * 64, "same_weights": ["step0"], "a_field_of_the_future": 1}
    return {**model, **where, **same, "limits": limits, "provenance": provenance}


CARDS = {
    f"{name}{end}": card(name, of)
    for name, of in (("toy", None), ("other", ORIGIN))
    for end in ("", "@main")
}


# What str.splitlines takes for the end of a line, and the protocol does not.
SHARP = "a\u2028b\u2029c\x85d\x0be\x0cf\x1cg\x1dh\x1ei"
DELTA = {"index": 0, "text": SHARP, "token_ids": [1], "finish_reason": None, "stop_reason": None}
# JSON escapes none but those below a space, as orjson does on the server.
EVENT = json.dumps({"deltas": [DELTA]}, ensure_ascii=False)
TEXTS = f": a comment\n\ndata: {EVENT}\n\nevent: x\r\ndata:{EVENT}\r\n\r\ndata: [DONE]\n\n"

ANSWERS: dict[str, tuple[int, dict[str, str], str]] = {
    "proxy": (503, {}, "<html>"),
    "date": (429, {"retry-after": "Wed, 21 Oct 2026 07:28:00 GMT"}, "slow down"),
    "seconds": (429, {"retry-after": "7"}, "[]"),
    "large": (413, {}, ""),
    "gateway": (504, {}, ""),
    "missing": (404, {}, '{"error": "no such page"}'),
    "never": (429, {"retry-after": "nan"}, ""),
    "deep": (500, {}, "[" * 100_000),
    "latin-error": (400, {}, "\u00e9"),
    "list": (400, {}, '{"error": {"code": [], "message": "m", "param": null}}'),
    "page": (200, {}, "<html>"),
    "latin": (200, {}, "\u00e9"),
    "object": (200, {}, "{}"),
    "encoded": (200, {"content-encoding": "gzip"}, "not gzip"),
    "no-models": (200, {}, '{"data": []}'),
    "models": (200, {}, json.dumps({"data": [CARDS["toy"], CARDS["other"]]})),
    **{f"models/v1/models/{name}": (200, {}, json.dumps(card)) for name, card in CARDS.items()},
    "models/v1/models/a%3Fb%23%25/c@d": (200, {}, json.dumps(CARDS["toy"])),
    "other-server": (200, {}, '{"data": [{"id": "x", "object": "model"}]}'),
    "no-end": (200, {}, 'data: {"deltas": []}\n\n'),
    "no-json": (200, {}, "data: {]\n\n"),
    "deep-event": (200, {}, f"data: {'[' * 100_000}\n\n"),
    "bytes": (200, {}, "data: \udcff\n\n"),
    "texts": (200, {}, TEXTS),
}


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.answer()

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self.answer()

    def answer(self) -> None:
        path = self.path[1:]
        status, headers, body = ANSWERS.get(path) or ANSWERS[path.split("/")[0]]
        self.send_response(status)
        content = body.encode(errors="surrogateescape")
        for name, value in {**headers, "content-length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *arguments: Any) -> None:
        pass


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("proxy", EngineUnavailable),
        ("date", Overloaded),
        ("seconds", Overloaded),
        ("large", PayloadTooLarge),
        ("gateway", DeadlineExceeded),
        ("missing", PythiaError),
        ("list", InvalidRequest),
        ("never", Overloaded),
        ("deep", PythiaError),
        ("latin-error", InvalidRequest),
    ],
)
async def test_statuses_without_a_body_of_ours(
    url: str, name: str, kind: type[PythiaError]
) -> None:
    with Client(f"{url}/{name}") as client:
        for call in (lambda: client.tokenize("a"), lambda: client.generate("a")):
            with pytest.raises(kind) as caught:
                call()
            assert type(caught.value) is kind
            assert str(ANSWERS[name][0]) in caught.value.message
            if isinstance(caught.value, Overloaded):
                assert caught.value.retry_after == (7 if name == "seconds" else 1)
    async with AsyncClient(f"{url}/{name}") as client:
        with pytest.raises(kind):
            await client.generate("a")


def test_what_json_cannot_hold(url: str) -> None:
    with Client(url) as client:
        for options in ({"temperature": float("nan")}, {"n": {1}}):
            with pytest.raises(InvalidRequest, match="cannot be written as JSON"):
                client.generate("a", **options)  # type: ignore[arg-type]
        with pytest.raises(InvalidRequest, match="cannot be written as JSON"):
            client.score([ScoreItem("a", logprobs={1})])  # type: ignore[arg-type]


async def test_info_of_several_models_and_of_one_whose_origin_nobody_knows(url: str) -> None:
    """A card may have null as its provenance, and a list more than one card."""
    limits = Limits(**dict.fromkeys(Limits.__slots__, 7))
    unknown = Info("toy", ("toy@main",), "print-toy", limits)
    with Client(f"{url}/models") as client:
        assert client.info() == unknown
        first, second = client.info("toy@main"), client.info("other@main")
        assert first == client.info("toy") == client.info("a?b#%/c@d") == unknown
        assert (second.commit, second.same_weights) == ("c" * 40, ("step0",))
        assert {name: getattr(second, name) for name in ORIGIN} == {
            **ORIGIN,
            "same_weights": ("step0",),
        }
        listed = client.models()
        assert [one.model for one in listed] == ["toy", "other"]
        assert listed[1] == ModelState(
            model="other",
            aliases=("other@main",),
            step=None,
            weights="b" * 64,
            state="device",
            pinned=True,
            nbytes=9,
            last_used=1.5,
            fingerprint="print-other",
            same_weights=("step0",),
        )
    async with AsyncClient(f"{url}/models") as aclient:
        assert await aclient.models() == listed
        assert await aclient.info() == first
        assert await aclient.info("other") == second


@pytest.mark.parametrize("name", ["page", "latin", "object", "encoded", "other-server"])
async def test_answers_that_make_no_sense(url: str, name: str) -> None:
    with Client(f"{url}/{name}") as client:
        for call in (client.info, client.models, lambda: client.tokenize("a")):
            with pytest.raises(PythiaError, match=r"answer .*cannot be read") as caught:
                call()
            assert type(caught.value) is PythiaError
    async with AsyncClient(f"{url}/{name}") as aclient:
        with pytest.raises(PythiaError, match="cannot be read"):
            await aclient.info()


def test_a_server_without_models(url: str) -> None:
    with Client(f"{url}/no-models") as client:
        assert client.models() == []
        with pytest.raises(EngineUnavailable, match="names no model"):
            client.info()


@pytest.mark.parametrize(
    ("name", "kind", "words"),
    [
        ("no-end", EngineUnavailable, "broke off"),
        ("page", EngineUnavailable, "broke off"),
        ("no-json", PythiaError, "cannot be read"),
        ("deep-event", PythiaError, "cannot be read"),
        ("bytes", PythiaError, "cannot be read"),
    ],
)
async def test_streams_that_break_off(
    url: str, name: str, kind: type[PythiaError], words: str
) -> None:
    with Client(f"{url}/{name}") as client, pytest.raises(kind, match=words):
        client.generate("a")
    async with AsyncClient(f"{url}/{name}") as aclient:
        with pytest.raises(kind, match=words):
            await aclient.generate("a")


async def test_texts_arrive_as_they_are(url: str) -> None:
    """Lines end where the protocol says, not where str.splitlines would."""
    part = Part((Delta(0, SHARP, (1,), (), None, None),))
    with Client(f"{url}/texts") as client:
        assert list(client.stream("a")) == [part, part]
    async with AsyncClient(f"{url}/texts") as aclient:
        assert [found async for found in aclient.stream("a")] == [part, part]
