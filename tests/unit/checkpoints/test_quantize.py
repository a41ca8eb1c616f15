"""Quantisation as bitsandbytes does it, and 8-bit files as transformers writes them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from pythia_bento.checkpoints import quantize
from pythia_bento.checkpoints.config_file import read_config
from pythia_bento.checkpoints.quantize import CheckpointWeights, quantize_rows
from pythia_bento.errors import CheckpointError
from tests.later import bitsandbytes
from tests.models import dequantize, random_checkpoint
from tests.unit.checkpoints.conftest import edit

DENSE = "gpt_neox.layers.1.attention.dense"


def weights(directory: Path) -> CheckpointWeights:
    return CheckpointWeights(directory, read_config(directory / "config.json"))


def int8(tensors: dict[str, Tensor], name: str) -> None:
    """Replace one float weight by bitsandbytes' tensors."""
    weight, scb = quantize_rows(tensors[f"{name}.weight"])
    tensors[f"{name}.weight"], tensors[f"{name}.SCB"] = weight, scb
    tensors[f"{name}.weight_format"] = torch.tensor(0, dtype=torch.uint8)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_the_same_integers_as_linear8bitlt(dtype: torch.dtype) -> None:
    weight = (torch.randn(70, 48, generator=torch.Generator().manual_seed(0)) * 3).to(dtype)
    before = weight.clone()
    quantized, scb = quantize_rows(weight)
    theirs = bitsandbytes.nn.Int8Params(weight.clone(), requires_grad=False).to("cpu")
    assert torch.equal(quantized, theirs.CB)
    assert torch.equal(scb, theirs.SCB)
    assert torch.equal(weight, before)
    assert quantized.dtype == torch.int8
    assert scb.dtype == torch.float32


def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    weight = torch.randn(37, 16, generator=torch.Generator().manual_seed(0)).half()
    whole = quantize_rows(weight)
    monkeypatch.setattr(quantize, "_CHUNK", 5 * 16)
    assert all(map(torch.equal, whole, quantize_rows(weight)))


def test_a_row_of_zeros_is_zeros() -> None:
    quantized, scb = quantize_rows(torch.tensor([[0.0, 0.0], [1.0, -0.5]]))
    assert quantized.tolist() == [[0, 0], [127, -64]]
    assert scb.tolist() == [0.0, 1.0]


@pytest.mark.parametrize("head_dim", [32, 64, 80, 128, 256])
def test_every_head_size_by_shape(tmp_path: Path, head_dim: int) -> None:
    path = random_checkpoint(tmp_path / "model", layers=1, heads=2, head_dim=head_dim, vocab=290)
    source, hidden = weights(path), 2 * head_dim
    layer = source.layer(0)
    assert source.config.head_dim == head_dim
    assert layer.qkv.weight.shape == (3 * hidden, hidden)
    assert layer.dense.weight.shape == (hidden, hidden)
    assert layer.up.weight.shape == (4 * hidden, hidden)
    assert layer.down.weight.shape == (hidden, 4 * hidden)
    assert source.embedding().shape == source.head().weight.shape == (290, hidden)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_all_but_the_linears_becomes_fp16(tmp_path: Path, dtype: torch.dtype) -> None:
    source = weights(random_checkpoint(tmp_path / "model", heads=1, dtype=dtype))
    layer, head = source.layer(1), source.head()
    halves = [source.embedding(), head.weight, head.norm.weight, head.norm.bias]
    halves += [layer.input_norm.weight, layer.post_attention_norm.bias, layer.up.bias]
    assert {tensor.dtype for tensor in halves} == {torch.float16}
    assert not source.reader.quantized


def test_a_linear_is_near_its_float_weight(original: Path) -> None:
    source = weights(original)
    stored = source.reader.tensor(f"{DENSE}.weight").float()
    dense = source.layer(1).dense
    error = (dequantize(dense) - stored).abs()
    # Half a step, and the rounding of 127 / absmax * w to fp32.
    assert bool((error <= dense.scb[:, None] / 254 * 1.0001).all())


def test_stored_int8_is_read_as_it_is(original: Path, copy: Path) -> None:
    edit(copy, lambda tensors: int8(tensors, DENSE))
    ours, theirs = weights(copy).layer(1).dense, weights(original).layer(1).dense
    assert torch.equal(ours.weight, theirs.weight)
    assert torch.equal(ours.scb, theirs.scb)


def test_int8_of_old_files_may_lack_the_format(copy: Path) -> None:
    edit(copy, lambda tensors: int8(tensors, DENSE))
    edit(copy, lambda tensors: {k: v for k, v in tensors.items() if "weight_format" not in k})
    assert weights(copy).layer(1).dense.weight.dtype == torch.int8


def test_a_quantised_head_is_dequantised(original: Path, copy: Path) -> None:
    edit(copy, lambda tensors: int8(tensors, "embed_out"))
    head, full = weights(copy).head().weight, weights(original).head().weight.float()
    assert head.dtype == torch.float16
    step = full.abs().amax(1, keepdim=True) / 127  # half of it, and rounding to fp16
    assert bool(((head.float() - full).abs() <= step * 0.57).all())


def test_int8_without_scales_is_named(copy: Path) -> None:
    edit(copy, lambda tensors: int8(tensors, DENSE))
    edit(copy, lambda tensors: {k: v for k, v in tensors.items() if not k.endswith("SCB")})
    with pytest.raises(CheckpointError, match=rf"{DENSE}.weight without SCB"):
        weights(copy).layer(1)


def test_another_row_order_is_refused(copy: Path) -> None:
    def turing(tensors: dict[str, Tensor]) -> None:
        int8(tensors, DENSE)
        tensors[f"{DENSE}.weight_format"] = torch.tensor(2, dtype=torch.uint8)

    edit(copy, turing)
    with pytest.raises(CheckpointError, match=r"weight_format 2; only 0 \(by row\)"):
        weights(copy).layer(1)


@pytest.mark.parametrize(
    "name",
    [f"{DENSE}.weight", f"{DENSE}.bias", "gpt_neox.embed_in.weight", "embed_out.weight"],
)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), 70000.0])
def test_values_beyond_fp16_are_named(tmp_path: Path, name: str, value: float) -> None:
    path = random_checkpoint(tmp_path / "model", heads=1, dtype=torch.float32)

    def spoil(tensors: dict[str, Tensor]) -> None:
        tensors[name].view(-1)[3] = value

    edit(path, spoil)
    source = weights(path)
    with pytest.raises(CheckpointError, match="not finite in fp16") as caught:
        source.embedding(), source.layer(1), source.head()
    assert name in str(caught.value)


MEASURE = """
import json, re, sys
from pathlib import Path
import torch
from pythia_bento.checkpoints.checkpoint import load_checkpoint

def memory(field):  # ru_maxrss would begin at the parent's
    status = Path("/proc/self/status").read_text()
    return int(re.search(field + r":\\s+(\\d+) kB", status)[1]) * 1024

torch.set_num_threads(1)
small = load_checkpoint(sys.argv[1]).source  # imports and warms up everything
small.layer(0), small.embedding(), small.head()
before = memory("VmRSS")
source = load_checkpoint(sys.argv[2]).source
kept = [source.embedding().clone()]
for index in range(source.config.num_layers):
    layer = source.layer(index)
    kept += [linear.weight for linear in (layer.qkv, layer.dense, layer.up, layer.down)]
    del layer
kept.append(source.head().weight.clone())
print(json.dumps({"kept": sum(t.nbytes for t in kept), "grown": memory("VmHWM") - before}))
"""


@pytest.mark.long
def test_loading_peaks_little_above_what_is_kept(original: Path, tmp_path: Path) -> None:
    """An fp32 file of 220 MB becomes 64 MB; the file's pages must not pile up."""
    path = random_checkpoint(
        tmp_path / "model", layers=16, heads=8, head_dim=64, vocab=2000, dtype=torch.float32
    )
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, original, path],
        check=True,
        capture_output=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"},
    )
    measured = json.loads(done.stdout.splitlines()[-1])
    stored = (path / "model.safetensors").stat().st_size
    assert measured["kept"] > 50e6
    assert measured["kept"] < stored / 3
    assert measured["grown"] < 1.5 * measured["kept"] + 30e6
