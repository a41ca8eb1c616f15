"""``Client``: one interface, whatever carries it."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Any

from pythia_bento.client.base import BaseClient, whole
from pythia_bento.client.inside import activations_of, patch_of
from pythia_bento.client.options import Connection, SamplingOptions, sweep_of
from pythia_bento.client.specs import Spec
from pythia_bento.client.transport import Carrier, Transport
from pythia_bento.protocol.sweep import Event, SweepItem
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

if TYPE_CHECKING:
    from typing_extensions import Self, Unpack

    from pythia_bento.client.patches import PatchGrid
    from pythia_bento.protocol.activations import Activations


class Client(BaseClient[Transport]):
    """Talks to one server: ``http://``, ``https://``, ``grpc://`` or ``grpcs://`` host:port.

    ``timeout`` is in seconds: over gRPC the deadline of a call, over HTTP the longest silence.
    All methods raise leaves of ``pythia_bento.errors``: what the server raised,
    EngineUnavailable when it cannot be reached or breaks off, DeadlineExceeded when it took too
    long, and PythiaError itself for an answer that makes no sense.
    ``model`` is any id of the server's shelf, which ``models`` lists; None is its default.
    Close the client, or use it as a context manager.
    """

    def _connect(self, carrier: Carrier, connection: Connection) -> Transport:
        return carrier.connect(connection)

    def info(self, model: str | None = None, *, timeout: float | None = None) -> Info:
        """What answers under a name, by default to requests that have none."""
        return self._transport.call(self._messages.info(model), self._seconds(timeout))

    def models(self, *, timeout: float | None = None) -> list[ModelState]:
        """All that may be asked for, the default first, and where their weights are."""
        return self._transport.call(self._messages.models(), self._seconds(timeout))

    def generate(
        self,
        prompt: Prompt,
        *,
        model: str | None = None,
        interventions: Sequence[Mapping[str, Any]] = (),
        timeout: float | None = None,
        **options: Unpack[SamplingOptions],
    ) -> Generation:
        """Continue a prompt, which is text or token ids.

        ``interventions`` change the inside of its passes, as in ``activations``.
        """
        joiner = Joiner()
        told = self.stream(
            prompt, model=model, interventions=interventions, timeout=timeout, **options
        )
        for part in told:
            joiner.add(part)
        return whole(joiner)

    def stream(
        self,
        prompt: Prompt,
        *,
        model: str | None = None,
        interventions: Sequence[Mapping[str, Any]] = (),
        timeout: float | None = None,
        **options: Unpack[SamplingOptions],
    ) -> Iterator[Part]:
        """The same, part by part; closing the iterator ends the request."""
        operation = self._generate(prompt, model, interventions, options)
        return self._transport.stream(operation, self._seconds(timeout))

    def score(
        self, items: Sequence[ScoreItem], *, model: str | None = None, timeout: float | None = None
    ) -> Scores:
        """Log-probabilities of texts, in order; an item that fails has its error in its place.

        An item that names a model of its own is scored by that one.
        """
        return self._transport.call(self._messages.score(items, model), self._seconds(timeout))

    def sweep(
        self,
        items: Iterable[SweepItem | Prompt],
        *,
        model: str | None = None,
        steps: str | Sequence[int] | None = None,
        models: Sequence[str] | None = None,
        task: str | Mapping[str, Any] | None = None,
        priority: int | None = None,
        timeout: float | None = None,
    ) -> Generator[Event, None, None]:
        """One sweep: the same texts by many checkpoints, told event by event.

        ``model`` is a name without a revision, ``steps`` is "all", "log", "from:to:by" or a list;
        ``models`` are ids instead of both. ``task`` is a type, or a mapping with the type and its
        fields, as docs/sweeps.md has them. Closing the iterator ends the sweep. What fails of it
        is an event, or the ``error`` of a row.
        """
        asked = sweep_of(items, model, steps, models, task, priority)
        operation = self._messages.sweep(asked)
        seconds = self._seconds(operation.timeout if timeout is None else timeout)
        with closing(self._transport.stream(operation, seconds)) as messages:
            for events in messages:
                yield from events

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
        timeout: float | None = None,
        **options: Unpack[SamplingOptions],
    ) -> Activations:
        """What is inside a forward pass, and what becomes of it when it is changed.

        ``capture`` are sites, or mappings with their fields; ``interventions`` are mappings, in
        which arrays of numpy or torch stand for vectors; ``names`` is whose names of sites are
        meant, "transformers", "nnterp" or "interp-engine" for others than TransformerLens'.
        docs/activations.md has all fields, docs/inside.md examples. Needs numpy.
        """
        asked = activations_of(
            prompts, capture, model, interventions, logits, dtype, names, options
        )
        return self._transport.fetch(self._messages.activations(asked), self._seconds(timeout))

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
        timeout: float | None = None,
    ) -> PatchGrid:
        """How much of ``clean`` comes back where one place of ``corrupted`` is set to its value.

        ``metric`` is ("logit_diff", a, b) or ("logprob", a), of token ids, or texts of one token;
        ``over`` is ("layer", "position") or ("layer", "head"). Needs numpy.
        """
        asked = patch_of(clean, corrupted, site, over, metric, model, names)
        return self._transport.call(self._messages.patch(asked), self._seconds(timeout))

    def tokenize(
        self, text: str, *, model: str | None = None, timeout: float | None = None
    ) -> list[int]:
        """Token ids of a text, nothing added."""
        return self._transport.call(self._messages.tokenize(text, model), self._seconds(timeout))

    def detokenize(
        self, ids: Sequence[int], *, model: str | None = None, timeout: float | None = None
    ) -> str:
        """The text of token ids."""
        return self._transport.call(self._messages.detokenize(ids, model), self._seconds(timeout))

    def close(self) -> None:
        """End open calls and close the connections; harmless when repeated."""
        self._transport.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()
