"""What it costs to see the inside of a pass, and to change it: ``python -m bench.inside``.

An engine scores new prompts by turns as they are, with the residual stream after every layer, and
with every site at all positions. transformers, with random weights of the same shape, does the
same with ``output_hidden_states`` in between. Cost is the median of a kind over that of the plain
ones; 1.05 is wanted for the streams and 1.10 for everything on a processor (pythia-160m's shape,
128 tokens).
On a GPU (``--device cuda``: pythia-1b's, 8 x 512 tokens, 40 ms wanted for the streams) also: tokens
a second of one steered sequence (250 wanted), and what seven others keep of their rate beside it
(90 % wanted).
"""

from __future__ import annotations

import random
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from bench.common.options import parser_of
from bench.common.random_model import RandomModel
from bench.common.shapes import tokenizer
from bench.gpu import harness
from bench.peers.hidden_states import HiddenStates
from pythia_bento import catalog
from pythia_bento.engine.capture import Capture, Tap, capture_bytes
from pythia_bento.engine.engine import Engine
from pythia_bento.engine.executor import EngineConfig
from pythia_bento.engine.interventions import Intervention, interventions
from pythia_bento.engine.params import Request, score_request
from pythia_bento.engine.tokenizer import Tokenizer
from pythia_bento.executor import make_executor
from pythia_bento.model.config import ModelConfig
from pythia_bento.model.gpt_neox import GPTNeoX
from pythia_bento.model.kernels import create
from pythia_bento.model.sites import RESID_POST, SITES, Place, Site

ALL = range(1 << 31)  # positions
PLAIN = "scored"
KINDS: dict[str, Sequence[Site]] = {
    PLAIN: (),
    "residual streams": (RESID_POST,),
    "all sites": SITES,
}
WANTED = {
    "cpu": {"residual streams": 1.05, "all sites": 1.10},  # times the plain ones
    "cuda": {"residual streams": 40.0},  # ms
}
PEERS = {  # the types of numbers in which transformers may be fastest
    "cpu": {"fp32": torch.float32, "bf16": torch.bfloat16},
    "cuda": {"fp16": torch.float16, "bf16": torch.bfloat16},
}
NEW = 256  # tokens that the steered sequence and its neighbours generate
OTHERS = 7


@dataclass(frozen=True, slots=True)
class Load:
    """What is scored at a time."""

    model: str
    batch: int
    prompt: int
    kinds: tuple[str, ...] = tuple(KINDS)


LOADS = {
    "cpu": Load("pythia-160m", 1, 128),
    "cuda": Load("pythia-1b", 8, 512, (PLAIN, "residual streams")),
}


def main() -> None:
    """Measure, print, write."""
    parser = parser_of("bench.inside", __doc__)
    parser.add_argument("--device", default="cpu", choices=tuple(LOADS))
    parser.add_argument("--model", help="another size of the suite")
    parser.add_argument("--rounds", type=int, default=31)
    parser.add_argument("--out", help="a file for the results")
    options = parser.parse_args()
    load = LOADS[options.device]
    load = replace(load, model=options.model or load.model)
    config, engine = catalog.config(load.model), _engine(load, options.device)
    rows: list[dict[str, Any]] = []
    if options.device == "cuda":
        rows.append(_steering(engine, config))
        print(rows[-1], flush=True)
    for row in _turns(engine, config, load, options.rounds, options.device):
        rows.append(row)
        print(row, flush=True)
    engine.close()
    if options.out:
        harness.write(options.out, rows, model=load.model, batch=load.batch, prompt=load.prompt)


def _engine(load: Load, device: str) -> Engine:
    config, place = catalog.config(load.model), torch.device(device)
    kernels = create("cpu" if device == "cpu" else "triton", config, place)
    if kernels.has_own_threads:
        torch.set_num_threads(1)  # as in a server
    with torch.inference_mode():
        model = GPTNeoX(RandomModel(config, place), kernels)
    context = -(-(load.prompt + NEW + 1) // kernels.block_size)
    most = max(load.batch, OTHERS + 1)
    sizes = EngineConfig((most + 1) * context, most, load.batch * load.prompt)
    known = Tokenizer(tokenizer())
    return Engine(make_executor(model, sizes, known.num_tokens, None), known)


def _turns(
    engine: Engine, config: ModelConfig, load: Load, rounds: int, device: str
) -> list[dict[str, Any]]:
    """A prompt of each kind after the other, in another order each round; the first warms up."""
    wanted = WANTED[device]
    captures = {kind: _capture(KINDS[kind], config) for kind in load.kinds}
    most = max(capture_bytes(one, config, load.prompt) for one in captures.values() if one)
    engine.lend(np.ones(load.batch * most, np.uint8))  # memory that was in use, as a server's
    peers = {
        f"transformers {name}": HiddenStates(config, torch.device(device), dtype)
        for name, dtype in PEERS[device].items()
    }
    kinds, draw = [*load.kinds, *peers], random.Random(0)
    times: dict[str, list[float]] = {kind: [] for kind in kinds}
    for round in range(rounds + 1):
        for kind in draw.sample(kinds, len(kinds)):
            asked = _requests(engine, config, load, captures.get(kind), draw)
            peer = peers.get(kind)
            seconds = (
                peer.seconds([one.prompt for one in asked]) if peer else _seconds(engine, asked)
            )
            if round:
                times[kind].append(seconds)
    return [_row(kind, times, wanted.get(kind)) for kind in kinds]


def _row(kind: str, times: dict[str, list[float]], wanted: float | None) -> dict[str, Any]:
    own, plain = times[kind], times[PLAIN]
    medians = statistics.median(own), statistics.median(plain)
    ratios = [one / other for one, other in zip(own, plain, strict=True)]
    return {
        "kind": kind,
        "ms": round(medians[0] * 1e3, 3),
        "cost": round(medians[0] / medians[1], 4),
        "cost_by_round": round(statistics.median(ratios), 4),
        "wanted": wanted,
        "rounds_ms": [round(seconds * 1e3, 2) for seconds in own],
    }


def _capture(sites: Sequence[Site], config: ModelConfig) -> Capture | None:
    layers = range(config.num_layers)
    places = [Place(site, i) for site in sites for i in (layers if site.is_in_layer else (0,))]
    return Capture(tuple(Tap(place, ALL) for place in places)) if places else None


def _requests(
    engine: Engine, config: ModelConfig, load: Load, capture: Capture | None, draw: random.Random
) -> list[Request]:
    """New prompts, what they capture one after the other in the arena."""
    most = engine.tokenizer.num_tokens - 1
    prompts = [tuple(draw.randint(1, most) for _ in range(load.prompt)) for _ in range(load.batch)]
    if capture is None:
        return [score_request(prompt) for prompt in prompts]
    nbytes = capture_bytes(capture, config, load.prompt)
    return [
        replace(score_request(prompt), capture=replace(capture, region=index * nbytes))
        for index, prompt in enumerate(prompts)
    ]


def _seconds(engine: Engine, asked: Sequence[Request]) -> float:
    """Until all are answered, numbers in place."""
    start = harness.now()
    answers = engine.generate(asked)
    seconds = harness.now() - start
    if any(output.error for outputs in answers for output in outputs):
        raise RuntimeError("a request was not answered")
    return seconds


def _steering(engine: Engine, config: ModelConfig) -> dict[str, Any]:
    """Tokens a second of a steered sequence alone, and what others keep beside it."""
    vector = np.full(config.hidden_size, 0.01, np.float32)
    place = Place(RESID_POST, config.num_layers // 2)
    change = interventions([Intervention(place, "add", ALL, values=vector)])

    def others(seed: int) -> list[Request]:
        return harness.requests(OTHERS, 32, NEW, seed)

    def steered(seed: int) -> Request:
        return replace(harness.requests(1, 32, NEW, seed)[0], interventions=change)

    _seconds(engine, [steered(1), *others(2)])  # warms up
    alone = statistics.median(_seconds(engine, [steered(seed)]) for seed in range(10, 13))
    plain = statistics.median(_seconds(engine, others(seed)) for seed in range(20, 23))
    beside = statistics.median(
        _until_others(engine, steered(40 + seed), others(50 + seed)) for seed in range(3)
    )
    return {
        "kind": "one steered layer",
        "tokens_per_s": round(NEW / alone, 1),
        "wanted": 250,
        "others_tokens_per_s": round(OTHERS * NEW / plain, 1),
        "others_keep": round(plain / beside, 3),
        "others_wanted": 0.9,
    }


def _until_others(engine: Engine, steered: Request, others: Sequence[Request]) -> float:
    """Until all but the steered one are answered."""
    start, open = harness.now(), {request.request_id for request in others}
    for request in (steered, *others):
        engine.add_request(request)
    seconds = 0.0
    while engine.has_work:
        open -= {output.request_id for output in engine.step() if output.finish_reason}
        seconds = seconds or (0.0 if open else harness.now() - start)
    return seconds


if __name__ == "__main__":
    main()
