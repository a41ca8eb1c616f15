from __future__ import annotations

import gc

import pytest

from pythia_bento.runtime.importing import without_collections


def test_nothing_is_collected_meanwhile_and_everything_afterwards() -> None:
    assert gc.isenabled()
    with pytest.raises(ImportError), without_collections():
        assert not gc.isenabled()
        raise ImportError("no such module")
    assert gc.isenabled()


def test_who_collects_nothing_is_left_so() -> None:
    gc.disable()
    try:
        with without_collections():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()
