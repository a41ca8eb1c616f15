"""Numbers of a request: in its lists, or in a file beside it."""

from __future__ import annotations

import numpy as np
import pytest

from pythia_bento.errors import InvalidRequest
from pythia_bento.handlers import named_tensors
from pythia_bento.handlers.named_tensors import NamedTensors, read_tensors
from pythia_bento.protocol.tensors import write

FILE = b"".join(write({"v": np.float32([1, 2]), "h": np.float16([[0.5], [3]])}))


@pytest.mark.parametrize("at_once", [0, named_tensors.AT_ONCE])
async def test_names_and_lists_become_fp32(at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(named_tensors, "AT_ONCE", at_once)  # beside the event loop, and on it
    tensors = NamedTensors(await read_tensors(FILE))
    for value, expected in (
        ("v", [1, 2]),
        ("h", [[0.5], [3]]),
        ((1, 0.25), [1, 0.25]),
        (((1, 2), (3, 4)), [[1, 2], [3, 4]]),
    ):
        found = await tensors.array(value, "f")  # type: ignore[arg-type]
        assert found.dtype == np.float32 and found.tolist() == expected
    assert await tensors.array("h", "f") is await tensors.array("h", "g")  # widened once


async def test_none_are_none() -> None:
    assert await read_tensors(None) == {}
    with pytest.raises(InvalidRequest, match=r"^tensors is not a safetensors file: it has 3 byt"):
        await read_tensors(b"abc")


async def test_what_is_not_there_or_cannot_be_computed_with_names_its_field() -> None:
    tensors = NamedTensors(await read_tensors(b"".join(write({"n": np.float32([np.nan])}))))
    for value, words in (
        ("w", "f[0].x is 'w', which is no tensor of this request"),
        ("n", "f[0].x 'n' holds a value that is not finite"),
        ((float("inf"),), "f[0].x holds a value that is not finite"),
        ((10**400,), "f[0].x holds a value that is not finite"),
        ((-2e6, 1), "f[0].x holds a value that is beyond 1e6"),
    ):
        with pytest.raises(InvalidRequest) as caught:
            await tensors.array(value, "f[0].x")  # type: ignore[arg-type]
        assert (caught.value.message, caught.value.param) == (words, "f[0].x")
    with pytest.raises(InvalidRequest, match="names a tensor, which only /v1/activations takes"):
        await NamedTensors(None).array("v", "f")
