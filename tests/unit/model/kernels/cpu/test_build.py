"""Compiling the CPU kernels: where to, by what, and what is said when it cannot be done."""

from __future__ import annotations

import ctypes
import os
import platform
import sys
from pathlib import Path

import pytest

from pythia_bento.model.kernels.cpu import build


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """Two empty folders in the place of the package's and the user's."""
    places = (tmp_path / "package", tmp_path / "cache")
    monkeypatch.setattr(build, "_folders", lambda: iter(places))
    return places


def compiler_script(folder: Path, monkeypatch: pytest.MonkeyPatch, body: str) -> None:
    script = folder / "compiler"
    script.write_text(f"#!/bin/sh\n{body}\n")
    script.chmod(0o755)
    monkeypatch.setenv("CXX", str(script))


def test_a_library_is_compiled_once(
    folders: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = f'echo called >>{tmp_path}/calls; for last; do :; done; echo library > "$last"'
    compiler_script(tmp_path, monkeypatch, script)
    path = build.library("generic")
    assert path.parent == folders[0]
    assert build.library("generic") == path
    assert (tmp_path / "calls").read_text() == "called\n"


@pytest.mark.long
def test_what_the_compiler_makes_is_a_library_that_works(folders: tuple[Path, Path]) -> None:
    path = build.library("generic")
    assert path.parent == folders[0]
    written = path.stat().st_mtime_ns
    assert build.library("generic") == path
    assert path.stat().st_mtime_ns == written
    library = ctypes.CDLL(str(path))
    library.pythia_open.restype = ctypes.c_void_p
    state = ctypes.c_void_p(library.pythia_open(2, 0))
    assert library.pythia_threads(state) == 2
    library.pythia_close(state)


def test_a_package_that_cannot_be_written_leaves_the_cache(
    folders: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders[0].write_text("a file in the folder's place")
    compiler_script(tmp_path, monkeypatch, 'for last; do :; done; echo library > "$last"')
    assert build.library("generic").parent == folders[1]


def test_a_bento_is_left_as_it_was_built(
    folders: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bento = tmp_path / "bentos/pythia/3hq"
    package = bento / "src/pythia_bento/model/kernels/cpu"
    package.mkdir(parents=True)
    (bento / "bento.yaml").write_text("")
    monkeypatch.setattr(build, "_folders", lambda: iter((package / "lib", folders[1])))
    compiler_script(tmp_path, monkeypatch, 'for last; do :; done; echo library > "$last"')
    assert build.library("generic").parent == folders[1]
    assert list(package.iterdir()) == []


def test_all_libraries_and_no_other_are_copied(
    folders: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiler_script(tmp_path, monkeypatch, 'for last; do :; done; echo "$last" > "$last"')
    target = tmp_path / "lib"
    target.mkdir()
    for stale in ("generic-000000000000", "mips-000000000000"):
        (target / f"pythia-{stale}.so").write_text("old")
    build.copy_libraries(target)
    compiled = {path.name: path.read_text() for path in build.libraries()}
    assert {path.name: path.read_text() for path in target.iterdir()} == compiled
    assert len(compiled) == len(build.variants())


def test_no_folder_at_all_is_said(folders: tuple[Path, Path]) -> None:
    for folder in folders:
        folder.write_text("")
    with pytest.raises(RuntimeError, match="can be written; name one with XDG_CACHE_HOME"):
        build.library("generic")


def test_a_failing_compiler_is_quoted_and_leaves_nothing(
    folders: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiler_script(tmp_path, monkeypatch, "echo no such option >&2; exit 3")
    with pytest.raises(RuntimeError, match=r"compiler.* failed:\nno such option"):
        build.library("generic")
    assert list(folders[0].iterdir()) == []


def test_without_a_compiler_the_way_out_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", os.devnull)
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setattr(build.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(RuntimeError, match="install g\\+\\+ or clang, or `pip install ziglang`"):
        build.compiler()
    monkeypatch.setattr(build.importlib.util, "find_spec", lambda name: object())
    assert build.compiler() == build.ZIG == [sys.executable, "-m", "ziglang", "c++"]


def test_main_removes_what_older_sources_left(
    folders: tuple[Path, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    compiler_script(tmp_path, monkeypatch, 'for last; do :; done; echo library > "$last"')
    folders[0].mkdir()
    (folders[0] / "pythia-generic-000000000000.so").write_text("old")
    build.main()
    names = {path.name for path in folders[0].iterdir()}
    assert len(names) == len(build.variants())
    assert "pythia-generic-000000000000.so" not in names
    printed = capsys.readouterr().out
    assert all(name in printed for name in names)


def test_only_what_this_machine_runs(
    folders: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiler_script(tmp_path, monkeypatch, 'for last; do :; done; echo library > "$last"')
    folders[0].mkdir()
    kept = folders[0] / build.library("generic").name
    build.main(["--native"])
    best = build.library(build.supported()[0])
    assert {path.name for path in folders[0].iterdir()} == {best.name, kept.name}


def test_a_machine_without_cpu_flags_runs_the_generic_kernels(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(build, "_cpu_flags", set)
    assert build.supported() == ["generic"]


def test_ziglang_links_no_library_of_cxx(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "compiler", lambda: build.ZIG)
    compile_, link = build.commands("generic", "kernels.so")
    assert [compile_, link] == build.zig_commands("generic", "kernels.so", platform.machine())
    assert compile_[3] == "c++" and "-c" in compile_ and "-DPYTHIA_LINKS_NO_CXX" in compile_
    assert link[3] == "cc" and {"-nostdlib", "-Wl,-z,defs"} <= set(link)
    assert link[-1] == "kernels.so"


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_ziglang_compiles_for_the_variant_and_not_for_this_processor(machine: str) -> None:
    for command in build.zig_commands("generic", "kernels.so", machine):
        assert command[command.index("-target") + 1] == f"{machine}-linux-gnu.2.28"
        assert not [part for part in command if part.startswith(("-march", "-mcpu", "-mavx"))]


def test_libraries_of_two_architectures_have_names_of_their_own() -> None:
    assert [*build.variants("x86_64")] == ["amx", "avx512", "avxvnni", "avx2", "generic"]
    assert [*build.variants("aarch64")] == ["generic"]
    names = {build.file_name("generic", machine) for machine in ("x86_64", "aarch64")}
    assert len(names) == 2
