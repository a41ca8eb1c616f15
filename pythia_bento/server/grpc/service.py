"""``pythia.v1.Pythia``: the methods, over a runner."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from grpc.aio import ServicerContext

from pythia_bento.engine.validate import check_items, check_text
from pythia_bento.handlers.inside import activations
from pythia_bento.handlers.models import states
from pythia_bento.handlers.named_tensors import read_tensors
from pythia_bento.handlers.patch import patch
from pythia_bento.handlers.score import score
from pythia_bento.handlers.streamed import StreamedAnswer
from pythia_bento.protocol.generated import pythia_pb2 as pb
from pythia_bento.protocol.generated.pythia_pb2_grpc import PythiaServicer
from pythia_bento.protocol.inside import ActivationsRequest
from pythia_bento.protocol.parsing import parse
from pythia_bento.protocol.patching import PatchRequest
from pythia_bento.runtime.runner import PythiaRunner
from pythia_bento.runtime.served import Served
from pythia_bento.runtime.turns import Turns
from pythia_bento.server.grpc import inside_messages, messages, sweep_messages
from pythia_bento.server.grpc.write_timeout import WriteTimeout
from pythia_bento.server.sweeping import SweepAnswer
from pythia_bento.sweep.spec import SweepRequest

Context = ServicerContext[Any, Any]


class PythiaService(PythiaServicer):
    """Methods raise leaves of the exception tree; ``interceptors.Errors`` translates them."""

    def __init__(self, runner: PythiaRunner, check_open: Callable[[], None] = lambda: None) -> None:
        """``check_open`` raises EngineUnavailable while the server shuts down."""
        self._runner, self._check_open = runner, check_open

    async def Info(self, request: pb.InfoRequest, context: Context) -> pb.InfoResponse:
        """See pythia.proto, here and below."""
        return messages.info(await self._served(request.model))

    async def Models(self, request: pb.ModelsRequest, context: Context) -> pb.ModelsResponse:
        """Loads nothing."""
        return await messages.models(await states(self._runner, request.pattern))

    async def Generate(self, request: pb.GenerateRequest, context: Context) -> None:
        """One message for each step.

        Messages are written rather than yielded: a call that is cancelled while one is on its way
        then ends in this coroutine, and so ends its sequences at once.
        """
        served = await self._served(request.model)
        count = len(request.prompt.tokens.ids)
        check_text("prompt", count, served.limits, "tokens")
        interventions = await inside_messages.interventions(request.interventions)
        body = messages.generate_body(request, interventions)
        answer = await StreamedAnswer.begin(served, body, context.time_remaining())
        write_timeout = WriteTimeout(self._runner.settings.client_timeout)
        try:
            async for outputs in answer.stream:
                if part := await answer.part(outputs):
                    message = messages.generate_part(part)
                    with write_timeout:
                        await context.write(message)
        finally:
            write_timeout.close()
            answer.stream.close()

    async def Score(self, request: pb.ScoreRequest, context: Context) -> pb.ScoreResponse:
        """Goes to the engine at once: its scheduler is the batcher."""
        check_items(len(request.items), self._runner.limits)
        results = await score(
            self._runner,
            messages.ScoreBodies(request.items),
            request.model or None,
            context.time_remaining(),
            messages.scored_tokens,
        )
        return await messages.score_results(results)

    async def Sweep(self, request: pb.SweepRequest, context: Context) -> None:
        """Messages are written as in ``Generate``."""
        body, turns = sweep_messages.body(request), Turns()
        body["items"] = []
        for item in request.items:
            body["items"].append(sweep_messages.item(item))
            await turns.take()
        spec = parse(SweepRequest, body)
        answer = await SweepAnswer.begin(self._runner, spec, self._check_open)
        write_timeout = WriteTimeout(self._runner.settings.client_timeout)
        try:
            async for batch in answer.batches():
                for message in sweep_messages.messages(batch):
                    with write_timeout:
                        await context.write(message)
                    await turns.take()
        finally:
            write_timeout.close()
            await answer.close()

    async def Activations(self, request: pb.ActivationsRequest, context: Context) -> None:
        """Messages are written as in ``Generate``; memory is held until the last one is."""
        tensors = inside_messages.tensors_of(request, self._runner.settings.max_tensor_bytes)
        body = parse(ActivationsRequest, await inside_messages.activations_body(request))
        served = await self._served(request.model)
        named, remaining = await read_tensors(tensors), context.time_remaining()
        answer = await activations(served, body, named, remaining)
        write_timeout = WriteTimeout(self._runner.settings.client_timeout)
        try:
            async for part in inside_messages.parts(answer):
                with write_timeout:
                    await context.write(part)
        finally:
            write_timeout.close()
            answer.close()

    async def Patch(self, request: pb.PatchRequest, context: Context) -> pb.PatchResponse:
        """See pythia.proto."""
        body = parse(PatchRequest, inside_messages.patch_body(request))
        served = await self._served(request.model)
        return inside_messages.patched(await patch(served, body, context.time_remaining()))

    async def Tokenize(self, request: pb.TokenizeRequest, context: Context) -> pb.TokenizeResponse:
        """Nothing is added to the text."""
        served = await self._served(request.model)
        return pb.TokenizeResponse(ids=await served.encode(request.text, "text"))

    async def Detokenize(
        self, request: pb.DetokenizeRequest, context: Context
    ) -> pb.DetokenizeResponse:
        """The inverse, for whole texts."""
        check_text("ids", len(request.ids), self._runner.limits, "ids")
        served = await self._served(request.model)
        return pb.DetokenizeResponse(text=await served.decode(list(request.ids), "ids"))

    async def _served(self, model: str) -> Served:
        return await self._runner.served(model or None)
