"""Every operation over HTTP: what it takes, what it answers, how it fails, and examples.

A new route is described by one more entry here, or in ``open_operations``, and nowhere else: the
OpenAPI document, the paths that are open without a key, the labels of metrics and the routes
reached directly all follow.
"""

from __future__ import annotations

from collections.abc import Callable

from pydantic import BaseModel

from pythia_bento import errors
from pythia_bento.protocol.bodies import (
    CompletionRequest,
    DetokenizeRequest,
    GenerateRequest,
    GenerateStreamRequest,
    LoadRequest,
    ScoreItem,
    TokenizeRequest,
    UnloadRequest,
)
from pythia_bento.protocol.embeddings import EmbeddingsRequest
from pythia_bento.server.openapi import answers, sweep_answers
from pythia_bento.server.openapi.failures import BODY, ENGINE, MODEL, UNAVAILABLE
from pythia_bento.server.openapi.inside_operations import INSIDE_OPERATIONS
from pythia_bento.server.openapi.open_operations import OPEN_OPERATIONS
from pythia_bento.server.openapi.operation import Events, Lines, Operation
from pythia_bento.sweep.spec import SweepRequest


class ScoreRequest(BaseModel):
    """The texts to score, each on its own: a bad one does not fail the others."""

    model_config = {"extra": "forbid"}

    items: list[ScoreItem]
    model: str | None = None


_COMPLETIONS = {
    "Continue a text": {"prompt": "Once upon a time", "max_tokens": 22, "temperature": 0},
    "Several prompts, two continuations each, streamed": {
        "prompt": ["Once upon a time", "Question: What color is"],
        "n": 2,
        "max_tokens": 8,
        "seed": 7,
        "stop": "\n",
        "stream": True,
        "stream_options": {"include_usage": True},
    },
    "Score a prompt": {"prompt": "Once upon a time", "max_tokens": 0, "echo": True, "logprobs": 2},
    "Token ids": {"prompt": [[5, 6, 7], [8, 9]], "max_tokens": 2, "return_token_ids": True},
}

OPERATIONS: tuple[Operation, ...] = (
    Operation(
        tag="OpenAI",
        method="post",
        path="/v1/completions",
        id="createCompletion",
        summary="Continue prompts, plain or streamed; score them.",
        answers=(answers.Completion, Events((answers.CompletionChunk, answers.Error))),
        errors=(*BODY, *ENGINE, *MODEL, *UNAVAILABLE),
        body=CompletionRequest,
        generates=True,
        examples=_COMPLETIONS,
    ),
    Operation(
        tag="OpenAI",
        method="post",
        path="/v1/embeddings",
        id="createEmbedding",
        summary="The last hidden state of texts, as vectors.",
        answers=(answers.Embeddings,),
        errors=(*BODY, *ENGINE, *MODEL, *UNAVAILABLE),
        body=EmbeddingsRequest,
        generates=True,
        examples={
            "A text": {"input": "Once upon a time"},
            "Of last tokens, as they are": {
                "input": [[5, 6, 7], [8, 9]],
                "pooling": "last",
                "normalize": False,
                "encoding_format": "base64",
            },
        },
    ),
    Operation(
        tag="OpenAI",
        method="get",
        path="/v1/models",
        id="listModels",
        summary="What may be asked for: commit, hashes of all files, arithmetic, where it is.",
        answers=(answers.Models,),
        errors=UNAVAILABLE,
    ),
    Operation(
        tag="OpenAI",
        method="get",
        path="/v1/models/{id}",
        id="retrieveModel",
        summary="The same of one, by any of its names.",
        answers=(answers.Model,),
        errors=(*MODEL, *UNAVAILABLE),
        parameters={"id": "bundled"},
    ),
    Operation(
        tag="Models",
        method="post",
        path="/v1/models/load",
        id="loadModel",
        summary="Bring a checkpoint to the device; needs PYTHIA_MANAGE_MODELS.",
        answers=(answers.Model,),
        errors=(*BODY, *MODEL, errors.DeadlineExceeded, *UNAVAILABLE),
        body=LoadRequest,
        examples={"To stay there": {"model": "bundled", "pin": True}},
    ),
    Operation(
        tag="Models",
        method="post",
        path="/v1/models/unload",
        id="unloadModel",
        summary="Let a checkpoint leave the device; its next request loads it again.",
        answers=(answers.Model,),
        errors=(*BODY, *MODEL, *UNAVAILABLE),
        body=UnloadRequest,
        examples={"Of the bundle": {"model": "bundled@step64"}},
    ),
    Operation(
        tag="Tokenizer",
        method="post",
        path="/tokenize",
        id="tokenize",
        summary="The tokens of a text.",
        answers=(answers.Tokenized,),
        errors=(*BODY, *MODEL, *UNAVAILABLE),
        body=TokenizeRequest,
        examples={"A text": {"prompt": "Once upon a time", "return_token_strs": True}},
    ),
    Operation(
        tag="Tokenizer",
        method="post",
        path="/detokenize",
        id="detokenize",
        summary="The text of tokens.",
        answers=(answers.Detokenized,),
        errors=(*BODY, *MODEL, *UNAVAILABLE),
        body=DetokenizeRequest,
        examples={"Some tokens": {"tokens": [5, 6, 7]}},
    ),
    Operation(
        tag="Tokenizer",
        method="get",
        path="/tokenizer_info",
        id="tokenizerInfo",
        summary="Special tokens and sizes.",
        answers=(answers.TokenizerInfo,),
        errors=UNAVAILABLE,
    ),
    Operation(
        tag="Native",
        method="post",
        path="/generate",
        id="generate",
        summary="Continue one prompt; token ids and text in the answer.",
        answers=(answers.Generated, Events((answers.GeneratedPart, answers.Error))),
        errors=(*BODY, *ENGINE, *MODEL, *UNAVAILABLE),
        body=GenerateRequest,
        generates=True,
        examples={
            "Continue a text": {"prompt": "Once upon a time", "max_tokens": 12, "logprobs": 2},
            "Streamed": {"prompt": "Once upon a time", "max_tokens": 8, "stream": True},
            "The best of three": {"prompt": [5, 6, 7], "n": 1, "best_of": 3, "max_tokens": 4},
        },
    ),
    Operation(
        tag="Native",
        method="post",
        path="/generate_stream",
        id="generateStream",
        summary="The same as /generate with stream, in ASCII: BentoML's clients iterate over it.",
        answers=(Events((answers.GeneratedPart, answers.Error)),),
        errors=(*BODY, *ENGINE, *MODEL, *UNAVAILABLE),
        body=GenerateStreamRequest,
        generates=True,
        examples={"Continue a text": {"prompt": "Once upon a time", "max_tokens": 8}},
    ),
    Operation(
        tag="Native",
        method="post",
        path="/score",
        id="score",
        summary="Log-probabilities of many texts; an item that fails does not fail the others.",
        answers=(answers.Scores,),
        errors=(*BODY, *MODEL, *UNAVAILABLE),
        body=ScoreRequest,
        examples={
            "A continuation": {"items": [{"prompt": "Once upon", "continuation": " a time"}]},
            "Two texts": {"items": [{"prompt": "Once upon a time"}, {"prompt": [5, 6, 7]}]},
            "One text, before and after training": {
                "items": [
                    {"prompt": "Once upon a time", "model": "bundled@step0"},
                    {"prompt": "Once upon a time", "model": "bundled"},
                ]
            },
        },
    ),
    Operation(
        tag="Native",
        method="post",
        path="/v1/sweep",
        id="sweep",
        summary="The same texts by many checkpoints, a row for each pair; see docs/sweeps.md.",
        answers=(
            Lines(sweep_answers.EVENTS),
            Events(sweep_answers.EVENTS),
            "application/vnd.apache.arrow.stream",
        ),
        errors=(*BODY, *MODEL, *UNAVAILABLE),
        body=SweepRequest,
        generates=True,
        examples={
            "A continuation over training": {
                "items": [{"prompt": "Once upon a", "continuation": " time"}],
                "task": {"type": "score", "tokens": True},
            },
            "Greedy continuations at some steps": {
                "model": "bundled",
                "steps": [0, 512],
                "items": [{"id": "a", "prompt": "Once upon a time"}],
                "task": {"type": "generate", "max_tokens": 4, "temperature": 0},
            },
            "What is known by heart": {
                "models": ["bundled@step3000"],
                "items": [{"prompt": [5, 6, 7, 8, 9, 10]}],
                "task": {"type": "extract", "prompt_tokens": 3, "tokens": 3, "share": True},
            },
        },
    ),
    Operation(
        tag="OpenAI",
        method="post",
        path="/v1/chat/completions",
        id="createChatCompletion",
        summary="Refused unless there is a chat template; see docs/chat.md.",
        answers=(),
        errors=(errors.InvalidRequest,),
        generates=True,
        is_documented=False,
    ),
    *INSIDE_OPERATIONS,
    *OPEN_OPERATIONS,
)

_TEMPLATES = [operation for operation in OPERATIONS if operation.is_template]


class _ByPath(dict[str, "Operation | None"]):
    """Each request is looked up here: for a path without parameters that costs one look."""

    def __missing__(self, path: str) -> Operation | None:
        return next((operation for operation in _TEMPLATES if operation.matches(path)), None)


operation_of: Callable[[str], Operation | None] = _ByPath(
    {operation.path: operation for operation in OPERATIONS if not operation.is_template}
).__getitem__
"""The operation that a request's path names; None for a path that is not served."""
