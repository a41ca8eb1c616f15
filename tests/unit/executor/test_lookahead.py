"""Decoding ahead of the host, over a toy device that keeps the block tables it was given.

The device runs its steps at once, as if it were far ahead: everything that a forgotten flight
writes is in the cache before the host decides what comes next.
"""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
import torch

from pythia_bento.engine.engine import Engine
from pythia_bento.engine.executor import EngineConfig
from pythia_bento.engine.interventions import Intervention, interventions
from pythia_bento.executor.flights import StepsInFlight, tokens_found
from pythia_bento.executor.lookahead import LOOKAHEAD, Lookahead
from pythia_bento.executor.model_runner import ModelRunner
from pythia_bento.model.batch import ForwardBatch
from pythia_bento.model.sites import EMBED, Place
from tests.amounts import rest_long
from tests.unit.engine.toy import POISON, TOKENIZER, ToyModel, postpone, request, toy_engine

TOKEN = Place(EMBED)


class ToyDevice:
    """What ``CapturedDecode`` is on a GPU."""

    def __init__(self, runner: ToyRunner) -> None:
        self.runner = runner
        self.flights = self.following = self.extensions = self.steps = self.passes = 0

    def start(self, rows, steps, inputs=None):
        self.flights += 1
        self.following += inputs is not None
        size = self.runner.block_size
        if inputs:
            self.inputs = [max(inputs.tokens[entry], 0) for entry in inputs.entries]
        else:
            self.inputs = [int(sequence.token_ids[start]) for sequence, start in rows]
        self.tables = [sequence.block_table[: len(sequence.blocks)] for sequence, _ in rows]
        self.tables = [table.tolist() for table in self.tables]
        covered = [len(table) * size for table in self.tables]
        return self.queue(list(rows), covered, steps)

    def extend(self, flight, steps):
        self.extensions += 1
        rows = [(sequence, start + flight.steps) for sequence, start in flight.rows]
        return self.queue(rows, flight.covered, steps)

    def queue(self, rows, covered, steps):
        self.steps += steps
        tokens = [[self.step(row, *rows[row], i) for i in range(steps)] for row in range(len(rows))]
        results = list(map(tokens_found, tokens))
        return StepsInFlight(rows, steps, lambda: results, self.inputs, covered)

    def step(self, row, sequence, start, ahead):
        token = self.compute(sequence, self.tables[row], start + ahead, [self.inputs[row]])
        self.inputs[row] = max(token, 0)
        return token

    def pass_behind(self, chunks, inputs):
        """What ``CapturedPrefill`` does for a pass behind a flight."""
        if any(chunk.sequence.params.logprobs is not None for chunk in chunks):
            return None
        self.passes += 1
        tokens = []
        for place, chunk in enumerate(chunks):
            sequence, end = chunk.sequence, chunk.start + chunk.count
            known = [int(token) for token in sequence.token_ids[chunk.start : end]]
            if place < len(inputs.entries):
                known = [max(inputs.tokens[inputs.entries[place]], 0)]
            table = sequence.block_table[: len(sequence.blocks)].tolist()
            tokens.append(self.compute(sequence, table, chunk.start, known))
        return lambda: tokens, tokens

    def compute(self, sequence, table, start, tokens):
        """The token after ``tokens``, which begin at position ``start``."""
        runner, size, end = self.runner, self.runner.block_size, start + len(tokens)

        def ints(values):
            return torch.tensor(values, dtype=torch.int32)

        def slot(position):
            block = table[position // size] if position // size < len(table) else 0
            return block * size + position % size

        batch = ForwardBatch(
            ints(tokens),
            ints(range(start, end)),
            ints([slot(position) for position in range(start, end)]),
            ints([0, len(tokens)]),
            ints([end]),
            ints([table + [0] * 16]),
        )
        hidden = runner._model.forward(batch, runner._cache)
        logits = runner._model.logits(hidden[-1:])
        wanted = sequence.sampling_row()
        wanted = type(wanted)(end, wanted.temperature, seed=wanted.seed)
        return int(runner._model.sample(logits, [wanted], runner._num_tokens)[0])


class ToyRunner(ModelRunner):
    """What ``CudaModelRunner`` is on a GPU."""

    lookahead = LOOKAHEAD

    def __init__(self, model, config):
        super().__init__(model, config, TOKENIZER.num_tokens)
        self.device = ToyDevice(self)
        self.ahead = Lookahead(self.device, self.block_size, self.device.pass_behind)

    def _execute(self, chunks, others_wait):
        self.ahead.others_next = self.others_next
        if chunks[0].sequence.taps is not None:
            self.ahead.pass_by()
            results = super()._execute(chunks, others_wait)
            if self.others_next:
                postpone(results)
            return results
        are_plain = all(c.sequence.params.logprobs is None for c in chunks)
        are_decodes = are_plain and all(c.count == 1 and c.samples for c in chunks)
        if (found := self.ahead.under_way(chunks)) is not None:
            return found
        if are_decodes:
            return self.ahead.decode(chunks)
        self.ahead.forget()
        results = super()._execute(chunks, others_wait)
        if are_plain:
            self.ahead.begin(chunks, [token for r in results for token in r.token_ids or [0]])
        return results


def ahead(num_blocks, block_size=4, **sizes):
    """An engine, and the device that it is ahead of."""
    runner = ToyRunner(ToyModel(block_size), EngineConfig(num_blocks, **sizes))
    return Engine(runner, TOKENIZER), runner.device


@pytest.mark.no_cover
@pytest.mark.parametrize("seed", rest_long(range(3), range(3, 24)))
def test_answers_are_those_of_single_steps(seed):
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
    if seed % 2:
        asked = [changed(one) if draw.random() < 0.3 else one for one in asked]
    engine, _ = ahead(draw.choice([24, 60, 400]), max_batch_size=8, max_tokens_per_step=32)
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


def test_steps_are_queued_ahead_and_few_visits_describe_rows():
    engine, device = ahead(400, block_size=16)
    engine.generate([request(max_tokens=48, temperature=0.0, ignore_eos=True)])
    assert device.extensions > device.flights


def test_an_arrival_waits_for_the_steps_under_way_and_wastes_none():
    engine, device = ahead(400, block_size=16, max_batch_size=8)
    engine.add_request(request("first", max_tokens=48, temperature=0.0, ignore_eos=True))
    for _ in range(3):
        engine.step()
    flown = device.steps
    engine.add_request(request("second", (8, 9), max_tokens=4, temperature=0.0, ignore_eos=True))
    known = engine._scheduler.running[0].num_generated
    [output] = engine.step()
    assert output.request_id == "first"
    assert known + len(output.token_ids) == 1 + flown  # the prompt's token, and all steps so far
    assert device.steps == flown
    assert {output.request_id for output in engine.step()} == {"first", "second"}


def test_a_pass_goes_behind_the_steps_under_way_and_takes_the_others_along():
    engine, device = ahead(400, block_size=16, max_batch_size=8)
    engine.add_request(request("first", max_tokens=48, temperature=0.0, ignore_eos=True))
    for _ in range(3):
        engine.step()
    flights = device.flights
    engine.add_request(request("second", (8, 9), max_tokens=4, temperature=0.0, ignore_eos=True))
    [output] = engine.step()  # of the steps under way, while the pass is queued
    assert (output.request_id, device.passes) == ("first", 1)
    both = engine.step()
    assert [(o.request_id, len(o.token_ids)) for o in both] == [("first", 1), ("second", 1)]
    assert device.flights == device.following == flights + 1  # steps of both, behind the pass


def test_steps_follow_a_prompt_and_the_end_of_a_neighbour():
    engine, device = ahead(400, block_size=16)
    asked = [
        request("short", max_tokens=6, temperature=0.0, ignore_eos=True),
        request("long", (9, 8), max_tokens=20, temperature=0.0, ignore_eos=True),
    ]
    engine.generate(asked)
    # Behind the prompts, and without the short one behind its last step: never from the host.
    assert device.flights == device.following == 2
    assert device.steps == 19  # none for nothing


def test_a_failed_row_ends_alone():
    engine, _ = ahead(400, block_size=16)
    asked = [
        request("bad", (POISON,), max_tokens=20, ignore_eos=True),
        request("good", max_tokens=20, ignore_eos=True),
    ]
    [[bad], [good]] = engine.generate(asked)
    assert bad.finish_reason == "error"
    [[alone]] = toy_engine(256).generate([request("good", max_tokens=20, ignore_eos=True)])
    assert good.token_ids == alone.token_ids


def test_steps_follow_a_prompt_that_fills_its_blocks():
    engine, device = ahead(400, block_size=16)
    engine.generate([request("r", (7,) * 16, max_tokens=6, temperature=0.0, ignore_eos=True)])
    assert device.flights == device.following == 1


def test_nothing_is_queued_behind_the_last_visit():
    engine, device = ahead(400, block_size=16)
    engine.add_request(request(max_tokens=40, temperature=0.0, ignore_eos=True))
    lookahead = engine._executor.ahead
    lookahead.is_last = True
    [first] = engine.step()  # the pass over the prompt
    assert (len(first.token_ids), device.steps) == (1, 0)
    [second] = engine.step()
    assert len(second.token_ids) == device.steps == 8
    lookahead.is_last = False
    [third] = engine.step()
    assert device.steps == 24  # these, and those behind them
    lookahead.is_last = True
    [fourth] = engine.step()
    assert len(fourth.token_ids) == 8 and device.steps == 24
    found = [token for delta in (first, second, third, fourth) for token in delta.token_ids]
    asked = request(max_tokens=25, temperature=0.0, ignore_eos=True)
    assert found == toy_engine(256).generate([asked])[0][0].token_ids


def changed(asked):
    """The same with another token at its beginning."""
    change = Intervention(TOKEN, "scale", (0,), scale=2)
    return replace(asked, interventions=interventions([change]))


def test_a_pass_with_taps_goes_behind_the_steps_under_way_which_stay_so():
    engine, device = ahead(400, block_size=16, max_batch_size=8)
    asked = request("plain", max_tokens=40, temperature=0.0, ignore_eos=True)
    engine.add_request(asked)
    for _ in range(3):
        engine.step()
    flown, flights = device.steps, device.flights
    engine.add_request(changed(request("tapped", (8, 9), max_tokens=3, temperature=0.0)))
    found = [[output.request_id for output in engine.step()] for _ in range(3)]
    assert found == [[], ["tapped", "plain"], []]  # its tokens come while the others' are queued
    # Nothing was computed again, and the rows are still as they were described.
    assert device.flights == flights and device.steps == flown + 8


def test_a_pass_under_way_is_forgotten_where_one_with_taps_takes_its_place():
    engine, device = ahead(400, block_size=16, max_batch_size=8)
    lookahead = engine._executor.ahead
    asked = [request(str(n), (5 + n, 9), max_tokens=20, temperature=0.0) for n in range(2)]
    engine.add_request(asked[0])
    for _ in range(3):
        engine.step()
    engine.add_request(asked[1])
    answers = engine.step()
    assert device.passes == 1
    lookahead.pass_by()
    assert lookahead._ahead is None
    tokens = {asked[0].request_id: [], asked[1].request_id: []}
    while engine.has_work:
        answers += engine.step()
    for output in answers:
        tokens[output.request_id] += output.token_ids
    for one in asked:
        whole = toy_engine(256).generate([one])[0][0].token_ids
        assert whole[len(whole) - len(tokens[one.request_id]) :] == tokens[one.request_id]


def test_a_prompt_that_arrives_in_the_last_visit_waits_for_the_next():
    engine, device = ahead(400, block_size=16, max_batch_size=8)
    engine.add_request(request("first", max_tokens=48, temperature=0.0, ignore_eos=True))
    for _ in range(3):
        engine.step()
    engine._executor.ahead.is_last = True
    engine.add_request(request("second", (8, 9), max_tokens=4, temperature=0.0, ignore_eos=True))
    assert [output.request_id for output in engine.step()] == ["first"]
    assert device.passes == 0
    assert {output.request_id for output in engine.step()} == {"first", "second"}


def test_what_was_computed_behind_the_end_is_not_cached():
    """Its tokens are not known, so the name of a block with them would be another text's."""
    engine, _ = ahead(400, block_size=4)
    asked = request(max_tokens=40, temperature=0.0, ignore_eos=True)
    [[plain]] = toy_engine(256, max_tokens_per_step=256).generate([asked])
    for place in range(6, 14):
        stop = plain.token_ids[place]
        stopping = replace(asked.params, stop_token_ids=(stop,))
        [[answer]] = engine.generate([replace(asked, params=stopping)])
        whole = request(prompt=(*asked.prompt, *answer.token_ids, *[0] * 12), temperature=0.0)
        [[after]] = engine.generate([whole])
        [[wanted]] = toy_engine(256, max_tokens_per_step=256).generate([whole])
        assert after.token_ids == wanted.token_ids
