"""A service of somebody else's that depends on this one, in one Bento and by its URL."""

from __future__ import annotations

import json
import pickle
import re
import socket
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from pythia_bento.server.http.body import INNER_TYPE
from tests.e2e.serving import HTTP, Server, serve
from tests.e2e.test_bentoml_clients import of_parts, of_whole, parts_of
from tests.gateway import PATHS
from tests.unit.server.bentoml.test_inner_calls import Evil

GATEWAY = "tests.gateway.service:Gateway"
ASKED: dict[str, Any] = {
    "prompt": "Question: What color is",
    "max_tokens": 13,
    "seed": 3,
    "logprobs": 1,
    "stop": ["never this"],
    "logit_bias": {"13": -2.5, "5": 0.5},
}
ITEMS = [{"prompt": "Once upon", "continuation": " a time"}, {"prompt": 3}, {"prompt": [5, 6, 7]}]


@pytest.fixture(scope="module")
def gateway(home: Path) -> Iterator[Server]:
    with serve(home, GATEWAY, "--arg", "greeting=hello", log_format="json") as gateway:
        yield gateway


def post(server: Server, path: str, body: Any) -> httpx.Response:
    return HTTP.post(server.url + path, json=body, timeout=60)


def pickled(http: httpx.Client, url: str, path: str, body: Any) -> httpx.Response:
    """Posted as BentoML's client posts it to a dependency."""
    return http.post(url + path, content=pickle.dumps(body), headers={"content-type": INNER_TYPE})


@pytest.fixture
def inner(gateway: Server) -> Iterator[httpx.Client]:
    """A client of the dependency's own socket."""
    transport = httpx.HTTPTransport(uds=socket_of(gateway))
    with httpx.Client(transport=transport, base_url="http://inner") as client:
        yield client


def socket_of(gateway: Server) -> str:
    """Where the dependency listens."""
    processes = psutil.Process(gateway.process.pid).children(recursive=True)
    [found] = {
        connection.laddr
        for process in processes
        for connection in process.net_connections("unix")
        if str(connection.laddr).endswith(".sock")
    }
    return str(found)


@pytest.mark.parametrize("api", ["tell", "tell_in_a_thread"])
def test_a_dependency_generates_what_a_server_answers(
    gateway: Server, server: Server, api: str
) -> None:
    answer = post(gateway, f"/{api}", {"fields": ASKED})
    assert answer.status_code == 200, answer.text
    assert answer.json() == post(server, "/generate", ASKED).json()


def test_a_dependency_streams(gateway: Server, server: Server) -> None:
    answer = post(gateway, "/narrate", {"fields": ASKED})
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert of_parts(parts_of(answer.text)) == of_whole(post(server, "/generate", ASKED).json())


def test_a_dependency_scores_and_a_bad_item_fails_alone(gateway: Server, server: Server) -> None:
    scores = post(gateway, "/judge", {"items": ITEMS}).json()
    assert scores == post(server, "/score", {"items": ITEMS}).json()
    assert [("error" in score) for score in scores] == [False, True, False]


@pytest.mark.parametrize("api", ["tell", "narrate"])
def test_what_a_dependency_refuses_says_why(gateway: Server, api: str) -> None:
    answer = post(gateway, f"/{api}", {"fields": {"prompt": "a", "max_tokens": -1}})
    assert answer.status_code == 400
    assert "max_tokens must be an integer at least 0, not -1" in answer.text


def test_hundreds_of_calls_at_a_time_all_succeed(gateway: Server) -> None:
    body = {"fields": {"prompt": "Once", "max_tokens": 1, "temperature": 0}}
    with ThreadPoolExecutor(32) as pool:
        answers = list(pool.map(lambda _: post(gateway, "/tell", body), range(400)))
    assert Counter(answer.status_code for answer in answers) == {200: 400}
    assert len({answer.text for answer in answers}) == 1


def test_a_dependencys_socket_runs_nothing(inner: httpx.Client, tmp_path: Path) -> None:
    path = tmp_path / "evil"
    good = pickled(inner, "", "/generate", {"prompt": "Once", "max_tokens": 1})
    bad = pickled(inner, "", "/generate", {"prompt": Evil(str(path))})
    assert (good.status_code, good.headers["content-type"]) == (200, INNER_TYPE)
    assert (bad.status_code, bad.json()["error"]["code"]) == (400, "invalid_value")
    assert not path.exists()


def test_the_gateway_has_its_own_routes_and_arguments(gateway: Server) -> None:
    for path in PATHS:
        for method in ("GET", "POST"):
            answer = HTTP.request(method, gateway.url + path, content=b"{")
            assert (answer.status_code, answer.text) == (200, f"the gateway's {path}, hello")


def test_metrics_are_each_services_own(gateway: Server, inner: httpx.Client) -> None:
    post(gateway, "/tell", {"fields": ASKED})
    ours, theirs = inner.get("/metrics").text, HTTP.get(f"{gateway.url}/metrics").text
    last = "bentoml_service_last_request_timestamp_seconds{"
    assert f'{last}pid="' in theirs and "gateway_asked_total" in theirs  # shared by files
    assert "pythia_" not in theirs
    assert f'{last}runner_name="pythia"' in ours and "pythia_num_requests_running" in ours
    assert 'endpoint="/generate"' in ours and "gateway_asked" not in ours


def test_log_lines_are_each_services_own(gateway: Server) -> None:
    post(gateway, "/tell", {"fields": ASKED})
    log = written(gateway, '"path":"/generate"', "path=/tell,")
    lines = log.splitlines()
    called = [line for line in lines if '"path":"/generate"' in line]
    assert all(json.loads(line)["transport"] == "http" for line in called)
    theirs = [line for line in lines if "path=/tell," in line]
    form = (
        r"^\S+ \[INFO\] \[entry_service:gateway:1\] \S+ \(scheme=http,method=POST,path=/tell,type="
    )
    assert theirs and all(re.match(form, line) for line in theirs)
    assert re.search(r"^\S+ \[INFO\] \[cli\] Starting production HTTP", log, re.MULTILINE)


def written(server: Server, *parts: str) -> str:
    """The log once all ``parts`` are in it: lines may follow the answer."""
    for _ in range(2000):
        log = server.log.read_text()
        if all(part in log for part in parts):
            break
        time.sleep(0.05)
    return log


def test_bounds_are_each_services_own(gateway: Server, inner: httpx.Client) -> None:
    long = {"x-long": "a" * 70_000}
    assert HTTP.get(f"{gateway.url}/tokenize", headers=long).status_code == 200
    assert inner.get("/livez", headers=long).status_code == 400


def is_probed(server: Server) -> bool:
    """Whether the system asks after a connection to the server: its keepalive timer runs."""
    port = int(server.url.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port)) as client:
        ends = f"0100007F:{port:04X}", f"0100007F:{client.getsockname()[1]:04X}"
        while True:
            rows = [row.split() for row in Path("/proc/net/tcp").read_text().splitlines()[1:]]
            if found := [row[5] for row in rows if (row[1], row[2], row[3]) == (*ends, "01")]:
                return found[0].startswith("02:")


def test_time_limits_of_sockets_are_those_of_this_services_port(
    gateway: Server, server: Server
) -> None:
    assert is_probed(server)
    assert not is_probed(gateway)


@pytest.fixture(scope="module")
def remote(home: Path, server: Server) -> Iterator[Server]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REMOTE", server.url)
        with serve(home, "tests.gateway.remote:Remote") as remote:
            yield remote


def test_by_url_a_server_answers_as_ever(remote: Server, server: Server) -> None:
    whole = post(server, "/generate", ASKED).json()
    assert post(remote, "/tell", {"fields": ASKED}).json() == [whole, whole]
    scores = post(server, "/score", {"items": ITEMS}).json()
    assert post(remote, "/judge", {"items": ITEMS}).json() == [scores, scores]
    for path in ("/narrate", "/narrate_untyped"):
        text = post(remote, path, {"fields": ASKED}).text
        assert of_parts(parts_of(text)) == of_whole(whole)


POSTED = ("/generate", "/generate_stream", "/score", "/v1/completions", "/tokenize", "/nothing")


@pytest.mark.parametrize("path", POSTED)
def test_a_public_port_reads_no_pickle(server: Server, tmp_path: Path, path: str) -> None:
    answer = pickled(HTTP, server.url, path, Evil(str(tmp_path / "evil")))
    assert answer.status_code == 415
    assert answer.json()["error"]["message"].endswith("send application/json")
    assert not (tmp_path / "evil").exists()


@pytest.mark.long
def test_nor_does_the_port_of_a_dependency_that_is_served_alone(home: Path, tmp_path: Path) -> None:
    """As each service of a Bento has a machine of its own; BentoML itself would read it."""
    command = (sys.executable, "-m", "bentoml_cli._internal.start")
    arguments = (GATEWAY, "--service-name", "pythia")
    with serve(home, *arguments, bentoml=command, verb="start-http-server") as alone:
        answer = pickled(HTTP, alone.url, "/generate", Evil(str(tmp_path / "evil")))
        assert post(alone, "/generate", ASKED).status_code == 200
    assert answer.status_code == 415
    assert not (tmp_path / "evil").exists()
