"""Decoding ahead of the host, over a toy device that keeps the block tables it was given.

The device runs its steps at once, as if it were far ahead: everything that a forgotten flight
writes is in the cache before the host decides what comes next.
"""

from __future__ import annotations

import random

import pytest
import torch

from pythia_bento.engine import engine as engine_module
from pythia_bento.engine.engine import Engine, EngineConfig
from pythia_bento.engine.lookahead import LOOKAHEAD, Flight, Lookahead
from pythia_bento.engine.model_runner import ModelRunner
from pythia_bento.model.batch import ForwardBatch
from tests.unit.engine.toy import TOKENIZER, ToyModel, request, toy_engine


class ToyDevice:
    """What ``CapturedDecode`` is on a GPU."""

    def __init__(self, runner: ToyRunner) -> None:
        self.runner = runner
        self.flights = self.extensions = 0

    def start(self, chunks, steps):
        self.flights += 1
        size = self.runner._block_size
        self.inputs = [int(chunk.sequence.token_ids[chunk.start]) for chunk in chunks]
        self.tables = [chunk.sequence.block_table[: len(chunk.sequence.blocks)] for chunk in chunks]
        self.tables = [table.tolist() for table in self.tables]
        room = [len(table) * size for table in self.tables]
        return self.fly([(chunk.sequence, chunk.start) for chunk in chunks], room, steps)

    def extend(self, flight, steps):
        self.extensions += 1
        rows = [(sequence, start + flight.steps) for sequence, start in flight.rows]
        return self.fly(rows, flight.room, steps)

    def fly(self, rows, room, steps):
        tokens = [[self.step(row, *rows[row], i) for i in range(steps)] for row in range(len(rows))]
        return Flight(rows, room, steps, lambda: tokens)

    def step(self, row, sequence, start, ahead):
        runner, position, size = self.runner, start + ahead, self.runner._block_size
        table = self.tables[row]
        block = table[position // size] if position // size < len(table) else 0

        def ints(values):
            return torch.tensor(values, dtype=torch.int32)

        batch = ForwardBatch(
            ints([self.inputs[row]]),
            ints([position]),
            ints([block * size + position % size]),
            ints([0, 1]),
            ints([position + 1]),
            ints([table + [0] * 16]),
        )
        logits = runner._model.logits(runner._model.forward(batch, runner._cache))
        wanted = sequence.sampling_row()
        wanted = type(wanted)(position + 1, wanted.temperature, seed=wanted.seed)
        token = int(runner._model.sample(logits, [wanted], runner._num_tokens)[0])
        self.inputs[row] = max(token, 0)
        return token


class ToyRunner(ModelRunner):
    """What ``CudaModelRunner`` is on a GPU."""

    lookahead = LOOKAHEAD

    def __init__(self, model, num_blocks, num_tokens):
        super().__init__(model, num_blocks, num_tokens)
        self.device = ToyDevice(self)
        self.ahead = Lookahead(self.device, self._block_size)

    def execute(self, chunks):
        if all(c.count == 1 and c.samples and c.sequence.params.logprobs is None for c in chunks):
            return self.ahead.decode(chunks)
        return super().execute(chunks)


@pytest.fixture
def engine_ahead(monkeypatch):
    def make(num_blocks, block_size=4, **sizes):
        monkeypatch.setattr(
            engine_module, "_make_runner", lambda m, c, n: ToyRunner(m, c.num_blocks, n)
        )
        engine = Engine(ToyModel(block_size), TOKENIZER, EngineConfig(num_blocks, **sizes))
        monkeypatch.undo()
        return engine

    return make


@pytest.mark.parametrize("seed", range(12))
def test_answers_are_those_of_single_steps(engine_ahead, seed):
    draw = random.Random(seed)
    asked = [
        request(
            str(i),
            tuple(draw.randrange(1, 90) for _ in range(draw.randint(1, 20))),
            max_tokens=draw.randint(1, 40),
            temperature=draw.choice([0.0, 1.0]),
            seed=i,
            logprobs=draw.choice([None, None, None, 0]),
            ignore_eos=draw.random() < 0.7,
        )
        for i in range(20)
    ]
    engine = engine_ahead(draw.choice([24, 60, 400]), max_batch_size=8, max_tokens_per_step=32)
    waiting, answers = list(asked), {}
    while waiting or engine.has_work:
        if waiting and draw.random() < 0.4:
            engine.add_request(waiting.pop())
        for delta in engine.step():
            if delta.request_id in answers:
                answers[delta.request_id].extend(delta)
            else:
                answers[delta.request_id] = delta
        engine.check()
    for r in asked:
        [[alone]] = toy_engine(256, max_tokens_per_step=256).generate([r])
        assert answers[r.request_id].token_ids == alone.token_ids
        assert answers[r.request_id].finish_reason == alone.finish_reason


def test_steps_are_queued_ahead_and_few_visits_describe_rows(engine_ahead):
    engine = engine_ahead(400, block_size=16)
    engine.generate([request(max_tokens=48, temperature=0.0, ignore_eos=True)])
    device = engine._runner.device
    assert device.extensions > device.flights
