"""``/v1/sweep`` as an application, over six toys of which two have room at a time."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, MutableMapping
from typing import Any

import httpx
import pyarrow.ipc
import pytest

from pythia_bento.errors import CheckpointError, EngineUnavailable
from pythia_bento.runtime import turns
from pythia_bento.runtime.runner import PythiaRunner
from pythia_bento.server import sweeping
from pythia_bento.server.access.control import AccessControl
from pythia_bento.server.http import openai
from pythia_bento.server.http.sweep import EVENTS, LINES, accepted
from pythia_bento.server.http.sweep_arrow import ARROW
from pythia_bento.server.sweeping import MOST_NUMBERS, SweepAnswer
from pythia_bento.sweep.columns import COLUMNS
from pythia_bento.sweep.here import Here
from pythia_bento.sweep.run import run
from pythia_bento.sweep.spec import SweepRequest
from pythia_bento.telemetry.calls import new_call, working_for
from tests.unit.conftest import app_of
from tests.unit.engine.gate import Gate
from tests.unit.runtime.toy_runner import settled, toy_runner
from tests.unit.runtime.toy_shelf import BROKEN, toy_shelf
from tests.unit.turning import turning, until

MODELS = [f"toy@step{step}" for step in (1, 2, 3, 5)]
ITEMS = [{"id": "a", "prompt": [5, 6, 7]}, {"prompt": "the end", "continuation": " of"}]
BODY = {"models": MODELS, "items": ITEMS}


@pytest.fixture
def shelf() -> Any:
    with toy_shelf() as runner:
        yield runner


@pytest.fixture
async def http(shelf: PythiaRunner) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(shelf) as client:
        yield client


def client_of(runner: PythiaRunner) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(app_of(runner))
    return httpx.AsyncClient(transport=transport, base_url="http://test/v1", timeout=60)


async def told(http: httpx.AsyncClient, body: dict[str, Any], **headers: str) -> list[Any]:
    answer = await http.post("/sweep", json=body, headers=headers)
    assert answer.status_code == 200, answer.text
    return [json.loads(line) for line in answer.text.splitlines()]


def timeless(events: list[Any]) -> list[Any]:
    """Rows of a checkpoint come in any order, and times are of the moment."""
    kept = [{name: v for name, v in event.items() if name != "seconds"} for event in events]
    return sorted(kept, key=json.dumps)


@pytest.mark.parametrize(
    "task",
    [
        {"type": "score"},
        {"type": "score", "tokens": True},
        {"type": "generate", "max_tokens": 4, "ignore_eos": True, "logprobs": 0},
        {"type": "extract", "prompt_tokens": 1, "tokens": 1, "share": True},
    ],
)
async def test_it_tells_what_the_sweep_tells(
    http: httpx.AsyncClient, shelf: PythiaRunner, task: dict[str, Any]
) -> None:
    body = {**BODY, "task": task}
    spec = SweepRequest.model_validate(body)
    expected = [event.as_dict() async for event in run(spec, Here(shelf))]
    lines = await told(http, body)
    assert timeless(lines) == timeless(json.loads(json.dumps(expected)))
    assert [lines[0]["event"], lines[-1]] == ["start", {"event": "end", "done": 4, "failed": 0}]
    answer = await http.post("/sweep", json=body, headers={"accept": EVENTS})
    assert answer.headers["content-type"] == f"{EVENTS}; charset=utf-8"
    events = answer.text.split("\n\n")
    assert events[-2:] == ["data: [DONE]", ""]
    assert timeless([json.loads(one[6:]) for one in events[:-2]]) == timeless(lines)


async def test_a_row_of_activations_has_few_numbers() -> None:
    """A lens of toys has 200 numbers a position: 28 of these are more than 4,096."""
    with toy_runner() as runner:
        async with client_of(runner) as http:
            await ask_for_activations(http, runner)


async def ask_for_activations(http: httpx.AsyncClient, runner: PythiaRunner) -> None:
    lens = {"site": "blocks.0.hook_resid_post", "reduce": {"lens": {"top": 100}}}
    items = [{"prompt": [5] * 28}, {"prompt": [5] * 3}]
    task = {"type": "activations", "capture": [lens], "max_tokens": 2}
    body: dict[str, Any] = {"models": ["toy"], "items": items, "task": task}
    lines = await told(http, body)
    events = run(SweepRequest.model_validate(body), Here(runner, None, MOST_NUMBERS))
    expected = [event.as_dict() async for event in events]
    assert timeless(lines) == timeless(json.loads(json.dumps(expected)))
    long, short = sorted(
        (line for line in lines if line["event"] == "row"), key=lambda line: line["item"]
    )
    assert long["error"]["code"] == "payload_too_large" and "run" not in long
    tensors = short["run"]["tensors"]
    assert tensors["blocks.0.hook_resid_post:lens_ids"]["shape"] == [4, 100]
    assert short["run"]["token_ids"][:3] == [5, 5, 5] and len(short["run"]["tokens"]) == 5
    assert len(short["run"]["completion"]["token_ids"]) == 2
    body["task"] = {"type": "activations", "logits": {"tokens": [5]}}
    answer = await http.post("/sweep", json=body, headers={"accept": ARROW})
    assert answer.status_code == 400 and "activations are no columns" in answer.text


@pytest.mark.parametrize(
    ("header", "kind"),
    [
        ("", LINES),
        ("*/*", LINES),
        ("application/json", LINES),
        (f"{LINES}, {EVENTS}", LINES),
        (EVENTS, EVENTS),
        (f"{ARROW}, {EVENTS}", ARROW),
        (f"application/json, {EVENTS.upper()};q=0.5", EVENTS),
    ],
)
def test_what_a_client_accepts(header: str, kind: str) -> None:
    assert accepted(header) == kind


REFUSED: list[tuple[dict[str, Any], str, str]] = [
    ({"items": []}, "items", "items must have at least 1 entries, not 0"),
    ({"items": [ITEMS[0]] * 2049}, "items", "items must have at most 2048 entries, not 2049"),
    ({"models": ["a"] * 2049}, "models", "models must have at most 2048 entries, not 2049"),
    ({"items": [{"prompt": 5}]}, "items", "prompt must be a string or a list of token ids"),
    ({"items": [{"prompt": "a", "id": "b" * 257}]}, "items", "items[0].id"),
    ({"task": {"type": "dream"}}, "task", "task.type must be one of 'score', 'generate'"),
    ({"task": {"type": "generate", "n": 2}}, "task", "task.n must be 1"),
    ({"priority": 21}, "priority", "priority must be less than or equal to 20, not 21"),
    ({"steps": "all"}, "", "models goes without model and steps"),
    (
        {"models": None, "model": "pythia-14m", "steps": "5:4:1"},
        "steps",
        "FROM must be at most TO",
    ),
    ({"step": 3}, "step", "step is not a field of this request"),
    (
        {"items": [ITEMS[0]] * 2000, "models": [f"toy@step{n}" for n in range(501)]},
        "items",
        "2,000 items at 501 checkpoints are 1,002,000 rows, but the limit of one sweep is "
        "1,000,000; 'pythia-bento sweep' writes files without that limit",
    ),
]


@pytest.mark.parametrize(("changed", "param", "words"), REFUSED)
async def test_what_is_refused_as_a_whole(
    http: httpx.AsyncClient, changed: dict[str, Any], param: str, words: str
) -> None:
    answer = await http.post("/sweep", json={**BODY, **changed})
    error = answer.json()["error"]
    assert (answer.status_code, error["param"] or "") == (400, param)
    assert words in error["message"]
    assert len(await told(http, BODY)) == 1 + 4 * 4 + 1  # the server answers the next one


async def test_arrow_has_the_same_rows(http: httpx.AsyncClient) -> None:
    body = {**BODY, "models": [*MODELS, "toy@step4"], "task": {"tokens": True}}
    rows = [event for event in await told(http, body) if event["event"] == "row"]
    answer = await http.post("/sweep", json=body, headers={"accept": ARROW})
    assert answer.headers["content-type"] == ARROW
    table = pyarrow.ipc.open_stream(answer.content).read_all()
    assert table.schema.names == list(COLUMNS) and len(table.schema.metadata[b"key"]) == 64
    *found, failed = table.to_pylist()
    place = {f"toy@{row['revision']}": row["step"] for row in found}
    assert place == dict(zip(MODELS, (1, 2, 3, 5), strict=True))
    assert sorted(
        (row["step"], row["item"], row["id"], row["logprob"], row["token_ids"], row["ranks"])
        for row in found
    ) == sorted(
        (
            *((1, 2, 3, 5)[row["checkpoint"]], row["item"], row.get("id"), row["logprob"]),
            *([token[name] for token in row["tokens"]] for name in ("id", "rank")),
        )
        for row in rows
    )
    assert (failed["model"], failed["revision"], failed["item"]) == ("toy", "step4", None)
    assert "not served" in failed["error"]


async def test_arrow_tells_what_ends_the_whole(shelf: PythiaRunner) -> None:
    def check_open() -> None:
        raise EngineUnavailable("the server is shutting down")

    app = openai.create_app()
    app.state.runner, app.state.check_open = shelf, check_open
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as http:
        answer = await http.post("/sweep", json=BODY, headers={"accept": ARROW})
    [row] = pyarrow.ipc.open_stream(answer.content).read_all().to_pylist()
    assert (row["model"], row["item"]) == (None, None)
    assert row["error"] == "the server is shutting down"


async def test_arrow_without_pyarrow_is_refused(
    http: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    answer = await http.post("/sweep", json=BODY, headers={"accept": ARROW})
    assert answer.status_code == 400
    assert "this server has no pyarrow" in answer.json()["error"]["message"]


async def test_what_fails_is_told_and_the_others_are_there() -> None:
    fault = CheckpointError("toy@step13 is damaged")
    with toy_shelf(fault=fault) as runner:
        async with client_of(runner) as http:
            models = ["toy@step4", BROKEN, "toy@step2"]
            items = [*ITEMS, {"id": "long", "prompt": [5] * 9999}]
            events = await told(http, {"models": models, "items": items})
    errors = [event for event in events if event["event"] == "error"]
    assert [(one["checkpoint"], one["error"]["code"]) for one in errors] == [
        (0, "model_not_found"),
        (1, "checkpoint_error"),
    ]
    rows = {event["item"]: event for event in events if event["event"] == "row"}
    assert rows[2]["error"]["code"] == "context_length_exceeded" and rows[2]["id"] == "long"
    assert "error" not in rows[0] and "error" not in rows[1]
    assert events[-1] == {"event": "end", "done": 1, "failed": 2}


async def test_a_full_server_refuses_it_unread(
    http: httpx.AsyncClient, shelf: PythiaRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate()
    with toy_runner(max_queue=0, max_batch_size=1, gate=gate) as runner:
        async with client_of(runner) as client:
            body = {"prompt": [5], "max_tokens": 40, "ignore_eos": True}
            busy = asyncio.ensure_future(client.post("/completions", json=body))
            await gate.held()
            answer = await client.post("/sweep", content=b"{")
            assert (answer.status_code, answer.headers["retry-after"]) == (429, "1")
            gate.open()
            assert (await busy).status_code == 200


async def test_too_late_is_an_error_of_each_checkpoint() -> None:
    with toy_shelf(sweep_timeout=1e-9) as runner:
        async with client_of(runner) as http:
            events = await told(http, BODY)
    errors = [event["error"] for event in events if event["event"] == "error"]
    assert [error["code"] for error in errors] == ["deadline_exceeded"] * 4
    assert "PYTHIA_SWEEP_TIMEOUT" in errors[0]["message"]


async def test_a_server_that_shuts_down_says_so(shelf: PythiaRunner) -> None:
    def check_open() -> None:
        raise EngineUnavailable("the server is shutting down")

    app = openai.create_app()
    app.state.runner, app.state.check_open = shelf, check_open
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as http:
        start, error = await told(http, BODY)
        assert start["event"] == "start" and set(error) == {"event", "error"}
        assert error["error"]["code"] == "engine_unavailable"
        answer = await http.post("/sweep", json=BODY, headers={"accept": EVENTS})
        assert "[DONE]" not in answer.text


class Reader:
    """An ASGI client that reads one message at a time, where it is told to."""

    def __init__(
        self,
        runner: PythiaRunner,
        body: dict[str, Any],
        access: AccessControl | None = None,
        key: str = "",
        accept: str = LINES,
    ) -> None:
        self._body = json.dumps(body).encode()
        self.pieces: list[bytes] = []
        self.may_read = asyncio.Semaphore(0)
        self.leaves = asyncio.Event()
        self._scope = {
            "type": "http",
            "method": "POST",
            "path": "/v1/sweep",
            "raw_path": b"/v1/sweep",
            "root_path": "",
            "query_string": b"",
            "headers": [
                (b"authorization", f"Bearer {key}".encode()),
                (b"accept", accept.encode()),
            ],
        }
        app = app_of(runner, access)
        with working_for(new_call(None)):
            self.task = asyncio.ensure_future(app(self._scope, self._receive, self._send))

    @property
    def num_rows(self) -> int:
        return sum(piece.count(b'"event":"row"') for piece in self.pieces)

    @property
    def text(self) -> str:
        return b"".join(self.pieces).decode()

    def read_all(self) -> None:
        """Whatever comes."""
        for _ in range(10_000):
            self.may_read.release()

    async def read_to_a_row(self) -> None:
        """And nothing behind the piece that it is in."""
        while not self.num_rows:
            assert not self.task.done(), self.pieces
            if self.may_read.locked():
                self.may_read.release()
            await asyncio.sleep(0.001)

    async def _receive(self) -> dict[str, Any]:
        if self._body:
            body, self._body = self._body, b""
            return {"type": "http.request", "body": body}
        await self.leaves.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: MutableMapping[str, Any]) -> None:
        await self.may_read.acquire()
        self.pieces.append(message.get("body", b""))


@pytest.mark.parametrize("kind", [EVENTS, LINES])
async def test_comments_keep_a_silent_stream_awake(
    monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(sweeping, "SILENCE_SECONDS", 0.001)
    gate = Gate()
    with toy_runner(gate=gate, max_batch_size=1) as runner:
        task = {"type": "generate", "max_tokens": 8, "ignore_eos": True}
        body = {"models": ["toy"], "items": ITEMS[:1], "task": task}
        reader = Reader(runner, body, accept=kind)
        reader.read_all()
        if kind == EVENTS:
            await until(lambda: ": nothing new" in reader.text)
        else:
            await asyncio.sleep(0.05)  # silence, which leaves no trace
        gate.open()
        await reader.task
    if kind == EVENTS:
        assert "\n: nothing new\n" in reader.text and "[DONE]" in reader.text
    else:
        assert [json.loads(line) for line in reader.text.splitlines()][-1]["event"] == "end"


async def test_a_client_that_leaves_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[SweepAnswer] = []  # for no collection of garbage to end it

    def keep(answer: SweepAnswer) -> AsyncIterator[Any]:
        kept.append(answer)
        return batches_of(answer)

    batches_of = SweepAnswer.batches
    monkeypatch.setattr(SweepAnswer, "batches", keep)
    with toy_shelf() as runner:
        reader = Reader(runner, {"models": MODELS, "items": [ITEMS[0]] * 500})
        await reader.read_to_a_row()
        reader.leaves.set()
        await asyncio.wait_for(reader.task, 60)
        assert len(kept) == 1 and '"end"' not in reader.text
        await asyncio.to_thread(settled, runner)
        # None waits for a reader.
        await until(lambda: asyncio.all_tasks() == {asyncio.current_task()})


async def test_a_client_that_does_not_read_stops_the_sweep() -> None:
    """What is computed ahead of it is bounded, and with it the memory."""
    with toy_shelf(max_batch_size=32) as runner:
        reader = Reader(runner, {"models": MODELS, "items": [{"prompt": [5] * 30}] * 400})
        await reader.read_to_a_row()
        asked = -1
        while asked != runner.stats().prompt_tokens:
            asked = runner.stats().prompt_tokens
            await asyncio.sleep(0.3)
        assert 0 < asked <= 30 * 500  # of 1,600 texts those of the first checkpoint, perhaps
        reader.read_all()
        await reader.task
        assert reader.num_rows == 1600 and reader.text.endswith('"failed":0}\n')


async def test_others_have_their_turn_while_it_is_told(
    http: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turns, "PIECE_SECONDS", -1.0)  # no piece is short enough
    body = {"models": MODELS[:1], "items": [{"prompt": [5] * 60}] * 60, "task": {"tokens": True}}
    async with turning() as count:
        await told(http, body)
    assert count() > 60


async def rows_beside(priority: int) -> int:
    """Texts of a sweep that go before a completion of the same caller, 201 for more than 200."""
    key = "a-key-of-16-or-more"
    options: dict[str, Any] = {"max_batch_size": 32, "api_keys": key}
    gate = Gate()
    with toy_runner(gate=gate, **options) as runner:
        states = runner._thread._states
        access = AccessControl.from_settings(runner.settings)
        transport = httpx.ASGITransport(app_of(runner, access))
        headers = {"authorization": f"Bearer {key}"}
        async with httpx.AsyncClient(
            transport=transport, base_url="http://test", headers=headers
        ) as http:
            items = [
                {"prompt": [5 + number % 8, number // 8, *range(5, 60)]} for number in range(300)
            ]
            body = {"models": ["toy"], "items": items, "priority": priority}
            reader = Reader(runner, body, access, key)
            reader.read_all()
            await until(lambda: len(states) == 2 * 32)  # as many as are asked at a time
            gate.open(5)
            await gate.held()
            before = len(states)
            completion = {"prompt": [5], "max_tokens": 1, "ignore_eos": True}
            with working_for(new_call(None)):
                asked = asyncio.ensure_future(http.post("/v1/completions", json=completion))
            await until(lambda: len(states) == before + 1)
            between = 0
            while between <= 200 and (5,) not in prompts(gate):
                between += len(gate.chunks)
                # There is more of the sweep than this step has.
                await until(lambda: len(states) > len(gate.chunks) + 1)
                gate.open(1)
                await gate.held()
            gate.open()
            assert (await asked).status_code == 200
            await reader.task
            assert reader.num_rows == 300
            return between


def prompts(gate: Gate) -> set[tuple[int, ...]]:
    """Of the step that is held."""
    return {chunk.sequence.request.prompt for chunk in gate.chunks}


async def test_what_people_wait_for_goes_before_a_sweep() -> None:
    """What runs already is done first. A sweep in a hurry goes before what comes behind it."""
    assert await rows_beside(priority=10) < 10 < await rows_beside(priority=0)
    assert await rows_beside(priority=-20) > 200
