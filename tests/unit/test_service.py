"""The service as an object of another's process, where BentoML starts nothing."""

from __future__ import annotations

from typing import Any

import bentoml
import pytest

from pythia_bento.service import Pythia


@pytest.fixture
def pythia() -> Any:
    return Pythia()  # type: ignore[operator]


async def test_calls_without_a_model_raise_what_bentoml_knows(pythia: Any) -> None:
    refused = pytest.raises(bentoml.exceptions.BentoMLException, match="is not loaded")
    with refused as caught:
        await pythia.generate(prompt="a")
    assert caught.value.error_code == 503
    with refused:
        [event async for event in pythia.generate_stream(prompt="a")]
    with refused:
        await pythia.score(items=[{"prompt": "a"}])


def test_clients_are_told_of_no_stream_that_they_cannot_read() -> None:
    routes = {route["name"]: route for route in Pythia.schema()["routes"]}  # type: ignore[attr-defined]
    assert set(routes) == {"generate", "generate_stream", "score"}
    assert routes["generate_stream"]["output"]["is_stream"]
    inputs = [routes[name]["input"]["properties"] for name in ("generate", "generate_stream")]
    assert inputs[0] == inputs[1] and "stream" not in inputs[0]
