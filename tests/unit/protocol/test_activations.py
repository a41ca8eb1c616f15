"""What a file of activations becomes in the hands of users."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pythia_bento.client import Token, TopToken
from pythia_bento.errors import InvalidRequest
from pythia_bento.protocol import tensors
from pythia_bento.protocol.activations import Activations, from_dict, open_activations, read
from pythia_bento.protocol.site_names import Names
from pythia_bento.protocol.types import Output

RNG = np.random.default_rng(0)
LAYERS, POSITIONS, WIDTH, HEADS = 2, 3, 8, 2
TOKENS = [["Once", " upon", " a"], ["a"]]
COMPLETION: dict[str, Any] = {
    **{"text": " time", "token_ids": [4], "finish_reason": "length", "stop_reason": None},
    "tokens": [{"id": 4, "text": " time", "logprob": -1.5, "top": [], "new": 1}],
}


def values(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


ARRAYS = {
    "0:hook_embed": values(POSITIONS, WIDTH),
    **{f"0:blocks.{i}.hook_resid_pre": values(POSITIONS, WIDTH) for i in range(LAYERS)},
    "0:blocks.1.attn.hook_pattern": values(HEADS, POSITIONS, POSITIONS),
    "0:blocks.1.attn.hook_z": values(POSITIONS, HEADS, 4),
    "0:ln_final.hook_normalized": values(POSITIONS, WIDTH),
    "0:blocks.1.hook_resid_pre:norm": values(POSITIONS),
    "0:blocks.1.hook_resid_pre:lens_ids": np.arange(6, dtype=np.int32).reshape(3, 2),
    "0:logits": values(1, 2),
    "0:token_ids": np.array([7, 8, 9, 4], dtype=np.int32),
    "1:blocks.0.hook_resid_post": values(0, WIDTH),
    "1:token_ids": np.array([5], dtype=np.int32),
}
METADATA = {
    **{"request": "{}", "model": "toy", "system_fingerprint": "print", "num_layers": str(LAYERS)},
    **{"tokens": json.dumps(TOKENS), "completions": json.dumps([COMPLETION, None])},
}


def file(arrays: dict[str, np.ndarray] | None = None, **metadata: str) -> bytearray:
    pieces = tensors.write(ARRAYS if arrays is None else arrays, METADATA | metadata)
    return bytearray(b"".join(pieces))


def answer(names: Names = "transformer-lens") -> Activations:
    return read(file(), names)


def test_a_run_for_each_prompt() -> None:
    found = answer()
    assert (len(found), found.model, found.fingerprint) == (2, "toy", "print")
    first, second = found
    assert first is found[0] and found[-1] is second and found[:1] == (first,)
    assert (first.tokens, first.token_ids) == (("Once", " upon", " a"), (7, 8, 9, 4))
    token = Token(4, " time", -1.5)
    assert first.completion == Output(" time", [4], [token], "length")
    assert (second.tokens, second.token_ids, second.completion) == (("a",), (5,), None)
    assert list(second) == ["blocks.0.hook_resid_post"]
    assert second["blocks.0.hook_resid_post"].shape == (0, WIDTH)
    assert {f"0:{name}" for name in first} == {name for name in ARRAYS if name[0] == "0"} - {
        "0:token_ids"
    }
    for name, array in first.items():
        assert array.dtype == ARRAYS[f"0:{name}"].dtype
        assert np.array_equal(array, ARRAYS[f"0:{name}"])
        assert first[name] is array  # once
    assert "hook_embed" in repr(first) and "and" not in repr(second)


def test_names_of_other_libraries_and_those_that_are_not_there() -> None:
    run = answer("nnterp")[0]
    assert "layers_input[1]" in run and "layers_input[1]:norm" in list(run)
    assert run["layers_input[1]"] is run["blocks.1.hook_resid_pre"]
    assert "blocks.1.attn.hook_z" in list(run)  # for which it has no name
    assert "layers_input[7]" not in run
    with pytest.raises(KeyError, match=r"'layers_output\[1\]' was not captured; there are tok"):
        run["layers_output[1]"]


def test_tensors_share_the_memory_of_the_answer() -> None:
    data = file()
    run = read(data)[0]
    shared = run.torch()
    assert shared.keys() == set(run)
    shared["hook_embed"][0, 0] = 42.0
    assert run["hook_embed"][0, 0] == 42.0
    assert np.float32(42.0).tobytes() in data


def test_values_of_16_bits_are_widened() -> None:
    exact = np.array([[1.5, -0.0, 65504.0, 2.0**-24]], dtype=np.float16)
    bits = np.array([[0x3FC0, 0x8000, 0x7F7F, 0x0001]], dtype="<u2")
    pieces = [
        tensors.header(
            [
                tensors.Entry("0:a", "F16", (1, 4)),
                tensors.Entry("0:b", "BF16", (1, 4)),
                tensors.Entry("0:token_ids", "I32", (1,)),
            ],
            METADATA | {"tokens": '[["x"]]', "completions": "[null]"},
        ),
        *(exact.tobytes(), bits.tobytes(), b"\x05\x00\x00\x00"),
    ]
    run = read(bytearray(b"".join(pieces)))[0]
    assert run["a"].dtype == run["b"].dtype == np.float32
    assert np.array_equal(run["a"], exact.astype(np.float32))
    assert np.array_equal(run["b"].view("<u4"), bits.astype("<u4") << 16)
    assert run.torch()["b"].dtype == torch.float32


def test_the_cache_is_transformer_lens() -> None:
    cache = answer("interp-engine")[0].cache()
    assert {name: tuple(tensor.shape) for name, tensor in cache.items()} == {
        "hook_embed": (1, POSITIONS, WIDTH),
        "blocks.0.hook_resid_pre": (1, POSITIONS, WIDTH),
        "blocks.1.hook_resid_pre": (1, POSITIONS, WIDTH),
        "blocks.1.attn.hook_pattern": (1, HEADS, POSITIONS, POSITIONS),
        "blocks.1.attn.hook_z": (1, POSITIONS, HEADS, 4),
        "ln_final.hook_normalized": (1, POSITIONS, WIDTH),
    }


def test_hidden_states_are_a_tuple_of_layers_and_one() -> None:
    states = answer()[0].hidden_states()
    assert [tuple(state.shape) for state in states] == [(1, POSITIONS, WIDTH)] * (LAYERS + 1)
    names = ["blocks.0.hook_resid_pre", "blocks.1.hook_resid_pre", "ln_final.hook_normalized"]
    for state, name in zip(states, names, strict=True):
        assert np.array_equal(state[0].numpy(), ARRAYS[f"0:{name}"])


def test_hidden_states_of_what_one_layer_leaves_to_the_next() -> None:
    arrays = {
        "0:hook_embed": values(1, WIDTH),
        "0:blocks.0.hook_resid_post": values(1, WIDTH),
        "0:ln_final.hook_normalized": values(1, WIDTH),
    }
    one = {"tokens": '[["x"]]', "completions": "[null]"}
    states = read(file(arrays, **one))[0].hidden_states()
    for state, array in zip(states, arrays.values(), strict=True):
        assert np.array_equal(state[0].numpy(), array)
    del arrays["0:blocks.0.hook_resid_post"]
    with pytest.raises(InvalidRequest, match=r"hidden_states needs blocks\.1\.hook_resid_pre"):
        read(file(arrays, **one))[0].hidden_states()


def test_a_file_on_the_disk_stays_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(file())
    found = open_activations(path, names="transformers")
    array = found[0]["hidden_states[1]"]
    assert np.array_equal(array, ARRAYS["0:blocks.1.hook_resid_pre"])
    array[:] = 0
    assert path.read_bytes() == file()


@pytest.mark.parametrize(
    "content",
    [b"", b"{}", bytes(file())[:-1], b"".join(tensors.write({"x": values(1)}, METADATA))],
)
def test_what_is_no_file_of_activations(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(content)
    with pytest.raises(InvalidRequest, match=r"a\.safetensors is no file of activations: "):
        open_activations(path)
    path.write_bytes(b"".join(tensors.write({}, {"tokens": "[]"})))
    with pytest.raises(InvalidRequest, match="is no file of activations"):
        open_activations(path)


def test_alternatives_of_a_token() -> None:
    top = {"id": 1, "text": "x", "logprob": -2.0, "of_the_future": 1}
    told = COMPLETION | {"tokens": [COMPLETION["tokens"][0] | {"top": [top]}]}
    run = read(file(completions=json.dumps([told, None])))[0]
    assert run.completion is not None
    assert run.completion.tokens[0].top == (TopToken(1, "x", -2.0),)


def test_few_numbers_as_json() -> None:
    for run in answer():
        again = from_dict(json.loads(json.dumps(run.as_dict())))
        assert list(again) == list(run)
        for name, array in run.items():
            assert again[name].dtype == array.dtype and again[name].shape == array.shape
            assert np.array_equal(again[name], array)
        assert (again.tokens, again.token_ids) == (run.tokens, run.token_ids)
        assert again.completion == run.completion
