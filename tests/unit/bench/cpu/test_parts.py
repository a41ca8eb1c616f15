from __future__ import annotations

from types import SimpleNamespace

from bench.cpu import parts
from bench.cpu.race import tasks
from pythia_bento import catalog


def test_calls_are_counted_and_answered() -> None:
    library = SimpleNamespace(**{name: lambda *numbers: sum(numbers) for name in parts.PARTS})
    found = parts.Parts(library)
    assert library.pythia_attend(1, 2) == 3
    assert library.pythia_scores(4) == 4
    assert {name: calls for name, calls in found.calls.items() if calls} == {
        "pythia_attend": 1,
        "pythia_scores": 1,
    }
    found.clear()
    assert not any(found.calls.values())


def test_a_table_has_what_was_called() -> None:
    found = parts.Parts(SimpleNamespace(**dict.fromkeys(parts.PARTS)))
    found.seconds |= {"pythia_project_in": 0.25, "pythia_attend": 0.75}
    found.calls |= {"pythia_project_in": 12, "pythia_attend": 12}
    lines = parts.table("pythia-160m", tasks("")[0], found, 0.5).splitlines()
    assert lines[1] == "pythia-160m, decode, batch 1: 500.0 ms measured"
    assert "norms, qkv, up, GELU" in lines[2]
    assert " 25%     12 calls   20833.3 us each    0.2 GB/s" in lines[2]
    assert lines[3].split()[:4] == ["attention", "750.0", "ms", "75%"]
    assert len(lines) == 4


def test_a_layer_is_read_by_its_two_parts() -> None:
    config = catalog.config("pythia-160m")
    read = sum(
        parts.weights_of(name, config) for name in ("pythia_project_in", "pythia_project_out")
    )
    assert read * config.num_layers == catalog.linear_weights(config)
