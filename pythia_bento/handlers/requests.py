"""From a validated body to engine requests, and from their answers to the best ones."""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Sequence
from typing import TypeVar

from pythia_bento.engine.outputs import SequenceOutput
from pythia_bento.engine.params import Request
from pythia_bento.engine.validate import Limits, check_integer
from pythia_bento.errors import InvalidRequest
from pythia_bento.protocol.sampling import Ids, Prompt, Sampling
from pythia_bento.runtime.served import Served
from pythia_bento.runtime.turns import Turns

# No secret, and below 2^53: JSON's numbers are exact up to there in every language.
_SEEDS, _SEED_BITS = random.Random(), 53
DIGEST_DIGITS = 16  # of an answer's fingerprint
_Body = TypeVar("_Body", bound=Sampling)


def with_seed(body: _Body, served: Served) -> _Body:
    """``body`` with a seed where its answer depends on one and the client gave none.

    It is the setting ``default_seed``, or drawn anew; answers name it, and with it they come again.
    Raises InvalidRequest.
    """
    if body.seed is not None:
        check_integer("seed", body.seed, served.limits)
        return body
    if not body.draws:
        return body
    seed = served.settings.default_seed
    drawn = _SEEDS.getrandbits(_SEED_BITS) if seed is None else seed
    return body.model_copy(update={"seed": drawn})


async def make_request(served: Served, request_id: str, prompt: Prompt, body: Sampling) -> Request:
    """Tokenise and cut the prompt, compile what the text must be.

    Raises InvalidRequest or Overloaded.

    The request has ``best_of`` continuations where that is asked for; ``best`` picks among them.
    """
    check_integer("n", body.n, served.limits)  # the engine is asked for ``best_of``
    ids = truncated(await served.encode(prompt), body, served.limits)
    check_integer("best_of", body.num_sequences, served.limits)
    params = body.sampling_params()
    if params.constraint is not None:
        await served.make_ready(params.constraint)
    return Request(request_id, ids, params, body.num_sequences, body.priority)


def truncated(ids: Ids, body: Sampling, limits: Limits) -> Ids:
    """The last ``truncate_prompt_tokens`` of ``ids``, all of them where that is null."""
    keep = body.truncate_prompt_tokens
    if keep is None:
        return ids
    if keep != -1 and not 1 <= keep <= limits.max_positions:
        raise InvalidRequest(
            f"truncate_prompt_tokens must be -1 or between 1 and {limits.max_positions}, "
            f"not {keep}",
            param="truncate_prompt_tokens",
        )
    return ids[-(max(limits.room(body.max_tokens), 1) if keep == -1 else keep) :]


def of_field(error: InvalidRequest, field: str) -> InvalidRequest:
    """What is wrong with a prompt, where a body has another name for it."""
    if error.param != "prompt":
        return error
    return type(error)(error.message.replace("prompt ", f"{field} ", 1), param=field)


async def scored_ids(
    served: Served, prompt: Prompt, continuation: Prompt | None
) -> tuple[tuple[int, ...], int]:
    """All ids of a text that is scored, and the first that is asked for; raises InvalidRequest.

    That is the continuation's first, or the second of all: nothing tells of the very first.
    """
    ids, start = await served.encode(prompt), 1
    if continuation is not None:
        start = max(len(ids), 1)
        ids += await served.encode(continuation, "continuation")
    return ids, start


async def best(answers: Sequence[SequenceOutput], body: Sampling) -> list[SequenceOutput]:
    """The ``n`` answers with the highest mean log-probability, best first; all where n are asked.

    Equals keep their order. OpenAI ranks by "the highest log probability per token".
    """
    if len(answers) == body.n:
        return list(answers)
    turns, means = Turns(), []
    for answer in answers:
        means.append(_mean_logprob(answer))
        await turns.take()
    places = sorted(range(len(answers)), key=means.__getitem__, reverse=True)
    ranked = [answers[place] for place in places[: body.n]]
    for answer in ranked:
        answer.logprobs = None if body.logprobs is None else answer.logprobs
    return ranked


def _mean_logprob(answer: SequenceOutput) -> float:
    values = [token.logprob for token in answer.logprobs or ()]
    return math.fsum(values) / max(len(values), 1)


def fingerprint(served: Served, requests: Sequence[Request]) -> str:
    """Of an answer: what computed it, and a digest of what was changed, where something was.

    Of several prompts that are not changed alike, the digest is over all of theirs.
    """
    if all(one.interventions is None for one in requests):
        return served.info.fingerprint
    digests = [one.interventions.digest if one.interventions else bytes(32) for one in requests]
    alike = len(set(digests)) == 1
    digest = digests[0] if alike else hashlib.sha256(b"".join(digests)).digest()
    return f"{served.info.fingerprint}+{digest.hex()[:DIGEST_DIGITS]}"
