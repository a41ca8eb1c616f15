"""``generate``: whole continuations of one prompt, of one checkpoint."""

from __future__ import annotations

from typing import TypedDict

from pythia_bento.engine.outputs import raise_error
from pythia_bento.engine.params import new_request_id
from pythia_bento.handlers.changed import changed, without_tensors
from pythia_bento.handlers.logits import with_logits
from pythia_bento.handlers.requests import best, fingerprint, make_request, with_seed
from pythia_bento.handlers.streamed import ShownOutput, ShownToken, shown_output, shown_prompt
from pythia_bento.protocol.bodies import GenerateRequest
from pythia_bento.runtime.served import Served
from pythia_bento.runtime.turns import freed


class _Generated(TypedDict):
    model: str
    fingerprint: str
    seed: int | None  # what was sampled with; None where neither given nor needed
    num_prompt_tokens: int
    outputs: list[ShownOutput]


class Generated(_Generated, total=False):
    """The whole answer."""

    prompt_tokens: list[ShownToken]  # where prompt_logprobs were asked for
    logits: list[list[float]]  # a row for each position, where they were asked for


async def generate(
    served: Served, body: GenerateRequest, timeout: float | None = None
) -> Generated:
    """Continue one prompt ``n`` times; raises what ended a sequence."""
    body = with_seed(body, served)
    request = await make_request(served, new_request_id(), body.prompt, body)
    if body.interventions:
        request = await changed(request, await without_tensors(served, body.interventions))
    [answers], logits = await with_logits(served, [request], body.logits, timeout)
    chosen = await best([raise_error(answer) for answer in answers], body)
    scored = answers[0].prompt_logprobs  # of all but the first token
    outputs = []
    for answer in chosen:
        outputs.append(await shown_output(served.tokenizer, answer))
        await freed(answer.logprobs or [])
    response: Generated = {
        "model": served.info.id,
        "fingerprint": fingerprint(served, [request]),
        "seed": body.seed,
        "num_prompt_tokens": len(request.prompt),
        "outputs": outputs,
    }
    if scored is not None:
        response["prompt_tokens"] = await shown_prompt(served.tokenizer, scored)
    if logits is not None:
        response["logits"] = logits[0]
    return response
