"""Many checkpoints on one GPU: what a switch costs, how many fit, and whether bits stay.

``python -m bench.gpu.checkpoints [--model pythia-1b] [--only switch,pair,alone]``: random weights,
a seed for each entry. Parts end at a time limit of their own, and the file is written after each.
``--device cpu`` tries all that needs no slabs, on a tiny model.
"""

from __future__ import annotations

import random
import signal
import statistics
import sys
import time
import traceback
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch

from bench.common.options import parser_of
from bench.gpu import harness
from bench.gpu.invariance import draw_requests, facts, together
from bench.gpu.residents import OneStep, tag
from bench.gpu.stage import Answers, Asked, Marks, Stage
from pythia_bento.engine.block_pool import BlockPool
from pythia_bento.engine.engine import Engine
from pythia_bento.engine.outputs import SequenceOutput
from pythia_bento.engine.params import Request
from pythia_bento.model.kernels.base import PackedWeights
from pythia_bento.model.kernels.gpu.host_slabs import HostSlabs

RESERVE = 2 << 30  # bytes that stay free beside the residents, for passes without a graph
LIMITS = {"switch": 70, "capacity": 40, "host": 40, "pair": 40, "mixed": 60, "alone": 100}

Row = dict[str, Any]


def switch(stage: Stage) -> Iterator[Row]:
    """Other weights before every step of one sequence."""
    count, new = (24, 8) if stage.is_tiny else (stage.args.switches, 500)
    each = -(-count // (len(stage.keys) * new)) + 1
    asked = {
        key: [
            _sampled(one) if place % 2 else one
            for place, one in enumerate(stage.requests(each, 16, new, seed))
        ]
        for seed, key in enumerate(stage.keys)
    }
    alone = stage.keys[:1]
    _single_steps(stage, alone, {key: list(asked[key]) for key in alone}, count // 10)
    seconds, marks, _ = _single_steps(stage, alone, asked, count // 10)
    step = seconds / (count // 10)
    seconds, marks, answers = _single_steps(stage, stage.keys, asked, count)
    stage.compare(asked, answers)
    spent = sorted(marks.milliseconds())
    yield {
        "what": "switch",
        "switches": count,
        "entries": len(stage.keys),
        "slab_bytes": stage.slab_bytes(),
        "p50_ms": round(spent[len(spent) // 2], 4),
        "p99_ms": round(spent[len(spent) * 99 // 100], 4),
        "max_ms": round(spent[-1], 4),
        "step_ms": round(step * 1e3, 4),
        "step_with_switch_ms": round(seconds / count * 1e3, 4),
    }


def _sampled(asked: Request) -> Request:
    return replace(asked, params=replace(asked.params, temperature=1.0, seed=5))


def _single_steps(
    stage: Stage, keys: list[str], asked: Asked, count: int
) -> tuple[float, Marks, Answers]:
    """Steps of all in turn, one at a time; their seconds, switches and answers."""
    runner, ahead = stage.runner, getattr(stage.runner, "ahead", None)
    runner.ahead = OneStep(runner)
    pool, marks = BlockPool(stage.sizes.num_blocks), Marks(is_cuda=not stage.is_tiny)
    engines = {key: Engine(runner, stage.known, root=tag(key), pool=pool) for key in keys}
    waiting = {key: deque(asked[key]) for key in keys}
    answers: Answers = {key: {} for key in keys}
    start = harness.now()
    for number in range(count):
        key = keys[number % len(keys)]
        if not engines[key].has_work:
            engines[key].add_request(waiting[key].popleft())
        marks.note()
        runner.activate(stage.weights[key], is_last=True)
        marks.note()
        _add(answers[key], engines[key].step())
    seconds = harness.now() - start
    for key, engine in engines.items():
        for id in answers[key]:
            engine.abort(id)
    runner.ahead = ahead
    return seconds, marks, answers


def _add(answers: dict[str, SequenceOutput], deltas: list[SequenceOutput]) -> None:
    for delta in deltas:
        if delta.request_id in answers:
            answers[delta.request_id].extend(delta)
        else:
            answers[delta.request_id] = delta


def capacity(stage: Stage) -> Iterator[Row]:
    """Slabs until the memory ends, and whether some of them still answer."""
    size, found = stage.slab_bytes(), list(stage.weights.values())
    most = 6 if stage.is_tiny else 1000
    while len(found) < most and (stage.is_tiny or _free() > size + RESERVE):
        origin = found[len(found) % len(stage.keys)]
        found.append(stage.kernels.contiguous(origin, tag(f"copy {len(found)}")))
    asked = stage.requests(1, 16, 4 if stage.is_tiny else 16, 0)
    said = [_tokens(stage, weights, asked) for weights in found[: len(stage.keys)]]
    draw = random.Random(0)
    places = draw.sample(range(len(found)), min(30, len(found)))
    wrong = [
        place for place in places if _tokens(stage, found[place], asked) != said[place % len(said)]
    ]
    yield {
        "what": "capacity",
        "residents": len(found),
        "slab_bytes": size,
        "cache_bytes": stage.sizes.num_blocks * stage.kernels.kv_bytes_per_block(),
        "reserve_bytes": RESERVE,
        "free_bytes": 0 if stage.is_tiny else _free(),
        "total_bytes": 0 if stage.is_tiny else torch.cuda.mem_get_info()[1],
        "asked": len(places),
        "different": wrong,
    }
    del found
    if not stage.is_tiny:
        torch.cuda.empty_cache()


def _free() -> int:
    torch.cuda.empty_cache()
    return torch.cuda.mem_get_info()[0]


def _tokens(stage: Stage, weights: PackedWeights, asked: list[Request]) -> list[int]:
    stage.runner.activate(weights, is_last=False)
    [[answer]] = Engine(stage.runner, stage.known).generate(asked)
    return answer.token_ids


def host(stage: Stage) -> Iterator[Row]:
    """Slabs from page-locked memory, beside what a copy of that size takes at best."""
    size = stage.slab_bytes()
    slabs = HostSlabs(stage.device, size, len(stage.keys) * size)
    lock, put = [], []
    for key, weights in stage.weights.items():
        start = harness.now()
        slabs.prepare()
        lock.append(harness.now() - start)
        assert slabs.put(key, weights)
        put.append(harness.now() - start - lock[-1])
    get, same = [], True
    for key in stage.keys * 4:
        start = harness.now()
        back = slabs.get(key)
        get.append(harness.now() - start)
        assert back is not None and back.slab is not None
        own = stage.weights[key].slab
        assert own is not None
        same &= torch.equal(back.slab.memory, own.memory)
        del back
    slabs.close()
    seconds, best = statistics.median(get), stage.is_tiny or _pinned_gb_per_s(size)
    yield {
        "what": "host",
        "slab_bytes": size,
        "lock_s": round(statistics.median(lock), 3),
        "evict_ms": round(statistics.median(put) * 1e3, 2),
        "return_ms": round(seconds * 1e3, 2),
        "gb_per_s": round(size / seconds / 1e9, 2),
        "pinned_gb_per_s": round(best, 2),
        "share": round(size / seconds / 1e9 / best, 3),
        "is_same": same,
    }


def _pinned_gb_per_s(size: int) -> float:
    """The best of some copies from memory that torch locks."""
    source = torch.ones(size, dtype=torch.uint8).pin_memory()
    target, best = torch.empty_like(source, device="cuda"), 0.0
    for _ in range(8):
        marks = Marks(is_cuda=True)
        marks.note()
        target.copy_(source, non_blocking=True)
        marks.note()
        best = max(best, size / marks.milliseconds()[0] / 1e6)
    return best


def pair(stage: Stage) -> Iterator[Row]:
    """Two residents with 32 clients each, and one of them alone in the same group."""
    for keys in (stage.keys[:1], stage.keys[:2]):
        group = stage.group(keys, len(keys))
        rate = _rate(stage, group, keys)
        stats = group.stats()
        stage.rates["+".join(keys)] = rate
        yield {
            "what": "pair",
            "residents": len(keys),
            "clients_each": _clients(stage),
            "tokens_per_s": round(rate, 1),
            "turns": stats.group.changes,
            "share_of_one_in_the_group": round(rate / stage.rates[keys[0]], 3),
        }


def _clients(stage: Stage) -> int:
    return 2 if stage.is_tiny else 32


def _rate(stage: Stage, engine: Any, keys: list[str]) -> float:
    """Generated tokens a second of clients that ask again and again; the median of three loads."""
    runs = [_load(stage, engine, keys, seed) for seed in range(1 if stage.is_tiny else 4)]
    return statistics.median(runs[1:] or runs)


def _load(stage: Stage, engine: Any, keys: list[str], seed: int) -> float:
    clients, rounds = _clients(stage), 1 if stage.is_tiny else 8
    prompt, new = (8, 4) if stage.is_tiny else (128, 128)
    waiting = {}
    for number, key in enumerate(keys):
        asked = stage.requests(clients * rounds, prompt, new, 1000 + 10 * seed + number)
        for client in range(clients):
            own = asked[client::clients]
            waiting[key, client] = deque(
                replace(one, weights=key, caller=f"{key} {client}") for one in own
            )
    client_of = {}

    def ask(client: tuple[str, int]) -> None:
        if waiting[client]:
            request = waiting[client].popleft()
            client_of[request.request_id] = client
            engine.add_request(request)

    start, tokens = harness.now(), 0
    for client in waiting:
        ask(client)
    while engine.has_work:
        for output in engine.step():
            tokens += len(output.token_ids)
            if output.finish_reason is not None:
                ask(client_of[output.request_id])
    assert tokens == len(keys) * clients * rounds * new
    return tokens / (harness.now() - start)


def mixed(stage: Stage) -> Iterator[Row]:
    """Requests with every option for all entries: all of them resident, and places for two."""
    count, longest = (6, 20) if stage.is_tiny else (64, 1900)
    for places in (len(stage.keys), 2):
        asked: Asked = {key: [] for key in stage.keys}
        draw = random.Random(places)
        requests = [
            replace(one, weights=draw.choice(stage.keys), caller=f"caller {index % 8}")
            for index, one in enumerate(_drawn(stage, count, longest, places))
        ]
        for one in requests:
            asked[one.weights].append(one)
        size = stage.slab_bytes()
        slabs = HostSlabs(stage.device, size, 3 * size) if places == 2 else None
        group = stage.group(stage.keys, places, slabs)
        start = harness.now()
        found: dict[str, SequenceOutput] = {}
        for begin in range(0, count, 16):  # what is idle meanwhile makes room, and returns
            found |= together(group, requests[begin : begin + 16])  # type: ignore[arg-type]
        seconds = harness.now() - start
        group.check()
        stats = group.stats()
        stage.compare(
            asked,
            {key: {one.request_id: found[one.request_id] for one in asked[key]} for key in asked},
        )
        yield {
            "what": "mixed",
            "requests": count,
            "entries": len(stage.keys),
            "places": places,
            "seconds": round(seconds, 2),
            "turns": stats.group.changes,
            "evictions": stats.group.evictions,
            "returned_from_host": stage.loader.returned,
        }
        group.close()


def _drawn(stage: Stage, count: int, longest: int, seed: int) -> list[Request]:
    if not stage.is_tiny:
        return draw_requests(count, longest, seed)
    return stage.requests(count, longest, 3, seed)


def alone(stage: Stage) -> Iterator[Row]:
    """Each entry in a runner of its own without a slab: its answers, and the first one's rate."""
    different: list[str] = []
    compared = tokens = 0
    sizes = replace(stage.sizes, num_blocks=-(-stage.sizes.num_blocks // 2))
    for key in stage.keys:
        is_first = key == stage.keys[0]
        own = sizes if is_first or stage.is_tiny else replace(sizes, max_batch_size=4)
        engine = Engine(stage.runner_of(stage.model(key), own), stage.known)
        if is_first:
            rate = _rate(stage, engine, [""])
            row = {"what": "one model", "clients": _clients(stage), "tokens_per_s": round(rate, 1)}
            both = stage.rates.get("+".join(stage.keys[:2]))
            yield row | ({"pair_share": round(both / rate, 3)} if both else {})
        for asked, answers in zip(stage.asked, stage.answers, strict=True):
            for one in asked[key]:
                if (found := answers[key].get(one.request_id)) is None:
                    continue
                [[wanted]] = engine.generate([replace(one, weights="")])
                compared, tokens = compared + 1, tokens + len(found.token_ids)
                if not _is_same(found, wanted):
                    different.append(f"{key}: {one.request_id}")
        engine.close()
        del engine
    yield {
        "what": "bits",
        "compared": compared,
        "tokens": tokens,
        "different": different,
    }


def _is_same(found: SequenceOutput, wanted: SequenceOutput) -> bool:
    """Whether an answer, or its beginning where it was not waited for, is the one wanted."""
    if found.finish_reason is None:
        return found.token_ids == wanted.token_ids[: len(found.token_ids)]
    return bool(facts(found) == facts(wanted))


@contextmanager
def limit(seconds: int) -> Iterator[None]:
    """Raise TimeoutError in the middle of what takes longer."""

    def end(*_: object) -> None:
        raise TimeoutError(f"more than {seconds} s")

    signal.signal(signal.SIGALRM, end)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)


def main() -> None:
    """All parts; exit status 1 where one failed or bits differ."""
    parser = parser_of("bench.gpu.checkpoints", __doc__)
    parser.add_argument("--model", default="pythia-1b")
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--entries", type=int, default=4)
    parser.add_argument("--switches", type=int, default=10_000)
    parser.add_argument("--only", default="switch,capacity,host,pair,mixed,alone")
    parser.add_argument("--out", default="bench/results/h200-checkpoints.json")
    args = parser.parse_args()
    start = harness.now()
    stage = Stage(args)
    print(f"made in {harness.now() - start:.1f} s", flush=True)
    parts = {part.__name__: part for part in (switch, capacity, host, pair, mixed, alone)}
    rows: list[Row] = []
    for name in args.only.split(","):
        start = time.perf_counter()
        try:
            with limit(LIMITS[name]):
                for row in parts[name](stage):
                    rows.append(row)
                    print(row, flush=True)
                    harness.write(args.out, rows, model=args.model)
        except Exception as error:
            traceback.print_exc()
            rows.append({"what": name, "error": f"{type(error).__name__}: {error}"})
            harness.write(args.out, rows, model=args.model)
        print(f"{name}: {time.perf_counter() - start:.1f} s", flush=True)
    sys.exit(any(row.get("different") or "error" in row for row in rows))


if __name__ == "__main__":
    main()
