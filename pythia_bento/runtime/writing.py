"""For which requests the engine may still write to the arena."""

from __future__ import annotations

import threading
from collections.abc import Mapping

from pythia_bento.engine.outputs import Outputs
from pythia_bento.runtime.arena import Region


class Writing:
    """Regions by request, from before the engine hears of it until it is done with it.

    It is done with a request once its last output has come, of whatever kind. What is told of
    others is ignored. In any thread.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.regions: dict[str, Region] = {}
        """Whose requests are open; for others to look at."""

    def begin(self, regions: Mapping[str, Region]) -> None:
        """By request id; nobody has them meanwhile."""
        if not regions:
            return
        with self._lock:
            for region in regions.values():
                region.hold()
            self.regions.update(regions)

    def end(self, request_id: str) -> None:
        """The engine writes nothing more for a request."""
        if not self.regions:
            return
        with self._lock:
            region = self.regions.pop(request_id, None)
        if region is not None:
            region.drop()

    def see(self, outputs: Outputs) -> None:
        """What came of the engine."""
        for output in outputs:
            if output.finish_reason is not None:
                self.end(output.request_id)

    def end_all(self) -> None:
        """The engine is no more."""
        for request_id in list(self.regions):
            self.end(request_id)
