"""What a checkpoint can do, in the names that all transports use."""

from __future__ import annotations

from pythia_bento.protocol.types import Limits
from pythia_bento.runtime.served import Served


def limits(served: Served) -> Limits:
    """Of the model, the memory and the settings."""
    limits, settings = served.limits, served.settings
    return Limits(
        context_tokens=limits.max_positions,
        vocabulary=limits.num_tokens,
        cache_tokens=limits.cache_tokens,
        max_prompt_tokens=limits.max_prompt_tokens or limits.max_positions,
        max_n=limits.max_n,
        max_sequences=limits.max_sequences,
        max_logprobs=limits.max_logprobs,
        max_stop=limits.max_stop,
        max_batch_size=limits.max_batch_size,
        max_queue=settings.max_queue,
        request_timeout=settings.request_timeout,
        max_body_bytes=settings.max_body_bytes,
    )
