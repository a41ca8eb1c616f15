"""What a caller asks of the engine. Plain data, no policy."""

from __future__ import annotations

import functools
import math
import random
from dataclasses import dataclass, field

from pythia_bento.engine.capture import Capture
from pythia_bento.engine.grammars import Constraint
from pythia_bento.engine.interventions import Interventions

_MASK = 2**64 - 1
_GOLDEN = 0x9E3779B97F4A7C15  # of splitmix64

# Lowest and highest value of fields, for ``engine.validate`` and for what describes the API. A name
# is that of one of the ``Limits``.
INTEGERS: dict[str, tuple[int, int | str]] = {
    "n": (1, "max_n"),
    "best_of": (1, "max_n"),
    "priority": (-20, 20),  # bounds how long the last of a queue waits for its turn
    "top_k": (0, 2**31 - 1),  # the kernels' integers; from the vocabulary's size on it is off
    "seed": (-(2**63), 2**64 - 1),
    "logprobs": (0, "max_logprobs"),
    "prompt_logprobs": (0, "max_logprobs"),
}
NUMBERS: dict[str, tuple[float, float]] = {
    "temperature": (1e-6, 100),  # or 0; below, the division could overflow fp32
    "top_p": (0, 1),  # 0 excluded
    "min_p": (0, 1),
    "presence_penalty": (-2, 2),
    "frequency_penalty": (-2, 2),
    "repetition_penalty": (0.01, 100),
    "logit_bias": (-100, 100),
}

# Not the system's: a request id is no secret, and asking the system takes longer than a token.
_IDS = random.Random()


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """How to continue a prompt. Validated against a model by ``engine.validate``."""

    max_tokens: int = 16  # 0 with prompt_logprobs scores the prompt and generates nothing
    min_tokens: int = 0  # no end-of-text and no stop before this many tokens
    temperature: float = 1.0  # 0 is greedy
    top_k: int = 0  # 0 is off
    top_p: float = 1.0
    min_p: float = 0.0
    presence_penalty: float = 0.0  # off the logit of every token that was generated
    frequency_penalty: float = 0.0  # the same for every time it was
    repetition_penalty: float = 1.0  # divides logits (multiplies those below 0), prompt included
    seed: int = 0  # sequence i of a request samples with seed (seed, i)
    logprobs: int | None = None  # None: none; k: chosen token plus the k best
    prompt_logprobs: int | None = None  # the same for every prompt token but the first
    stop: tuple[str, ...] = ()
    stop_token_ids: tuple[int, ...] = ()
    ignore_eos: bool = False
    logit_bias: tuple[tuple[int, float], ...] = ()
    skip_special_tokens: bool = True  # whether the text leaves generated special tokens out
    include_stop_str_in_output: bool = False  # whether the text has what stopped it
    constraint: Constraint | None = None  # what the text must be

    @property
    def has_penalties(self) -> bool:
        """Whether the next logits depend on which tokens were seen before."""
        return (self.repetition_penalty, self.frequency_penalty, self.presence_penalty) != (1, 0, 0)


@dataclass(frozen=True, slots=True)
class Request:
    """One prompt, ``n`` continuations."""

    request_id: str
    prompt: tuple[int, ...]
    params: SamplingParams = field(default_factory=SamplingParams)
    n: int = 1
    priority: int = 0  # lower goes first among the requests of one caller
    caller: str = "anyone"  # callers take turns
    deadline: float = math.inf  # of time.monotonic(): not begun any more from then on
    weights: str = ""  # key of the checkpoint that is to answer; the only one where it is empty
    capture: Capture | None = None  # what of its inside is to be seen
    interventions: Interventions | None = None  # what is to be changed there

    @property
    def has_taps(self) -> bool:
        """Whether its passes are looked into, or changed."""
        return self.capture is not None or self.interventions is not None

    @property
    def most_inputs(self) -> int:
        """Tokens that may be computed: of the prompt, and all that are generated but the last."""
        return len(self.prompt) + max(self.params.max_tokens - 1, 0)


def score_request(prompt: tuple[int, ...], top: int = 1) -> Request:
    """A request that generates nothing: log-probabilities of ``prompt[1:]``, ``top`` best each."""
    return Request(new_request_id(), prompt, _score_params(top))


@functools.lru_cache(maxsize=32)  # there are few, they never change, and making one takes 3 us
def _score_params(top: int) -> SamplingParams:
    return SamplingParams(max_tokens=0, prompt_logprobs=top)


def new_request_id() -> str:
    """Unique in this process, and unlikely elsewhere."""
    return f"{_IDS.getrandbits(128):032x}"


def sequence_seed(seed: int, index: int) -> int:
    """Seed of continuation ``index``: ``seed`` itself for 0, else output ``index`` of splitmix64.

    splitmix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014):
    the state advances by the golden gamma and is mixed; all arithmetic modulo 2**64.
    """
    if index == 0:
        return seed & _MASK
    z = (seed + index * _GOLDEN) & _MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK
    return z ^ (z >> 31)
