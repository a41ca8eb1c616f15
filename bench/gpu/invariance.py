"""Does an answer depend on company? ``python -m bench.gpu.invariance [--requests 256]``.

Requests with mixed parameters and prompt lengths arrive at random in an engine whose pool is too
small for all of them, so that some are preempted and recomputed. Every token and log-probability
must have the bits of the same request alone in a fresh engine; and scoring prompt plus generated
text must give the log-probabilities that generating it gave.
"""

from __future__ import annotations

import random
import sys
from typing import Any

from bench.gpu import harness
from pythia_bento import catalog
from pythia_bento.engine.engine import Engine
from pythia_bento.engine.outputs import SequenceOutput
from pythia_bento.engine.params import Request, SamplingParams
from pythia_bento.model.kernels.gpu.tiles import kv_tile

CONTEXT = 2048
POOL = 2112  # tokens: one sequence fits, and those that generate much preempt each other


def draw_requests(count: int, longest: int, seed: int = 7) -> list[Request]:
    """Greedy, sampled, filtered, biased, penalised; with and without log-probabilities."""
    draw = random.Random(seed)
    common = [draw.randrange(1, 50000) for _ in range(longest)]
    found = []
    for index in range(count):
        length = min(longest, int(2 ** draw.uniform(0, 10.9)))
        new = min(draw.randint(1, 256), CONTEXT - length)
        params = SamplingParams(
            max_tokens=new,
            min_tokens=draw.choice([0, 0, min(new, 20)]),
            temperature=draw.choice([0.0, 0.0, 0.7, 1.0, 1.3]),
            top_k=draw.choice([0, 0, 0, 1, 40]),
            top_p=draw.choice([1.0, 1.0, 0.9, 0.5]),
            min_p=draw.choice([0.0, 0.0, 0.05]),
            repetition_penalty=draw.choice([1.0, 1.0, 1.2]),
            frequency_penalty=draw.choice([0.0, 0.0, 0.5]),
            presence_penalty=draw.choice([0.0, 0.0, -0.5]),
            seed=draw.getrandbits(63),
            logprobs=draw.choice([None, 0, 5, 20]),
            prompt_logprobs=draw.choice([None, None, None, 0]),
            ignore_eos=True,
            logit_bias=draw.choice([(), (), ((5, 3.0), (77, -100.0))]),
        )
        shared = draw.choice([0, 0, length * 3 // 4])  # for the prefix cache
        own = [draw.randrange(1, 50000) for _ in range(length - shared)]
        prompt = tuple(common[:shared] + own)
        found.append(Request(f"r{index}", prompt, params))
    return found


def together(engine: Engine, asked: list[Request]) -> dict[str, SequenceOutput]:
    """Run with arrivals spread over the steps."""
    draw = random.Random(1)
    waiting = list(asked)
    answers: dict[str, SequenceOutput] = {}
    while waiting or engine.has_work:
        for _ in range(draw.randint(0, 12)):
            if waiting:
                engine.add_request(waiting.pop(0))
        for delta in engine.step():
            if delta.request_id in answers:
                answers[delta.request_id].extend(delta)
            else:
                answers[delta.request_id] = delta
    return answers


def facts(answer: SequenceOutput) -> Any:
    """What must be equal."""
    return answer.token_ids, answer.logprobs, answer.prompt_logprobs, answer.finish_reason


def model_block(name: str) -> int:
    """Tokens in a cache block."""
    return kv_tile(catalog.config(name).head_dim)


def check(name: str, count: int) -> dict[str, Any]:
    """Compare; the numbers of requests, preemptions and differences."""
    asked = draw_requests(count, 1900)
    engine = harness.load_engine(name, 64, CONTEXT, 1024, blocks=POOL // model_block(name))
    mixed = together(engine, asked)
    stats = engine.stats()
    engine.close()
    engine = harness.load_engine(name, 4, CONTEXT, 2048)
    different, scored, tokens = [], [], 0
    for request in asked:
        [[alone]] = engine.generate([request])
        tokens += len(alone.token_ids)
        if facts(alone) != facts(mixed[request.request_id]):
            different.append(request.request_id)
        if alone.logprobs is not None:
            again = Request(
                request.request_id + "s",
                request.prompt + tuple(alone.token_ids),
                SamplingParams(max_tokens=0, prompt_logprobs=0, ignore_eos=True),
            )
            [[score]] = engine.generate([again])
            assert score.prompt_logprobs is not None
            ours = [entry.logprob for entry in alone.logprobs]
            theirs = [e.logprob for e in score.prompt_logprobs][-len(ours) :]
            if ours != theirs:
                scored.append(request.request_id)
    engine.close()
    return {
        "model": name,
        "backend": "pythia-bento w8a16",
        "requests": count,
        "generated_tokens": tokens,
        "preemptions": stats.preemptions,
        "prefix_hits": stats.prefix_hits,
        "different_alone": different,
        "different_when_scored": scored,
    }


def main() -> None:
    """Check, print, write; exit status 1 on any difference."""
    parser = harness.arguments("h200-invariance.json", "")
    parser.add_argument("--requests", type=int, default=256)
    args = parser.parse_args()
    rows = [check(name, args.requests) for name in args.models.split(",")]
    for row in rows:
        print(row)
    harness.write(args.out, rows)
    if args.requests >= 256 and not all(row["preemptions"] for row in rows):
        sys.exit("nothing was preempted: the pool is too large to show anything")
    sys.exit(any(row["different_alone"] or row["different_when_scored"] for row in rows))


if __name__ == "__main__":
    main()
