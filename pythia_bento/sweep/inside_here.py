"""The inside of a checkpoint of this process; see ``sweep.inside``."""

from __future__ import annotations

from pythia_bento.errors import InvalidRequest
from pythia_bento.handlers.inside import activations
from pythia_bento.handlers.inside_file import file_of
from pythia_bento.protocol.activations import Run, read
from pythia_bento.protocol.inside import ActivationsRequest
from pythia_bento.protocol.parsing import parse
from pythia_bento.runtime.served import Served
from pythia_bento.sweep.inside import InsideTarget, too_many
from pythia_bento.sweep.inside_task import ActivationsTask
from pythia_bento.sweep.spec import Item
from pythia_bento.telemetry.calls import CallContext, new_call, working_for


class InsideHere(InsideTarget):
    """One checkpoint, asked as ``/v1/activations`` asks it."""

    def __init__(
        self,
        served: Served,
        task: ActivationsTask,
        index: int,
        *,
        priority: int,
        caller: str,
        most: int | None,
        is_there: bool,
    ) -> None:
        super().__init__(task, index, most, is_there=is_there)
        self._served, self._priority, self._caller = served, priority, caller

    async def ask(self, item: Item) -> Run:
        """See ``InsideTarget``."""
        # Nothing is computed of what JSON's limit is too small for.
        fields = {} if self.most is None else {"format": "json"}
        body = parse(ActivationsRequest, {**self.task.body(item.prompt, self._priority), **fields})
        with working_for(self._call()):
            try:
                answer = await activations(self._served, body)
            except InvalidRequest as error:
                if error.param == "format" and self.most is not None:
                    raise too_many(self.most) from None
                raise
        return read(await file_of(answer))[0]

    def _call(self) -> CallContext:
        """Its own: the sweep's would keep a record of each of a million items."""
        call = new_call(None)
        call.caller = self._caller
        return call
