"""Do long prompts stall others' tokens? ``python -m bench.gpu.latency``.

32 sequences decode in the engine (no HTTP) while prompts of 1,900 tokens arrive at a steady pace,
under several token budgets (``max_tokens_per_step``), and without arrivals. A gap is the time from
one arrival of a sequence's tokens to the next; an arrival may bring several tokens. The time to a
long prompt's first token counts from when it was due, queueing included.

On a processor: ``--device cpu --model bundled --long 400 --new 100 --budgets 64,256``.
"""

from __future__ import annotations

import argparse
import itertools
import random
import time
from collections.abc import Callable
from typing import Any

from bench.common.options import parser_of
from bench.common.stats import Timing, spread_ms
from bench.gpu import engines, harness
from pythia_bento.engine.engine import Engine
from pythia_bento.engine.fair_queue import Pace
from pythia_bento.engine.params import Request, SamplingParams

SHORT = 128  # tokens of the decoding sequences' prompts


def main() -> None:
    options = _options()
    budgets = [int(budget) for budget in options.budgets.split(",")]
    most = options.decoding + options.most_long
    engine = engines.load(
        options.model,
        options.device,
        most,
        max(options.long, SHORT + options.new) + 1,
        max_tokens=max(budgets),
    )
    rows = []
    for every, budget in [(None, max(budgets)), *((options.every_ms, b) for b in budgets)]:
        set_budget(engine, budget)
        for seed in (0, 1):  # the first one warms up
            found = run(engine, options.decoding, options.new, options.long, every, seed)
        rows.append(
            {
                "model": options.model,
                "backend": "pythia-bento w8a16",
                "batch": options.decoding,
                "max_tokens_per_step": budget,
                "long_prompt": options.long if every else None,
                "every_ms": every,
                **found,
            }
        )
        _show(rows[-1])
        harness.write(options.out, rows)


def _options() -> argparse.Namespace:
    parser = parser_of("bench.gpu.latency", __doc__)
    engines.add_arguments(parser, "h200-latency.json")
    parser.add_argument("--decoding", type=int, default=32, help="sequences")
    parser.add_argument("--new", type=int, default=1500, help="tokens that each decodes")
    parser.add_argument("--long", type=int, default=1900, help="tokens of an arriving prompt")
    parser.add_argument("--every-ms", type=float, default=50, help="an arrival")
    parser.add_argument("--most-long", type=int, default=16, help="long prompts in the engine")
    parser.add_argument("--budgets", default="128,256,512,1024,2048", help="max_tokens_per_step")
    return parser.parse_args()


def set_budget(engine: Engine, tokens: int, most: int = 0) -> None:
    """Change ``max_tokens_per_step``, which the scheduler alone reads, without a new capture.

    ``most`` is ``max_tokens_per_prompt_step``, if more.
    """
    engine._scheduler.pace = Pace(tokens, engine._scheduler.waiting.books.company, most)


def run(
    engine: Engine,
    decoding: int,
    new: int,
    long: int,
    every_ms: float | None,
    seed: int,
    *,
    prompt: int = SHORT,
    clock: Callable[[], float] = time.monotonic,
) -> dict[str, Any]:
    """Decode ``new`` tokens of each sequence; a long prompt is due every ``every_ms``."""
    draw = random.Random(seed)
    steady = _requests(engine, decoding, prompt, new, f"steady-{seed}", draw)
    start = clock()
    timings = {request.request_id: Timing(start) for request in steady}
    longs: dict[str, Timing] = {}
    for request in steady:
        engine.add_request(request)
    while any(not timing.arrivals for timing in timings.values()):
        _step(engine, timings, clock)
    start = clock()
    while any(not timings[request.request_id].end for request in steady):
        while every_ms and clock() >= (due := start + (len(longs) + 1) * every_ms / 1e3):
            [request] = _requests(engine, 1, long, 1, f"long-{seed}-{len(longs)}", draw)
            timings[request.request_id] = longs[request.request_id] = Timing(due)
            engine.add_request(request)
        _step(engine, timings, clock)
    seconds = clock() - start
    decoded = [timings[request.request_id] for request in steady]
    gaps = [
        after - before
        for timing in decoded
        for before, after in itertools.pairwise(timing.arrivals)
        if after > start  # before, they waited for each other's prompts
    ]
    tokens = sum(timing.tokens for timing in decoded)
    arrivals = sum(len(timing.arrivals) for timing in decoded)
    first = [timing.arrivals[0] - timing.start for timing in longs.values() if timing.arrivals]
    unanswered = len(longs) - len(first)
    for id in longs:
        engine.abort(id)
    return {
        "tokens_per_s": round(tokens / seconds, 1),
        "gap_ms": spread_ms(gaps),
        "tokens_per_arrival": round(tokens / arrivals, 2),
        "long_prompts": len(longs),
        "long_first_token_ms": spread_ms(first),
        "long_unanswered": unanswered,
    }


def _requests(
    engine: Engine, count: int, prompt: int, new: int, name: str, draw: random.Random
) -> list[Request]:
    params = SamplingParams(max_tokens=new, temperature=0.0, ignore_eos=True)
    last = engine.tokenizer.num_tokens - 1
    return [
        Request(f"{name}-{i}", tuple(draw.randint(1, last) for _ in range(prompt)), params)
        for i in range(count)
    ]


def _step(engine: Engine, timings: dict[str, Timing], clock: Callable[[], float]) -> None:
    outputs = engine.step()
    now = clock()
    for output in outputs:
        timing = timings[output.request_id]
        timing.arrivals.append(now)
        timing.tokens += len(output.token_ids)
        if output.finish_reason is not None:
            timing.end = now


def _show(row: dict[str, Any]) -> None:
    load = "none"
    if row["every_ms"]:
        load = f"{row['long_prompt']} tokens every {row['every_ms']:g} ms"
    gap, first = row["gap_ms"], row["long_first_token_ms"]
    print(
        f"{row['model']:10} batch {row['batch']:3}  budget {row['max_tokens_per_step']:5}  "
        f"arrivals: {load:26} {row['tokens_per_s']:9.1f} tokens/s  "
        f"gap p50 {gap['p50']:.2f} p99 {gap['p99']:.2f} max {gap['max']:.2f} ms",
        flush=True,
    )
    if first:
        print(
            f"  {row['long_prompts']} long prompts ({row['long_unanswered']} left over): "
            f"first token p50 {first['p50']:.1f} p99 {first['p99']:.1f} max {first['max']:.1f} ms",
            flush=True,
        )


if __name__ == "__main__":
    main()
