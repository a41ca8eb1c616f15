"""Templates: what they may do, and what stops the start or a request."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from pythia_bento.errors import InvalidRequest
from pythia_bento.server.http.chat_template import MAX_BYTES, ChatTemplate
from pythia_bento.settings import Settings, SettingsError

ROOT = Path(__file__).parents[4]
DOCUMENTED = ROOT / "tests" / "fuzz" / "chat.jinja"
MESSAGES = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "What is {{ 7 * 7 }}?"},
]


def template(source: str, max_chars: int = 1000) -> ChatTemplate:
    return ChatTemplate(source, max_chars)


def from_file(path: Path, **settings: Any) -> ChatTemplate | None:
    return ChatTemplate.from_settings(Settings(chat_template=str(path), **settings))


def test_the_documents_template_is_the_one_that_is_tested() -> None:
    [shown] = re.findall(r"```jinja\n(.*?)```", (ROOT / "docs/chat.md").read_text(), re.DOTALL)
    assert shown == DOCUMENTED.read_text()


def test_messages_are_data_and_not_templates() -> None:
    found = from_file(DOCUMENTED)
    assert found is not None
    text = found.render(MESSAGES)
    assert text == "System: Be brief.\nUser: What is {{ 7 * 7 }}?\nAssistant:"
    assert found.render(MESSAGES, begin_answer=False) == text.removesuffix("Assistant:")


def test_none_is_none() -> None:
    assert ChatTemplate.from_settings(Settings()) is None


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("{{ messages", "cannot be used: unexpected end of template"),
        ("{{ ''.__class__.__mro__ }}", "cannot be used"),
        ("{{ cycler.__init__.__globals__.os.popen('id').read() }}", "cannot be used"),
        ("{% include '/etc/passwd' %}", "cannot be used"),
        ("{{ messages.append(1) }}", "cannot be used"),
        ("{{ lipsum() }}", "cannot be used"),
        ("{{ [1, 2] | random }}", "cannot be used: No filter named 'random'"),
        ("{{ raise_exception('no user is known') }}", "cannot be used: .* no user is known"),
        ("{# nothing #}", "makes nothing"),
        ("{% for a in range(999999) %}{{ a }}{% endfor %}", "cannot be used: .*Range too big"),
        ("{% for a in range(99999) %}{{ a }}{% endfor %}", "more than 262144 characters"),
        ("#" * (MAX_BYTES + 1), f"longer than {MAX_BYTES} bytes"),
    ],
)
def test_a_template_that_does_not_work_stops_the_start(
    tmp_path: Path, source: str, words: str
) -> None:
    path = tmp_path / "chat.jinja"
    path.write_text(source)
    with pytest.raises(SettingsError, match=f"PYTHIA_CHAT_TEMPLATE '.*{words}") as caught:
        from_file(path)
    assert "\n" not in caught.value.message


@pytest.mark.parametrize("content", [None, b"\xff"])
def test_a_file_that_cannot_be_read_stops_the_start(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "chat.jinja"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SettingsError, match=r"cannot be read: No such file|is not UTF-8"):
        from_file(path)


def test_what_a_template_refuses_is_the_clients_fault() -> None:
    source = "{% if messages|length > 1 %}{{ raise_exception('one\nat a time') }}{% endif %}a"
    assert template(source).render(MESSAGES[:1]) == "a"
    with pytest.raises(InvalidRequest, match="does not take these messages: one at a time") as no:
        template(source).render(MESSAGES)
    assert no.value.param == "messages"


def test_what_is_rendered_has_a_limit() -> None:
    source = "{% for message in messages %}{{ message.content }}{% endfor %}"
    many = [{"role": "user", "content": "x" * 100}] * 11
    with pytest.raises(InvalidRequest, match="more than 1000 characters") as caught:
        template(source).render(many)
    assert caught.value.param == "messages"
    assert len(template(source).render(many[1:])) == 1000
