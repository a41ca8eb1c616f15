"""What a call asked and got, in OpenTelemetry's words for generative models (``gen_ai.*``).

Its conventions: opentelemetry.io/docs/specs/semconv/gen-ai. No attribute has text of a client's.
"""

from __future__ import annotations

from typing import Any

from pythia_bento.engine.params import SamplingParams
from pythia_bento.telemetry.calls import CallContext

MAX_REASONS = 128  # of a call whose continuations may be thousands
_OPTIONS = ("temperature", "top_p", "max_tokens", "frequency_penalty", "presence_penalty")


def gen_ai(call: CallContext) -> dict[str, Any]:
    """Attributes of a call's span; none where the engine was not asked."""
    timings = call.requests
    if not timings:
        return {}
    reasons = [str(reason) for one in timings for reason in one.reasons][:MAX_REASONS]
    return {
        "gen_ai.operation.name": call.operation or _operation(call),
        "gen_ai.provider.name": "pythia-bento",
        "gen_ai.request.model": call.asked_model or call.model or "",
        "gen_ai.response.model": call.model or "",
        "gen_ai.response.finish_reasons": reasons or ["abort"],
        "gen_ai.usage.input_tokens": sum(len(one.request.prompt) for one in timings),
        "gen_ai.usage.output_tokens": sum(one.num_generated for one in timings),
        **_asked(timings[0].request.params),
    }


def _operation(call: CallContext) -> str:
    generates = any(one.request.params.max_tokens for one in call.requests)
    return "text_completion" if generates else "score"


def _asked(params: SamplingParams) -> dict[str, Any]:
    """Options, which a call's requests have in common; a score has none."""
    if not params.max_tokens:
        return {}
    asked: dict[str, Any] = {f"gen_ai.request.{name}": getattr(params, name) for name in _OPTIONS}
    if params.top_k:
        asked["gen_ai.request.top_k"] = params.top_k
    if params.temperature:
        asked["gen_ai.request.seed"] = _signed(params.seed)
    return asked


def _signed(seed: int) -> int:
    """The same seed, which counts modulo 2^64, as collectors can hold it."""
    return (seed + 2**63) % 2**64 - 2**63
