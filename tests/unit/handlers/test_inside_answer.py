"""Files that are sent in pieces, of arrays with any strides."""

from __future__ import annotations

import random

import numpy as np
import pytest
import safetensors.numpy

from pythia_bento.engine.capture import Part, Placed
from pythia_bento.handlers import inside_answer
from pythia_bento.handlers.inside_answer import Answer, Tensor, captured


@pytest.mark.parametrize("seed", range(20))
async def test_pieces_are_small_and_together_the_file(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inside_answer, "PIECE_BYTES", 64)
    draw, tensors = random.Random(seed), []
    for number in range(draw.randint(0, 6)):
        shape = [draw.randint(0, 9) for _ in range(draw.randint(1, 3))]
        dtype, kind = draw.choice([("float32", "<f4"), ("int32", "<i4"), ("float16", "<f2")])
        whole = np.arange(np.prod([*shape, 3]), dtype=np.int32).astype(kind).reshape(*shape, 3)
        views = [whole, whole[..., :2], whole.transpose(), whole[:, ::2], whole[1:]]
        tensors.append(Tensor(f"t{number}", dtype, draw.choice(views)))  # type: ignore[arg-type]
    closed: list[None] = []
    answer = Answer(tensors, "m", "f", {}, {"tokens": "[]"}, lambda: closed.append(None))
    pieces = [piece async for piece in answer.pieces()]
    data = b"".join(pieces)
    assert max(map(len, pieces)) <= 64 and len(data) == answer.nbytes
    assert data.startswith(answer.header)
    found = safetensors.numpy.load(data)
    assert found.keys() == {tensor.name for tensor in tensors}
    for tensor in tensors:
        np.testing.assert_array_equal(found[tensor.name], tensor.values)
    answer.close()
    assert closed == [None]


async def test_values_of_four_bytes_come_first_so_that_all_are_aligned() -> None:
    tensors = [
        Tensor("half", "float16", np.zeros(3, np.float16)),
        Tensor("whole", "float32", np.ones(2, np.float32)),
        Tensor("brain", "bfloat16", np.full(1, 0x3F80, np.uint16)),
        Tensor("ids", "int32", np.ones(1, np.int32)),
    ]
    answer = Answer(tensors, "m", "f", {}, {}, lambda: None)
    assert [tensor.name for tensor in answer.tensors] == ["whole", "ids", "half", "brain"]
    numbers = await answer.numbers()
    assert {name: (array.dtype.str, array.tolist()) for name, array in numbers.items()} == {
        "whole": ("<f4", [1, 1]),
        "ids": ("<i4", [1]),
        "half": ("<f4", [0, 0, 0]),
        "brain": ("<f4", [1]),
    }


def test_a_part_is_a_view_without_the_rows_that_never_came() -> None:
    memory = memoryview(bytearray(200))
    values = np.frombuffer(memory, "<f4", 12, 64).reshape(4, 3)
    values[:] = np.arange(12).reshape(4, 3)
    placed = Placed(Part("", (3,), "float32"), 64, 4)
    found = captured(placed, memory, (0, 2, 5, 6), 6)
    assert found.tolist() == [[0, 1, 2], [3, 4, 5], [6, 7, 8]]
    values[0, 0] = 9
    assert found[0, 0] == 9
    mean = Placed(Part(":mean", (3,), "float32", has_rows=False), 64, 4)
    assert captured(mean, memory, range(9), 1).tolist() == [9, 1, 2]
    assert captured(mean, memory, range(4, 9), 4).tolist() == [0, 0, 0]
    none = Placed(Part("", (3,), "float32"), 200, 0)
    assert captured(none, memory, range(9, 9), 6).shape == (0, 3)
