"""docs/activations.md, executed against a real server; and large answers over a socket."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from tests.e2e.faulty import until
from tests.e2e.serving import ROOT, Server, serve
from tests.e2e.test_readme import Block, blocks_of, lines, run, runnable

BLOCKS = runnable("activations", blocks_of((ROOT / "docs" / "activations.md").read_text()))


@pytest.mark.needs("curl")
@pytest.mark.parametrize("name", BLOCKS)
def test_block_prints_what_stands_below_it(name: str, server: Server, tmp_path: Path) -> None:
    block, expected = BLOCKS[name]
    assert isinstance(expected, Block)
    assert lines(run(block, server, tmp_path)) == lines(expected.code)


def test_there_are_some() -> None:
    assert len(BLOCKS) >= 6


# Some 28 MB, far more than a socket holds, of the 30 that there are.
LARGE = {"prompts": [[5] * 508] * 9, "capture": [{"site": "blocks.*.mlp.hook_post"}]}
ROOM = {"capture_gb": 0.03, "max_capture_bytes": 30_000_000, "client_timeout": 5}


def test_a_client_that_stops_reading_is_given_up_and_others_have_the_memory(home: Path) -> None:
    with serve(home, is_measured=True, **ROOM) as server, httpx.Client(timeout=120) as client:
        asked = {"url": f"{server.url}/v1/activations", "json": LARGE}
        with client.stream("POST", **asked) as stopped:
            assert stopped.status_code == 200
            announced = int(stopped.headers["content-length"])
            parts = stopped.iter_raw()
            size = len(next(parts))
            whole = client.post(**asked)  # waits until the first one was given up
            assert len(whole.content) == announced
            with pytest.raises(httpx.TransportError):
                for part in parts:
                    size += len(part)
            assert size < announced
        assert client.post(**asked).content == whole.content
        with client.stream("POST", **asked) as left:
            assert left.status_code == 200
            next(left.iter_raw())
        until(lambda: server.metric("capture_bytes_used") == 0)
        assert client.post(**asked).content == whole.content
        server.settled()
        assert "Traceback" not in server.log.read_text()
