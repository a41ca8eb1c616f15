"""A chat template of the operator's: messages become one text (``PYTHIA_CHAT_TEMPLATE``).

Jinja as Hugging Face's tokenizers have it, in a sandbox: files of other people's models are often
taken as they are. The sandbox keeps a template from Python and from files, and what draws or looks
at a clock is not there: the same messages make the same prompt. Clients send data, never templates.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from jinja2 import TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from pythia_bento.engine.tokenizer import END_OF_TEXT
from pythia_bento.errors import InvalidRequest
from pythia_bento.settings import Settings, SettingsError

MAX_BYTES = 64 * 1024
MAX_REASON = 200  # characters of what a template says when it refuses messages
_SAMPLE = [{"role": "user", "content": "Hello."}]
_DRAWS = ("lipsum",), ("random",)  # globals and filters


class ChatTemplate:
    """Renders messages; one for all threads."""

    def __init__(self, source: str, max_chars: int) -> None:
        """``max_chars`` of what is rendered. Raises jinja2's TemplateError."""
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True,
            lstrip_blocks=True,
            extensions=["jinja2.ext.loopcontrols"],
        )
        for known, names in zip((environment.globals, environment.filters), _DRAWS, strict=True):
            for name in names:
                del known[name]
        environment.globals |= {"raise_exception": _refuse}
        self._template = environment.from_string(source)
        self._max_chars = max_chars

    @classmethod
    def from_settings(cls, settings: Settings) -> ChatTemplate | None:
        """None where there is none; raises SettingsError for one that cannot be used."""
        path = settings.chat_template
        if path is None:
            return None
        try:
            template = cls(_read(path), settings.max_text_chars)
            template.render(_SAMPLE)
        except (TemplateError, InvalidRequest) as error:
            reason = " ".join(str(error).split())[:MAX_REASON]
            raise SettingsError(f"PYTHIA_CHAT_TEMPLATE {path!r} cannot be used: {reason}") from None
        return template

    def render(self, messages: Sequence[Mapping[str, Any]], *, begin_answer: bool = True) -> str:
        """The prompt; raises InvalidRequest where the template refuses or makes too much."""
        try:
            text = self._rendered(messages, begin_answer)
        except InvalidRequest:
            raise
        except Exception as error:  # whatever Python has for a template that does not fit
            reason = " ".join(str(error).split())[:MAX_REASON]
            raise InvalidRequest(
                f"the chat template does not take these messages: {reason}", param="messages"
            ) from None
        if not text:
            raise InvalidRequest(
                "the chat template makes nothing of these messages", param="messages"
            )
        return text

    def _rendered(self, messages: Sequence[Mapping[str, Any]], begin_answer: bool) -> str:
        pieces, size = [], 0
        for piece in self._template.generate(
            messages=messages,
            add_generation_prompt=begin_answer,
            bos_token="",  # Pythia has none
            eos_token=END_OF_TEXT,
            tools=None,
            documents=None,
        ):
            pieces.append(piece)
            size += len(piece)
            if size > self._max_chars:
                raise InvalidRequest(
                    f"the messages have more than {self._max_chars} characters in the chat "
                    "template, which is the limit",
                    param="messages",
                )
        return "".join(pieces)


def _refuse(reason: object) -> NoReturn:
    """``raise_exception`` of templates."""
    raise TemplateError(str(reason))


def _read(path: str) -> str:
    try:
        with open(path, "rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise SettingsError(
            f"PYTHIA_CHAT_TEMPLATE {path!r} cannot be read: {error.strerror}"
        ) from None
    if len(data) > MAX_BYTES:
        raise SettingsError(
            f"PYTHIA_CHAT_TEMPLATE {path!r} is longer than {MAX_BYTES} bytes, which is the limit"
        )
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise SettingsError(f"PYTHIA_CHAT_TEMPLATE {path!r} is not UTF-8") from None
