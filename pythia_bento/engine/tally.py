"""What an engine has counted since its start, and a snapshot of all that can be told of it."""

from __future__ import annotations

from pythia_bento.engine.open_requests import OpenRequests
from pythia_bento.engine.scheduler import Scheduler
from pythia_bento.engine.speculation import Speculation
from pythia_bento.engine.stats import EngineStats, StepSizes


class Tally:
    """Requests, tokens and steps of one engine."""

    def __init__(self) -> None:
        self.requests = self.prompt_tokens = self.generation_tokens = 0
        self.step_sizes = StepSizes()

    def stats(
        self, scheduler: Scheduler, requests: OpenRequests, speculation: Speculation | None
    ) -> EngineStats:
        """Cheap enough for every scrape."""
        pool = scheduler.pool
        return EngineStats(
            running=len(scheduler.running),
            waiting=len(scheduler.waiting),
            blocks_used=pool.num_blocks - pool.num_free,
            blocks_total=pool.num_blocks,
            blocks_cached=pool.num_cached,
            steps=self.step_sizes.steps,
            prompt_tokens=self.prompt_tokens,
            generation_tokens=self.generation_tokens,
            prefix_queries=scheduler.num_prefix_queries,
            prefix_hits=scheduler.num_prefix_hits,
            preemptions=scheduler.num_preemptions,
            non_finite=requests.num_non_finite,
            drafts=speculation.drafts if speculation else 0,
            draft_tokens=speculation.drafted if speculation else 0,
            accepted_tokens=speculation.accepted if speculation else 0,
            step_sequences=self.step_sizes.sequences,
            batch_sizes=self.step_sizes.counts,
        )
