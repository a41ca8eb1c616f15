"""The installer's decisions: what uv is told, and what is shown when a command fails."""

from __future__ import annotations

import sys

import pytest

from tests.tools import tool

install = tool("install")

LISTED = """\
:env:.find-links='/wheels\\n/more wheels'
:env:.disable-pip-version-check='1'
global.extra-index-url='file:///one/simple file:///two/simple'
global.find-links='/elsewhere'
global.index-url='https://mirror.example/packages'
install.index-url="https://it's.example/packages"
download.index-url='https://no.example/packages'
"""


@pytest.fixture(autouse=True)
def untold(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*install.PLACES.values(), *install.WAYS.values(), "UV_INDEX_STRATEGY"):
        monkeypatch.delenv(name, raising=False)


def test_variables_win_over_files_and_commands_over_all_of_them() -> None:
    settings = install.pip_settings(LISTED)
    assert settings["find-links"] == "/wheels\n/more wheels"
    assert settings["index-url"] == "https://it's.example/packages"
    assert settings["extra-index-url"] == "file:///one/simple file:///two/simple"


def test_uv_looks_where_pip_looks() -> None:
    assert install.uv_settings(install.pip_settings(LISTED)) == {
        "UV_DEFAULT_INDEX": "https://it's.example/packages",
        "UV_INDEX": "file:///one/simple file:///two/simple",
        "UV_FIND_LINKS": "/wheels,/more,wheels",
        "UV_INDEX_STRATEGY": "unsafe-best-match",
    }
    assert install.uv_settings({}) == {}


def test_what_uv_was_told_itself_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UV_INDEX", "https://mine.example/packages")
    assert "UV_INDEX" not in install.uv_settings(install.pip_settings(LISTED))


def test_pytorchs_index_is_asked_where_nobody_names_a_place() -> None:
    assert install.torch_options("torch==2.13.0", {"SSL_CERT_FILE": "/a"}) == [
        "--torch-backend=auto"
    ]
    assert install.torch_options("torch==2.13.0", {"UV_FIND_LINKS": "/wheels"}) == []
    for asked in (
        "./torch.whl",
        "torch==2.13.0+cpu",
        "torch==2.13.0 --index-url https://a.example",
    ):
        assert install.torch_options(asked, {}) == []


def test_an_index_that_does_not_answer_is_not_the_end(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[tuple[object, ...]] = []

    class Offline(install.Installer):
        def __init__(self) -> None:
            self.settings = {}

        def install(self, *arguments: object, **environment: object) -> None:
            asked.append(arguments)
            if "--torch-backend=auto" in arguments:
                raise install.Failed("no such host")

    Offline().install_torch("torch==2.13.0")
    assert asked == [("torch==2.13.0", "--torch-backend=auto"), ("torch==2.13.0",)]
    assert "does not answer" in capsys.readouterr().out
    with pytest.raises(install.Failed):
        Offline().install_torch("./torch.whl --torch-backend=auto")


def test_what_a_command_prints_is_shown_when_it_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHIA_MODEL", "/nowhere")
    show = "import os; print(os.environ.get('PYTHIA_MODEL'), os.environ['MORE'])"
    assert install.Command(sys.executable, "-c", show, MORE="more").wait() == "None more\n"
    with pytest.raises(install.Failed, match=r"(?s)^said\n.*ended with status 3$"):
        install.Command(sys.executable, "-c", "print('said'); raise SystemExit(3)").wait()
