"""Are answers still the bits that they were? ``python -m bench.common.answers FILE``.

Runs 200 mixed requests, all together in one engine, over the bundled checkpoint and three random
shapes. Where FILE exists, answers are compared with it; where not, they are written to it. A
change of the code that is not meant to change numbers must leave the file as it is.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import sys
from collections.abc import Iterable
from pathlib import Path

import torch

from bench.common import machine
from bench.common.alone import load_alone
from bench.common.random_model import RandomModel
from bench.common.shapes import tokenizer
from pythia_bento import catalog
from pythia_bento.engine.engine import Engine
from pythia_bento.engine.executor import EngineConfig
from pythia_bento.engine.logprobs import TokenLogprob
from pythia_bento.engine.outputs import SequenceOutput
from pythia_bento.engine.params import Request, SamplingParams
from pythia_bento.engine.tokenizer import Tokenizer
from pythia_bento.executor import make_executor
from pythia_bento.model.gpt_neox import GPTNeoX
from pythia_bento.model.kernels import create
from pythia_bento.settings import load_settings

MODELS = {
    "cpu": ("bundled", "pythia-14m", "pythia-70m", "pythia-160m"),
    "cuda": ("bundled", "pythia-70m", "pythia-410m", "pythia-1b"),
}
BACKENDS = {"cpu": "cpu", "cuda": "triton"}
REQUESTS = 200
BATCH, TOKENS_A_STEP = 24, 256
# Tokens of KV cache: too few for a full batch, so that some are preempted.
POOL = {"cpu": 900, "cuda": 2400}
LONGEST_PROMPT, LONGEST_ANSWER = {"cpu": 160, "cuda": 900}, {"cpu": 24, "cuda": 120}


def draw_requests(device: str, tokens: int, context: int, seed: int = 11) -> list[Request]:
    """Every option in some of them; prompts of ``tokens`` kinds, some with a common beginning."""
    draw = random.Random(seed)
    longest = min(LONGEST_PROMPT[device], context - LONGEST_ANSWER[device])
    common = [draw.randrange(1, tokens) for _ in range(longest)]
    found = []
    for index in range(REQUESTS):
        length = draw.randint(1, longest)
        shared = draw.choice([0, 0, length * 3 // 4])  # for the prefix cache
        own = [draw.randrange(1, tokens) for _ in range(length - shared)]
        params = draw_params(draw, LONGEST_ANSWER[device])
        prompt = tuple(common[:shared] + own)
        found.append(Request(f"r{index}", prompt, params, n=draw.choice([1, 1, 1, 2])))
    return found


def draw_params(draw: random.Random, longest: int) -> SamplingParams:
    """Scored, greedy, sampled, filtered, penalised, biased; stops of both kinds."""
    if draw.random() < 0.2:
        return SamplingParams(max_tokens=0, prompt_logprobs=draw.choice([0, 1, 5]))
    tokens = draw.randint(1, longest)
    return SamplingParams(
        max_tokens=tokens,
        min_tokens=draw.choice([0, 0, tokens // 2]),
        temperature=draw.choice([0.0, 0.0, 0.7, 1.0, 1.3]),
        top_k=draw.choice([0, 0, 0, 1, 40]),
        top_p=draw.choice([1.0, 1.0, 0.9, 0.5]),
        min_p=draw.choice([0.0, 0.0, 0.05]),
        presence_penalty=draw.choice([0.0, 0.0, 0.5]),
        frequency_penalty=draw.choice([0.0, 0.0, 0.3]),
        repetition_penalty=draw.choice([1.0, 1.0, 1.2]),
        seed=draw.getrandbits(63),
        logprobs=draw.choice([None, 0, 5]),
        prompt_logprobs=draw.choice([None, None, None, 0]),
        ignore_eos=draw.random() < 0.5,
        stop=draw.choice([(), (), ("e",), ("the ", ".")]),
        logit_bias=draw.choice([(), (), ((5, 3.0), (77, -100.0))]),
    )


def engine_of(model: str, device: str) -> Engine:
    """An engine over the bundled checkpoint or random weights, with a small KV cache."""
    if model == "bundled":
        settings = load_settings(
            {
                "model": model,
                "device": device,
                "max_batch_size": BATCH,
                "max_tokens_per_step": TOKENS_A_STEP,
            }
        )
        return load_alone(settings)[0]
    config = catalog.config(model)
    kernels = create(BACKENDS[device], config, torch.device(device))
    with torch.inference_mode():
        weights = GPTNeoX(RandomModel(config, torch.device(device)), kernels)
    blocks = POOL[device] // kernels.block_size
    known, config = Tokenizer(tokenizer()), EngineConfig(blocks, BATCH, TOKENS_A_STEP)
    return Engine(make_executor(weights, config, known.num_tokens), known)


def digest(answers: list[SequenceOutput]) -> str:
    """SHA-256 over everything that must not change; floats by their shortest exact form."""
    facts = [
        (
            a.token_ids,
            a.text,
            a.finish_reason,
            a.stop_reason,
            rows(a.logprobs),
            rows(a.prompt_logprobs),
        )
        for a in answers
    ]
    return hashlib.sha256(repr(facts).encode()).hexdigest()


def rows(logprobs: Iterable[TokenLogprob] | None) -> object:
    """Plain values of log-probabilities."""
    if logprobs is None:
        return None
    return [(row.token_id, row.logprob, tuple(row.top)) for row in logprobs]


def run(model: str, device: str) -> dict[str, str]:
    """Digests of all answers of one model, by request id."""
    engine = engine_of(model, device)
    tokens = min(engine.limits.num_tokens, 50000)
    asked = draw_requests(device, tokens, engine.limits.max_positions)
    answers = engine.generate(asked)
    engine.check()
    print(f"{model}: {engine.stats().preemptions} preemptions", flush=True)
    engine.close()
    return {request.request_id: digest(own) for request, own in zip(asked, answers, strict=True)}


def main() -> None:
    """Record, or compare; exit status 1 on any difference."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--device", choices=tuple(MODELS), default="cpu")
    parser.add_argument("--models", help="some of them, with commas between")
    args = parser.parse_args()
    models = args.models.split(",") if args.models else MODELS[args.device]
    answers = {model: run(model, args.device) for model in models}
    if not args.file.exists():
        record = {"machine": machine.describe(), "versions": machine.versions()}
        args.file.write_text(json.dumps({**record, "answers": answers}, indent=1) + "\n")
        return
    known = json.loads(args.file.read_text())["answers"]
    changed = [
        f"{model} {id}"
        for model, own in answers.items()
        for id, value in own.items()
        if known[model][id] != value
    ]
    print(f"{sum(map(len, answers.values()))} answers, {len(changed)} changed", *changed[:20])
    sys.exit(bool(changed))


if __name__ == "__main__":
    main()
