"""A checkpoint in this process, with the calls, results and errors of ``pythia_bento.client``."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from pythia_bento.client import http_messages
from pythia_bento.client.inside import Asked, activations_of, patch_of
from pythia_bento.client.options import SamplingOptions, generation_of, sweep_of
from pythia_bento.client.patches import PatchGrid, grid
from pythia_bento.client.specs import Spec
from pythia_bento.handlers import inside
from pythia_bento.handlers import patch as patching
from pythia_bento.handlers import score as scoring
from pythia_bento.handlers.info import limits
from pythia_bento.handlers.inside_file import file_of
from pythia_bento.handlers.models import shown_model, states
from pythia_bento.handlers.streamed import StreamedAnswer
from pythia_bento.local.loop import Loop
from pythia_bento.protocol.activations import Activations, read
from pythia_bento.protocol.bodies import GenerateRequest
from pythia_bento.protocol.inside import ActivationsRequest
from pythia_bento.protocol.parsing import parse
from pythia_bento.protocol.patching import PatchRequest
from pythia_bento.protocol.sweep import Event, SweepItem
from pythia_bento.protocol.tensors import Stored
from pythia_bento.protocol.types import (
    Generation,
    Info,
    Joiner,
    ModelState,
    Part,
    Prompt,
    ScoreItem,
    Scores,
)
from pythia_bento.runtime.progress import ProgressBars
from pythia_bento.runtime.runner import PythiaRunner
from pythia_bento.settings import load_settings
from pythia_bento.sweep.here import Here
from pythia_bento.sweep.run import run
from pythia_bento.sweep.spec import SweepSpec

if TYPE_CHECKING:
    from typing_extensions import Self, Unpack

SLICE = 1024  # texts that are scored before the bar moves
SHOWN_FROM = 4 * SLICE  # texts: what takes less needs no bar


def load(model: str = "bundled", *, progress: bool = True, **settings: Any) -> Model:
    """Load a checkpoint: ``bundled@step512``, one that was pulled, or a directory as a path.

    ``settings`` are those of the service in lower case: ``device="cpu"``, ``max_batch_size=256``;
    what is not given is as the environment says. A bar on stderr shows how far it is.
    Raises SettingsError, ModelNotFound or CheckpointError.
    """
    chosen = load_settings({"model": model, **settings})
    if not progress:
        return Model(PythiaRunner.load(chosen))
    with ProgressBars() as bars:
        return Model(PythiaRunner.load(chosen, bars))


class Model:
    """A checkpoint on one device. Calls block, and work where an event loop is running too.

    ``model`` of a call is another of the same shape, as the setting ``models`` allows them. The
    bits of its answers are those of a server with the same ``fingerprint``. Close it, or use
    it as a context manager: it holds the device's memory.
    """

    def __init__(self, runner: PythiaRunner) -> None:
        """Takes the runner over."""
        self._runner = runner
        self._loop = Loop("pythia-local")

    def info(self, model: str | None = None) -> Info:
        """What answers under a name: commit, hashes, arithmetic, limits."""
        served = self._runner if model is None else self._loop.run(self._runner.served(model))
        info = served.info
        known = {} if info.provenance is None else asdict(info.provenance)
        return Info(info.id, tuple(info.aliases), info.fingerprint, limits(served), **known)

    def models(self) -> list[ModelState]:
        """All that may be asked for, and where their weights are."""
        found = self._loop.run(states(self._runner))
        names = ({"id": one.info.id, "system_fingerprint": one.info.fingerprint} for one in found)
        return [
            http_messages.model_state({**shown_model(one), **named})
            for one, named in zip(found, names, strict=True)
        ]

    def generate(
        self,
        prompt: Prompt,
        *,
        model: str | None = None,
        interventions: Sequence[Mapping[str, Any]] = (),
        **options: Unpack[SamplingOptions],
    ) -> Generation:
        """Continue a prompt, which is text or token ids; see ``Client.generate``."""
        joiner = Joiner()
        for part in self.stream(prompt, model=model, interventions=interventions, **options):
            joiner.add(part)
        return joiner.generation()

    def stream(
        self,
        prompt: Prompt,
        *,
        model: str | None = None,
        interventions: Sequence[Mapping[str, Any]] = (),
        **options: Unpack[SamplingOptions],
    ) -> Iterator[Part]:
        """The same, part by part; closing the iterator ends the request."""
        asked = http_messages.generate(prompt, model, generation_of(interventions, options))
        fields = json.loads(asked.request)
        return self._loop.iterate(self._parts(parse(GenerateRequest, fields)))

    def score(
        self,
        items: Iterable[ScoreItem | Prompt],
        *,
        model: str | None = None,
        progress: bool | None = None,
    ) -> Scores:
        """Log-probabilities of any number of texts, in order; see ScoreItem.

        A text that fails has its error in its place. ``progress`` is whether to show a bar on
        stderr; by default for thousands of texts.
        """
        asked = [item if isinstance(item, ScoreItem) else ScoreItem(item) for item in items]
        is_shown = len(asked) >= SHOWN_FROM if progress is None else progress
        found: Scores = []
        with ProgressBars() as bars:
            for begin in range(0, len(asked), SLICE):
                found += self._loop.run(self._score(asked[begin : begin + SLICE], model))
                if is_shown:
                    bars("scoring texts", len(found), len(asked))
        return found

    def sweep(
        self,
        items: Iterable[SweepItem | Prompt],
        *,
        model: str | None = None,
        steps: str | Sequence[int] | None = None,
        models: Sequence[str] | None = None,
        task: str | Mapping[str, Any] | None = None,
    ) -> Iterator[Event]:
        """Any number of texts by many checkpoints, event by event; see ``Client.sweep``."""
        fields = json.loads(
            http_messages.sweep(sweep_of(items, model, steps, models, task, None)).request
        )
        return self._loop.iterate(run(parse(SweepSpec, fields), Here(self._runner)))

    def activations(
        self,
        prompts: Prompt | Sequence[Prompt],
        *,
        capture: Spec | Sequence[Spec],
        model: str | None = None,
        interventions: Sequence[Mapping[str, Any]] = (),
        logits: Mapping[str, Any] | None = None,
        dtype: str = "float32",
        names: str = "transformer-lens",
        **options: Unpack[SamplingOptions],
    ) -> Activations:
        """What is inside a forward pass; see ``Client.activations``."""
        asked = activations_of(
            prompts, capture, model, interventions, logits, dtype, names, options
        )
        return read(self._loop.run(self._activations(asked)), asked.names)

    def patch(
        self,
        clean: Prompt,
        corrupted: Prompt,
        site: str,
        *,
        metric: Sequence[Any] | Mapping[str, Any],
        over: Sequence[str] = ("layer", "position"),
        model: str | None = None,
        names: str = "transformer-lens",
    ) -> PatchGrid:
        """How much of ``clean`` each place brings back; see ``Client.patch``."""
        asked = patch_of(clean, corrupted, site, over, metric, model, names)
        return grid(self._loop.run(self._patch(asked)), asked.fields)

    def tokenize(self, text: str, *, model: str | None = None) -> list[int]:
        """Token ids of a text, nothing added."""
        return list(self._loop.run(self._encode(text, model)))

    def detokenize(self, ids: Sequence[int], *, model: str | None = None) -> str:
        """The text of token ids."""
        return self._loop.run(self._decode(ids, model))

    def close(self) -> None:
        """End open calls and free the model; harmless when repeated."""
        self._runner.close()
        self._loop.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    async def _parts(self, body: GenerateRequest) -> AsyncGenerator[Part, None]:
        answer = await StreamedAnswer.begin(await self._runner.served(body.model), body)
        try:
            async for outputs in answer.stream:
                if part := await answer.part(outputs):
                    yield http_messages.part_of(part)
        finally:
            answer.stream.close()

    async def _activations(self, asked: Asked) -> bytearray:
        body = parse(ActivationsRequest, asked.fields)
        served = await self._runner.served(body.model)
        tensors = {
            name: Stored("F32", array.shape, memoryview(array.tobytes()))
            for name, array in asked.tensors.items()
        }
        return await file_of(await inside.activations(served, body, tensors))

    async def _patch(self, asked: Asked) -> Mapping[str, Any]:
        body = parse(PatchRequest, asked.fields)
        return {**await patching.patch(await self._runner.served(body.model), body)}

    async def _encode(self, text: str, model: str | None) -> tuple[int, ...]:
        return await (await self._runner.served(model)).encode(text)

    async def _decode(self, ids: Sequence[int], model: str | None) -> str:
        return await (await self._runner.served(model)).decode(ids, "tokens")

    async def _score(self, items: Sequence[ScoreItem], model: str | None) -> Scores:
        bodies = [http_messages.score_item(item) for item in items]
        results = await scoring.scored(self._runner, bodies, model)
        found: Scores = []
        async for result in results:
            found += http_messages.scores_of([result])
            await asyncio.sleep(0)
        return found
