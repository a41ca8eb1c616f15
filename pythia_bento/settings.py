"""Every setting once: ``PYTHIA_<NAME>`` in the environment, or ``bentoml serve --arg name=value``.

Arguments win over the environment. A built Bento has the arguments of ``bentoml build``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from pythia_bento.errors import PythiaError


class SettingsError(PythiaError):
    """A setting has a value that cannot be used."""

    code = "invalid_setting"


BATCH_SIZE = {"cuda": 256, "cpu": 64}  # where none is set


class Settings(BaseSettings):
    """How to load and serve a checkpoint, and others of its shape."""

    model_config = SettingsConfigDict(env_prefix="PYTHIA_", extra="forbid", frozen=True)

    model: str = Field("bundled", min_length=1)
    """Model id ``<name>[@<revision>]``, ``bundled``, or a directory as a path, ``./name``."""
    models: str = "bundled@*"
    """Patterns of further ids of the same shape that may be asked for: ``pythia-1b@*,bundled@*``.
    Nothing is downloaded for them: they are pulled before."""
    pinned: str = ""
    """Ids that are loaded at the start and never leave the device, beside ``model``."""
    models_gb: float | None = Field(None, gt=0, allow_inf_nan=False)
    """Memory of the device for checkpoints in GB (10^9 bytes); by default what 8 GB of KV cache and
    the largest pass leave on a GPU, and half of what is available on a CPU."""
    host_models_gb: float | None = Field(None, ge=0, allow_inf_nan=False)
    """Page-locked memory of the host for checkpoints that left a GPU; by default half of what is
    available."""
    turn_ms: float = Field(50.0, ge=0, le=60_000, allow_inf_nan=False)
    """How long one checkpoint keeps the device while others wait for it."""
    max_cold: int = Field(64, ge=1, le=4096)
    """Checkpoints that may wait to be loaded; requests for more are refused with status 429."""
    manage_models: bool = False
    """Whether ``/v1/models/load`` and ``/v1/models/unload`` answer."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """``auto`` is cuda when torch finds a GPU."""
    devices: str | None = Field(None, pattern=r"^(auto|cpu:\d{1,2}|\d{1,2}(,\d{1,2})*)$")
    """``auto``, GPUs as ``0,1``, or ``cpu:2``: one engine on each, all behind one front. ``auto``
    is all GPUs that are visible. By default there is one engine, on ``device``."""
    backend: Literal["auto", "cpu", "triton", "reference"] = "auto"
    """Kernels; ``auto`` takes the batch-invariant ones of the device, and no others for them."""
    matmul: Literal["w8a16", "llm-int8"] = "w8a16"

    max_batch_size: int | None = Field(None, ge=1, le=1024)
    """Sequences in a step. By default 256 on a GPU, or 64; never more than tokens in a step."""
    max_tokens_per_step: int | None = Field(None, ge=1)
    """Tokens in a step; longer prompts are computed in pieces. By default 2048 on a GPU, or 512."""
    max_tokens_per_prompt_step: int | None = Field(None, ge=1)
    """Tokens in a step that nobody waits for between two tokens, as where texts are scored: as many
    as take 20 ms. By default four times as many as in others on a GPU, where memory allows."""
    kv_cache_gb: float | None = Field(None, gt=0, allow_inf_nan=False)
    """Size of the KV cache in GB (10^9 bytes); by default what the device can spare."""

    speculate: Literal["off", "ngram"] = "off"
    """``ngram`` computes tokens that the text so far suggests before they are chosen; answers stay
    what they are, to the bit."""

    engine_process: bool | None = None
    """Whether the engine has a process of its own; by default in a service on a GPU."""

    max_queue: int = Field(1024, ge=0)
    """Sequences that may wait beyond those in a step; more are refused with status 429."""
    max_queue_tokens: int = Field(2**20, ge=0)
    """The same for tokens, of prompts and to generate, beyond those that the KV cache holds."""
    caller_share: float = Field(0.5, gt=0, le=1)
    """The part of both that one API key may have under way; without keys, one request."""
    request_timeout: float = Field(600.0, gt=0, allow_inf_nan=False)
    """Seconds from arrival to the last token; of a sweep, from a checkpoint's first row to its
    last."""
    sweep_timeout: float = Field(86_400.0, gt=0, allow_inf_nan=False)
    """Seconds that a sweep over checkpoints may take."""
    client_timeout: float = Field(60.0, ge=1, allow_inf_nan=False)
    """Seconds that a client may take to send a body, or to read what was sent to it."""
    drain_seconds: float = Field(0.0, ge=0, allow_inf_nan=False)
    """Seconds after SIGTERM in which the server says that it is not ready and still serves."""
    stall_seconds: float = Field(120.0, ge=0, allow_inf_nan=False)
    """Seconds without a step, with requests to work on, after which the engine counts as dead: 0
    is never. The longest step of the slowest model must fit."""
    max_body_bytes: int = Field(8 * 2**20, ge=1)
    """Of one request."""
    max_open_bytes: int = Field(128 * 2**20, ge=0)
    """Of all requests that are read or answered at a time, beyond the first 64 KiB of each."""
    capture_gb: float = Field(1.0, gt=0, le=1024, allow_inf_nan=False)
    """Memory for what requests see of the model's inside, of all together, in GB (10^9 bytes)."""
    max_capture_bytes: int = Field(256 * 2**20, ge=1)
    """What one request may see of it."""
    max_tensor_bytes: int = Field(64 * 2**20, ge=0)
    """Tensors of one request that change it."""
    max_logprobs: int = Field(20, ge=0, le=1000)
    """Alternatives a request may ask for with each token."""
    max_n: int = Field(128, ge=1)
    """Continuations of one prompt."""
    max_sequences: int = Field(4096, ge=1)
    """Sequences of one request: its prompts times ``n`` or ``best_of``."""
    max_prompt_tokens: int | None = Field(None, ge=1)
    """Tokens of one prompt; by default the model's context."""
    max_text_chars: int = Field(2**18, ge=1)
    """Characters of one text, and tokens of one that is asked for; more are refused unread."""
    max_stop: int = Field(16, ge=0, le=64)
    """Stop strings of a request."""

    default_seed: int | None = Field(None, ge=-(2**63), le=2**64 - 1)
    """Of requests that give none; by default one is drawn for each."""

    api_keys: SecretStr | None = None
    """``[name] key [suspended]``, separated by commas; a key is itself or ``sha256:<hex>``."""
    api_keys_file: str | None = None
    """A file of the same, one a line. Where neither is set no key is asked for."""
    key_requests_per_minute: int | None = Field(None, ge=1)
    """Of one API key, or of all callers together where there are none."""
    key_concurrent_requests: int | None = Field(None, ge=1)
    """The same for requests open at a time."""

    chat_template: str | None = None
    """A file in Jinja that makes a prompt of messages; without it chat is refused."""

    cors_origins: str = ""
    """Origins whose pages may ask from a browser, separated by commas; ``*`` is all."""

    log_format: Literal["text", "json"] = "text"
    """``json`` is one object a line, for machines."""
    metrics_prefix: str | None = Field(None, pattern=r"^[a-zA-Z_:][a-zA-Z0-9_:]*$", max_length=64)
    """With ``vllm:`` the metrics page has what vLLM counts too a second time, by vLLM's names."""

    grpc_port: int = Field(3001, ge=0, le=65535)
    """0 is no gRPC."""
    grpc_host: str = "0.0.0.0"
    grpc_streams: int = Field(1024, ge=1, le=2**16)
    """Calls of one connection at a time."""
    grpc_tls_cert: str | None = None
    """PEM file of the certificate chain; with the key, gRPC takes TLS only."""
    grpc_tls_key: str | None = None
    grpc_tls_client_ca: str | None = None
    """PEM file; clients must then show a certificate that one of these has signed."""

    def batch_size(self, device: str) -> int:
        """Sequences in a step on a kind of device; on one that is not known yet, as on a CPU."""
        if self.max_batch_size is not None:
            return self.max_batch_size
        usual = BATCH_SIZE.get(device, BATCH_SIZE["cpu"])
        return min(usual, self.max_tokens_per_step or usual)

    @property
    def capture_bytes(self) -> int:
        """The same as ``capture_gb``."""
        return int(self.capture_gb * 1e9)

    @field_validator("cors_origins")
    @classmethod
    def _origins_are_as_browsers_send_them(cls, value: str) -> str:
        for origin in value.split(",") if value not in ("", "*") else ():
            if not re.fullmatch(r"[a-z][a-z0-9+.-]*://[^\s/*]+", origin.strip()):
                raise ValueError(
                    "must be * or origins as https://example.org:8443, separated by commas"
                )
        return value

    @property
    def has_keys(self) -> bool:
        """Whether callers need an API key, and so have names."""
        return self.api_keys is not None or self.api_keys_file is not None

    @property
    def pinned_ids(self) -> list[str]:
        """Those of ``pinned``."""
        return [id for part in self.pinned.split(",") if (id := part.strip())]

    @model_validator(mode="after")
    def _tls_is_complete(self) -> Settings:
        if (self.grpc_tls_cert is None) != (self.grpc_tls_key is None):
            raise ValueError("grpc_tls_cert and grpc_tls_key must be set together")
        if self.grpc_tls_client_ca is not None and self.grpc_tls_cert is None:
            raise ValueError("grpc_tls_client_ca needs grpc_tls_cert and grpc_tls_key")
        return self

    @model_validator(mode="after")
    def _metrics_have_one_meaning(self) -> Settings:
        if self.metrics_prefix is not None and self.metrics_prefix.startswith("pythia_"):
            raise ValueError("metrics_prefix must not begin with pythia_, as the metrics do anyway")
        return self

    @model_validator(mode="after")
    def _every_body_has_room(self) -> Settings:
        if self.max_open_bytes < self.max_body_bytes:
            raise ValueError(
                f"max_open_bytes ({self.max_open_bytes}) must be at least "
                f"max_body_bytes ({self.max_body_bytes})"
            )
        return self

    @model_validator(mode="after")
    def _every_capture_has_room(self) -> Settings:
        if self.max_capture_bytes > self.capture_bytes:
            raise ValueError(
                f"max_capture_bytes ({self.max_capture_bytes}) must be at most "
                f"capture_gb ({self.capture_bytes} bytes)"
            )
        return self

    @model_validator(mode="after")
    def _every_sequence_gets_a_token(self) -> Settings:
        most = self.max_tokens_per_step
        if most is not None and self.max_batch_size is not None and most < self.max_batch_size:
            raise ValueError(
                f"max_tokens_per_step ({most}) must be at least "
                f"max_batch_size ({self.max_batch_size})"
            )
        return self


class Arguments(Settings):
    """The same of a Bento's arguments, for ``bentoml.use_arguments``.

    They are for all services of the Bento: those that are no settings are left to others. Raises
    SettingsError with one sentence.
    """

    def __init__(self, **arguments: Any) -> None:
        with _in_one_sentence(arguments):
            super().__init__(**known(arguments))


def load_settings(arguments: Mapping[str, Any] | None = None) -> Settings:
    """Read environment and ``arguments``; raises SettingsError with one sentence."""
    with _in_one_sentence(arguments or {}):
        return Settings(**dict(arguments or {}))


@contextmanager
def _in_one_sentence(arguments: Mapping[str, Any]) -> Iterator[None]:
    if arguments.get("api_keys") is not None:
        raise SettingsError(
            "api_keys is no argument, because arguments are shown to others and become part of a "
            "Bento; set PYTHIA_API_KEYS or PYTHIA_API_KEYS_FILE"
        )
    try:
        yield
    except ValidationError as error:
        raise SettingsError(_sentence(error)) from None


def known(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Those that are settings: a Bento's arguments are for all of its services."""
    return {name: value for name, value in arguments.items() if name in Settings.model_fields}


def check_names(arguments: Mapping[str, Any]) -> None:
    """Raise SettingsError for the first that is no setting."""
    for name in arguments:
        if name not in Settings.model_fields:
            raise SettingsError(_unknown(name))


def _sentence(error: ValidationError) -> str:
    first = error.errors(include_url=False)[0]
    name = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        return _unknown(name)
    message = re.sub("^(Input|String) should", "must", first["msg"].removeprefix("Value error, "))
    if not name:
        return message
    return f"setting {name} (PYTHIA_{name.upper()}) {message}, not {first['input']!r}"


def _unknown(name: str) -> str:
    return f"{name} is not a setting; known are {', '.join(Settings.model_fields)}"
