"""The engine alone under the load that ``bench.serving.serve`` puts on the service.

``python -m bench.serving.closed_loop '<JSON>' [--instant]`` loads what the service would load with
the same environment and prints the figures as JSON. It is a process of its own, so that the device
is free again afterwards. ``--instant`` is as in ``bench.serving.serve``.
"""

from __future__ import annotations

import json
import random
import sys
import time
from dataclasses import asdict, dataclass
from typing import Any

from bench.common.alone import load_alone
from bench.common.stats import Timing, summary
from pythia_bento.engine.engine import Engine
from pythia_bento.engine.params import Request, SamplingParams


@dataclass(frozen=True, slots=True)
class Load:
    """``clients`` readers, each with ``rounds`` requests one after another."""

    clients: int
    rounds: int
    prompt: int  # tokens
    new: int  # tokens
    seed: int = 0

    def requests(self, vocabulary: int) -> list[list[Request]]:
        """Greedy requests of each client, with random prompts."""
        draw = random.Random(self.seed)
        params = SamplingParams(max_tokens=self.new, temperature=0.0, ignore_eos=True)

        def prompt() -> tuple[int, ...]:
            return tuple(draw.randint(1, vocabulary) for _ in range(self.prompt))

        return [
            [Request(f"{self.seed}-{client}-{i}", prompt(), params) for i in range(self.rounds)]
            for client in range(self.clients)
        ]


def run(engine: Engine, load: Load) -> list[Timing]:
    """A client's next request is added when its last one has ended."""
    return _run(engine, load)[0]


def _run(engine: Engine, load: Load) -> tuple[list[Timing], list[tuple[float, int]]]:
    """Timings of the answers, and when how many tokens came."""
    waiting = load.requests(engine.tokenizer.num_tokens - 1)
    open_: dict[str, tuple[int, Timing]] = {}
    done: list[Timing] = []
    arrived: list[tuple[float, int]] = []

    def ask(client: int) -> None:
        if waiting[client]:
            request = waiting[client].pop(0)
            open_[request.request_id] = client, Timing(time.monotonic())
            engine.add_request(request)

    for client in range(load.clients):
        ask(client)
    while engine.has_work:
        outputs = engine.step()
        now = time.monotonic()
        arrived.append((now, sum(len(output.token_ids) for output in outputs)))
        for output in outputs:
            client, timing = open_[output.request_id]
            timing.arrivals.append(now)
            timing.tokens += len(output.token_ids)
            if output.finish_reason is not None:
                timing.end = now
                done.append(timing)
                ask(client)
    if any(timing.tokens != load.new for timing in done):
        raise RuntimeError(f"an answer has not {load.new} tokens")
    return done, arrived


def decode_rate(engine: Engine, load: Load) -> float:
    """tokens/s of one request a client, from when each has its first token to the first end."""
    timings, arrived = _run(engine, Load(load.clients, 1, load.prompt, load.new, load.seed + 1000))
    begun = max(timing.arrivals[0] for timing in timings)
    ended = min(timing.end for timing in timings)
    later = sum(tokens for at, tokens in arrived if begun < at <= ended)
    return later / (ended - begun) if ended > begun else 0.0


def measure(engine: Engine, load: Load) -> dict[str, Any]:
    """Figures after a round that warms up."""
    run(engine, Load(load.clients, 1, load.prompt, load.new, load.seed + 2000))
    rates = sorted(decode_rate(engine, Load(**asdict(load) | {"seed": i})) for i in range(3))
    return summary(run(engine, load)) | {"decode_tokens_per_s": round(rates[1], 1)}


def main() -> None:
    from pythia_bento.settings import load_settings

    load = Load(**json.loads(sys.argv[1]))
    if "--instant" in sys.argv:
        import bench.serving.instant  # noqa: F401 - which takes the place of what loads
    start = time.perf_counter()
    engine, info = load_alone(load_settings())
    loaded = time.perf_counter() - start
    print(json.dumps(measure(engine, load) | {"load_s": round(loaded, 1), "served": info.id}))


if __name__ == "__main__":
    main()
