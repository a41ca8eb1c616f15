"""What was captured of some prompts, as one safetensors file or as plain data."""

from __future__ import annotations

import json
import math
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pythia_bento.engine.capture import Dtype, Placed, Positions, Tap, layout, num_rows
from pythia_bento.engine.inside_limits import width
from pythia_bento.engine.outputs import SequenceOutput, num_inputs
from pythia_bento.engine.params import Request
from pythia_bento.handlers.captures import is_told
from pythia_bento.handlers.requests import fingerprint
from pythia_bento.handlers.streamed import shown_output, shown_prompt
from pythia_bento.model.config import ModelConfig
from pythia_bento.protocol.inside import ActivationsRequest
from pythia_bento.protocol.tensors import Entry, header
from pythia_bento.runtime.served import Served
from pythia_bento.runtime.turns import Turns

PIECE_BYTES = 2**20
_STORED: dict[Dtype, tuple[str, str]] = {  # as a file names it, and as numpy has it
    "float32": ("F32", "<f4"),
    "bfloat16": ("BF16", "<u2"),  # the upper half of fp32
    "float16": ("F16", "<f2"),
    "int32": ("I32", "<i4"),
}


@dataclass(frozen=True, slots=True)
class Tensor:
    """One of an answer."""

    name: str
    dtype: Dtype
    values: np.ndarray  # a view of where they were captured; any strides

    @property
    def entry(self) -> Entry:
        """For the header."""
        return Entry(self.name, _STORED[self.dtype][0], self.values.shape)

    def as_numbers(self) -> np.ndarray:
        """With a type that JSON's writer knows, contiguous."""
        values = self.values
        if self.dtype == "bfloat16":
            values = (values.astype("<u4") << 16).view("<f4")
        kind = "<i4" if self.dtype == "int32" else "<f4"
        return np.ascontiguousarray(values, kind).reshape(values.shape)


def tensors_of(
    served: Served, number: int, request: Request, output: SequenceOutput, memory: memoryview
) -> Iterator[Tensor]:
    """Of prompt ``number``, whose captures are in ``memory``: views of it."""
    assert request.capture is not None
    capture, inputs = request.capture, num_inputs(request, output)
    groups, _ = layout(capture, served.config, request.most_inputs)
    for tap, group in zip(capture.taps, groups, strict=False):  # those of logits come last
        is_pattern = tap.place.site.kind == "keys"
        for placed in group:
            if is_told(placed.part):
                values = captured(placed, memory, tap.positions, inputs)
                if is_pattern:
                    values = values[..., :inputs].transpose(1, 0, 2)
                name = f"{number}:{tap.place.name}{placed.part.suffix}"
                yield Tensor(name, placed.part.dtype, values)
    if capture.logits is not None:
        [placed] = groups[-1]
        values = captured(placed, memory, capture.logits.positions, inputs)
        yield Tensor(f"{number}:logits", "float32", values)
    ids = np.array([*request.prompt, *output.token_ids], np.int32)
    yield Tensor(f"{number}:token_ids", "int32", ids)


def captured(placed: Placed, memory: memoryview, positions: Positions, inputs: int) -> np.ndarray:
    """A part's values where they are, without rows that never came; of none a mean is zeros."""
    part, rows = placed.part, num_rows(positions, inputs)
    shape = (placed.rows, *part.row) if part.has_rows else part.row
    kind, count = _STORED[part.dtype][1], math.prod(shape)
    if count == 0 or rows == 0:  # the memory has what others had there
        return np.zeros((0, *part.row) if part.has_rows else shape, kind)
    values = np.frombuffer(memory, kind, count, placed.offset).reshape(shape)
    return values[:rows] if part.has_rows else values


def rows_of(
    request: Request, memory: memoryview, config: ModelConfig
) -> Iterator[tuple[Tap, np.ndarray]]:
    """What a prompt's taps without reductions have captured: copies, fp32 [positions, W] each."""
    assert request.capture is not None
    taps, inputs = request.capture.taps, request.most_inputs
    groups, _ = layout(request.capture, config, inputs)
    for tap, [placed] in zip(taps, groups, strict=True):
        values = captured(placed, memory, tap.positions, inputs)
        yield tap, values.reshape(len(values), width(tap, config)).copy()


class Answer:
    """All of an answer; close it, from when on its tensors must not be read."""

    def __init__(
        self,
        tensors: Sequence[Tensor],
        model: str,
        system_fingerprint: str,
        texts: dict[str, Any],
        told: Mapping[str, str],
        close: Callable[[], None],
    ) -> None:
        """``texts`` are what is told besides, as JSON's values, and ``told`` the same as JSON."""
        # A reader that maps the file gets aligned views.
        self.tensors = sorted(tensors, key=lambda one: -one.values.itemsize)
        self.model = model
        self.system_fingerprint = system_fingerprint
        self.texts = texts
        self.close = close
        """Gives back the memory; harmless when repeated."""
        names = {"model": model, "system_fingerprint": system_fingerprint}
        self.header = header([one.entry for one in self.tensors], {**names, **told})
        self.nbytes = len(self.header) + sum(one.entry.nbytes for one in self.tensors)

    @classmethod
    async def of(
        cls,
        served: Served,
        body: ActivationsRequest,
        requests: Sequence[Request],
        outputs: Sequence[SequenceOutput],
        memory: Sequence[memoryview],
        close: Callable[[], None],
    ) -> Answer:
        """Of prompts that were computed; ``memory`` is each one's, until ``close``."""
        turns, tensors, tokens, completions = Turns(), list[Tensor](), [], []
        for number, (request, output) in enumerate(zip(requests, outputs, strict=True)):
            for tensor in tensors_of(served, number, request, output, memory[number]):
                tensors.append(tensor)
                await turns.take()
            tokens.append(served.tokenizer.token_texts([*request.prompt, *output.token_ids]))
            completions.append(await _completion(served, body, output))
        lists: dict[str, Sequence[Any]] = {"tokens": tokens, "completions": completions}
        head = {"request": asked(body), "num_layers": served.config.num_layers}
        told = {name: json.dumps(value) for name, value in head.items()}
        told |= {name: await _dumped(entries) for name, entries in lists.items()}
        name = fingerprint(served, requests)
        return cls(tensors, served.info.id, name, {**head, **lists}, told, close)

    async def pieces(self) -> AsyncIterator[bytes | memoryview]:
        """The file, in pieces of at most PIECE_BYTES; some are views, see ``close``."""
        held, size = list[bytes | memoryview](), 0
        for piece in _pieces(self.header, self.tensors):
            if size + len(piece) > PIECE_BYTES and held:
                yield b"".join(held)
                held, size = [], 0
            if len(piece) == PIECE_BYTES:
                yield piece
                continue
            held.append(piece)
            size += len(piece)
        if held:
            yield b"".join(held)

    async def numbers(self) -> dict[str, np.ndarray]:
        """The tensors by name, for JSON."""
        turns, found = Turns(), {}
        for tensor in self.tensors:
            found[tensor.name] = tensor.as_numbers()
            await turns.take()
        return found


async def _dumped(entries: Sequence[Any]) -> str:
    """JSON of a list, entry by entry: one may have a context's tokens."""
    turns, parts = Turns(), []
    for entry in entries:
        parts.append(json.dumps(entry))
        await turns.take()
    return f"[{', '.join(parts)}]"


def asked(body: ActivationsRequest) -> dict[str, Any]:
    """A request's fields but its prompts, which answers have as tokens, and vectors in lists."""
    fields = body.model_dump(mode="json", by_alias=True, exclude_unset=True, exclude={"prompts"})
    for one in fields.get("interventions", ()):
        if isinstance(one.get("vector"), list):
            del one["vector"]
    return fields


async def _completion(
    served: Served, body: ActivationsRequest, output: SequenceOutput
) -> dict[str, Any] | None:
    """What was generated, or None where nothing was to be."""
    if body.max_tokens == 0 and output.prompt_logprobs is None:
        return None
    shown: dict[str, Any] = {**await shown_output(served.tokenizer, output)}
    if output.prompt_logprobs is not None:
        shown["prompt_tokens"] = await shown_prompt(served.tokenizer, output.prompt_logprobs)
    return shown


def _pieces(head: bytes, tensors: Sequence[Tensor]) -> Iterator[bytes | memoryview]:
    """Each of at most PIECE_BYTES."""
    for start in range(0, len(head), PIECE_BYTES):
        yield head[start : start + PIECE_BYTES]
    for tensor in tensors:
        yield from _cut(tensor.values)


def _cut(values: np.ndarray) -> Iterator[bytes | memoryview]:
    """The bytes of an array in its own order; what is not in that order is copied in parts."""
    if values.size and values.flags.c_contiguous:
        flat = values.reshape(-1).view(np.uint8).data
        for start in range(0, len(flat), PIECE_BYTES):
            yield flat[start : start + PIECE_BYTES]
    elif values.nbytes <= PIECE_BYTES:
        yield values.tobytes()
    elif values[0].nbytes > PIECE_BYTES:
        for part in values:
            yield from _cut(part)
    else:
        step = PIECE_BYTES // values[0].nbytes
        for start in range(0, len(values), step):
            yield values[start : start + step].tobytes()
