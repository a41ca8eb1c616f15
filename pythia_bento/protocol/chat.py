"""What clients of chat may send: messages, and the options of completions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, StrictBool, StrictStr, model_validator
from typing_extensions import override

from pythia_bento.errors import InvalidRequest
from pythia_bento.protocol.bodies import CompletionRequest, without_neutral
from pythia_bento.protocol.parsing import parse
from pythia_bento.protocol.sampling import Body, Integer
from pythia_bento.protocol.schemas import STRING_SCHEMA, schema

MAX_MESSAGES = 2048

# Fields of OpenAI's and vLLM's chat that cannot be honoured, as NEUTRAL of completions.
CHAT_NEUTRAL: dict[str, Any] = {
    "tools": [],
    "tool_choice": "none",
    "parallel_tool_calls": True,
    "functions": [],
    "function_call": "none",
    "modalities": ["text"],
    "store": False,
    "service_tier": "auto",
    "continue_final_message": False,
    "echo": False,
    **dict.fromkeys(
        (
            *("audio", "chat_template", "chat_template_kwargs", "documents", "metadata"),
            *("prediction", "reasoning_effort", "verbosity", "web_search_options"),
        )
    ),
}
_NOT_OF_CHAT = ("prompt", "suffix")


def _text(value: Any) -> str:
    """OpenAI's parts of a message are joined by newlines, as vLLM does."""
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        parts = [part for part in value if isinstance(part, Mapping) and part.get("type") == "text"]
        texts = [part["text"] for part in parts if isinstance(part.get("text"), str)]
        if len(texts) == len(value):
            return "\n".join(texts)
    raise ValueError('content must be a string or a list of {"type": "text", "text": "..."}')


class ChatMessage(Body):
    """What somebody said."""

    role: Literal["system", "developer", "user", "assistant"]
    content: Annotated[Any, BeforeValidator(_text), schema(STRING_SCHEMA)]
    name: StrictStr | None = None


class ChatRequest(Body):
    """The fields that completions have not, or not so."""

    messages: Annotated[list[ChatMessage], Field(min_length=1, max_length=MAX_MESSAGES)]
    model: StrictStr | None = None
    """As of a completion, and needed before there is one: whose tokens the prompt has."""
    max_completion_tokens: Integer | None = None
    """The same as ``max_tokens``; by default all that the context has room for."""
    logprobs: StrictBool = False
    top_logprobs: Integer | None = None
    add_generation_prompt: StrictBool = True
    """Whether the template is to begin the assistant's turn."""

    @classmethod
    @override
    def knows(cls, field: str) -> bool:
        return field in CHAT_NEUTRAL or super().knows(field)

    @model_validator(mode="before")
    @classmethod
    def _only_neutral(cls, data: Any) -> Any:
        return without_neutral(data, CHAT_NEUTRAL) if isinstance(data, Mapping) else data

    @model_validator(mode="after")
    def _alternatives_go_with_logprobs(self) -> ChatRequest:
        if self.top_logprobs is not None and not self.logprobs:
            raise ValueError("top_logprobs is only allowed when logprobs is true")
        return self

    def spoken(self) -> list[dict[str, Any]]:
        """The messages for a template."""
        return [message.model_dump(exclude_none=True) for message in self.messages]


def chat_request(data: Any) -> tuple[ChatRequest, dict[str, Any]]:
    """What is chat's own, and the options that are those of a completion.

    Raises InvalidRequest.
    """
    if not isinstance(data, Mapping):
        return parse(ChatRequest, data), {}
    for field in _NOT_OF_CHAT:
        if data.get(field) is not None:
            raise InvalidRequest(f"{field} is not a field of this request", param=field)
    own = {field: value for field, value in data.items() if ChatRequest.knows(field)}
    request = parse(ChatRequest, own)
    options = {field: value for field, value in data.items() if field not in own}
    options["model"] = request.model
    _take_limit(options, request.max_completion_tokens)
    if request.logprobs:
        options["logprobs"] = request.top_logprobs or 0
    return request, options


def _take_limit(options: dict[str, Any], wanted: int | None) -> None:
    given = options.pop("max_tokens", None)
    if wanted is not None and given is not None and wanted != given:
        raise InvalidRequest(
            "max_tokens and max_completion_tokens are the same: give one of them",
            param="max_tokens",
        )
    limit = given if wanted is None else wanted
    if limit is not None:
        options["max_tokens"] = limit


def as_completion(options: Mapping[str, Any], ids: tuple[int, ...], room: int) -> CompletionRequest:
    """The completion of a rendered prompt; without a limit it may take the ``room`` there is."""
    return parse(CompletionRequest, {"max_tokens": max(room, 1), **options, "prompt": [list(ids)]})
