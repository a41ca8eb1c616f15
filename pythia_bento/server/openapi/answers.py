"""What clients get, for the description of the API. Tests hold real answers against it."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, RootModel

from pythia_bento.engine.residents import State
from pythia_bento.protocol.types import Limits, Summary
from pythia_bento.runtime.model_info import Provenance


class Schema(BaseModel):
    """Base of all answers."""

    model_config = ConfigDict(
        extra="forbid",
        use_attribute_docstrings=True,
        defer_build=True,  # only the description needs them, and a start should not wait for it
    )


class ErrorDetail(Schema):
    """What went wrong."""

    message: str
    """One sentence that names the field and the limit."""
    type: str
    param: str | None
    """The field at fault."""
    code: str


class Error(Schema):
    """The body of every answer with a status of 400 or above."""

    error: ErrorDetail


class Usage(Schema):
    """Token counts; all of ``best_of`` are counted."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class Logprobs(Schema):
    """One entry for each token; null for the first token of an echoed prompt."""

    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None]
    text_offset: list[int]
    """Where each token begins, in characters of ``text``."""


class PromptLogprob(Schema):
    """A token that stands in the prompt, or could."""

    logprob: float
    rank: int
    """1 is the most likely; null for a token that is not among the best asked for."""
    decoded_token: str


class Choice(Schema):
    """One continuation."""

    index: int
    text: str
    logprobs: Logprobs | None
    finish_reason: Literal["stop", "length"] | None
    stop_reason: str | int | None
    """The stop string or token id; null for the end of the text."""
    token_ids: list[int] = Field([], json_schema_extra={"description": "`return_token_ids`"})
    prompt_token_ids: list[int] = Field([], json_schema_extra={"description": "`return_token_ids`"})
    prompt_logprobs: list[dict[str, PromptLogprob] | None] = []
    logits: list[list[float]] = Field([], json_schema_extra={"description": "`logits`"})


class _CompletionParts(Schema):
    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    system_fingerprint: str
    """Names weights, package version, a hash of the code that computes, and kernels: equal
    fingerprints, equal answers."""
    seed: int | None
    """What was sampled with; null where neither given nor needed."""
    choices: list[Choice]


class Completion(_CompletionParts):
    """OpenAI's completion."""

    usage: Usage


class CompletionChunk(_CompletionParts):
    """The data of one event of a stream: what was added."""

    usage: Usage | None = None
    obfuscation: str = ""
    """Filler that makes events of similar size, where ``include_obfuscation`` asks for it."""


class Embedding(Schema):
    """Of one text."""

    object: Literal["embedding"]
    index: int
    embedding: list[float] | str
    """Base64 is of float32, little-endian."""


class PromptUsage(Schema):
    """Token counts of what generates nothing."""

    prompt_tokens: int
    total_tokens: int


class Embeddings(Schema):
    """OpenAI's list of embeddings."""

    object: Literal["list"]
    data: list[Embedding]
    model: str
    system_fingerprint: str
    pooling: Literal["mean", "last"]
    """What was made of a text's states."""
    usage: PromptUsage


class Model(Schema):
    """A checkpoint that may be asked for, where it comes from, and where its weights are."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    root: str
    parent: None
    max_model_len: int
    aliases: list[str]
    """Other names of it."""
    step: int | None
    """Of training; null where nobody says."""
    tokens_seen: int | None
    """Until then."""
    state: State
    """`device`: it answers at once; `host` and `disk`: when it was loaded from there; `failed`: it
    cannot be loaded, and is tried again once its files have changed."""
    pinned: bool
    """Whether it stays on the device."""
    nbytes: int
    """Of its weights."""
    last_used: float
    """Unix time; 0 is never."""
    weights: str
    """SHA-256 over the names and hashes of its files: equal ones answer alike."""
    same_weights: list[str]
    """Other branches that hold the same weights."""
    error: str = ""
    """Why it failed."""
    system_fingerprint: str
    limits: Limits
    provenance: Provenance | None


class Models(Schema):
    """All that may be asked for: the default, then what stays on the device, then by step."""

    object: Literal["list"]
    data: list[Model]


class TopToken(Schema):
    """A token that could have stood there."""

    id: int
    text: str
    logprob: float


class Token(TopToken):
    """A token with its best alternatives, where they were asked for."""

    top: list[TopToken] = []


class Output(Schema):
    """One continuation."""

    text: str
    token_ids: list[int]
    finish_reason: Literal["stop", "length"]
    stop_reason: str | int | None
    tokens: list[Token] = []


class Generated(Schema):
    """The continuations of one prompt."""

    model: str
    fingerprint: str
    seed: int | None
    """What was sampled with; null where neither given nor needed."""
    num_prompt_tokens: int
    outputs: list[Output]
    prompt_tokens: list[Token] = []
    logits: list[list[float]] = []
    """A row for each position that was asked for."""


class Delta(Schema):
    """What was added to one continuation."""

    index: int
    text: str
    token_ids: list[int]
    finish_reason: Literal["stop", "length"] | None
    stop_reason: str | int | None
    tokens: list[Token] = []


class GeneratedPart(Schema):
    """The data of one event of a stream; the last one before the end has ``summary``."""

    deltas: list[Delta]
    prompt_tokens: list[Token] = []
    summary: Summary | None = None


class Scored(Schema):
    """Log-probabilities of one text."""

    logprob: float
    """The sum over all tokens."""
    num_tokens: int
    is_greedy: bool
    """Whether every token is the most likely one."""
    tokens: list[Token]


class Scores(RootModel[list[Scored | Error]]):
    """One for each item, in order; an item that failed has its error."""


class Tokenized(Schema):
    """The tokens of a text."""

    count: int
    max_model_len: int
    tokens: list[int]
    token_strs: list[str] | None


class Detokenized(Schema):
    """The text of some tokens."""

    prompt: str


class TokenizerInfo(Schema):
    """Keys as in ``tokenizer_config.json``."""

    tokenizer_class: str
    bos_token: str
    eos_token: str
    unk_token: str
    pad_token: str | None
    add_bos_token: bool
    add_eos_token: bool
    chat_template: None
    model_max_length: int
    vocab_size: int


class Version(Schema):
    """Which software serves."""

    version: str


class AnyObject(RootModel[dict[str, Any]]):
    """A JSON object."""
