"""The reference backend: its matmuls, attention over pages, sampling and log-probabilities."""

from __future__ import annotations

import logging
import math
import threading
from pathlib import Path

import pytest
import torch
from torch import Tensor

from pythia_bento.checkpoints.config_file import read_config
from pythia_bento.checkpoints.quantize import CheckpointWeights, quantize_rows
from pythia_bento.model.config import ModelConfig
from pythia_bento.model.gpt_neox import GPTNeoX
from pythia_bento.model.kernels import create
from pythia_bento.model.kernels.reference.kernels import ReferenceKernels
from pythia_bento.model.kernels.reference.linear import THRESHOLD, LLMInt8, WeightOnly
from pythia_bento.model.kernels.reference.llm_int8 import LLMInt8Kernels
from pythia_bento.model.sampling import choose
from pythia_bento.model.sampling_row import SamplingRow
from pythia_bento.model.weights import Int8Linear
from tests.forward import Driver
from tests.later import bitsandbytes
from tests.models import dequantize, random_checkpoint

CPU = torch.device("cpu")
CONFIG = ModelConfig(2, 64, 2, 256, 300, 256, 8)


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> CheckpointWeights:
    path: Path = random_checkpoint(tmp_path_factory.mktemp("model"), heads=2)
    return CheckpointWeights(path, read_config(path / "config.json"))


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def float_weight() -> Tensor:
    return torch.randn(48, 64, generator=generator()).half()


def linear() -> Int8Linear:
    weight, scb = quantize_rows(float_weight())
    return Int8Linear(weight, scb, torch.randn(48, generator=generator()).half())


def activations(outlier: float = 20.0) -> Tensor:
    """One column goes beyond LLM.int8's threshold in one row."""
    x = torch.randn(5, 64, generator=generator())
    x[2, 7] = outlier
    return x


def test_weight_only_is_the_product_with_the_dequantised_weight() -> None:
    one, x = linear(), activations()
    expected = x.double() @ dequantize(one).double().T + one.bias.double()
    torch.testing.assert_close(WeightOnly(one, CPU)(x).double(), expected, rtol=1e-5, atol=1e-4)


def test_llm_int8_is_what_linear8bitlt_computes() -> None:
    one, x = linear(), activations()
    theirs = bitsandbytes.nn.Linear8bitLt(64, 48, has_fp16_weights=False, threshold=THRESHOLD)
    theirs.weight = bitsandbytes.nn.Int8Params(float_weight(), requires_grad=False)
    theirs.bias = torch.nn.Parameter(one.bias.clone(), requires_grad=False)
    expected = theirs.to("cpu").eval()(x.half())
    found = LLMInt8(one, CPU)(x.half())
    assert found.dtype == torch.float16
    assert torch.equal(found, expected)


def test_llm_int8_depends_on_the_other_rows() -> None:
    """Why ``batch_invariant`` is False: a neighbour's outlier changes how a column is computed."""
    product = LLMInt8(linear(), CPU)
    with_outlier, without = product(activations(20.0).half()), product(activations(1.0).half())
    assert not torch.equal(with_outlier[0], without[0])


def test_llm_int8_logs_nothing(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        LLMInt8(linear(), CPU)(activations().half())
    assert caplog.records == []


def test_llm_int8_changes_neither_its_input_nor_its_weights() -> None:
    one, x = linear(), activations().half()
    product = LLMInt8(one, CPU)
    first = product(x)
    assert torch.equal(x, activations().half())
    assert torch.equal(product(x), first)


def test_llm_int8_serves_several_threads() -> None:
    product = LLMInt8(linear(), CPU)
    inputs = [activations(outlier).half() for outlier in (0.0, 7.0, 20.0, 50.0)]
    expected = [product(x) for x in inputs]
    failures: list[int] = []

    def work(index: int) -> None:
        for _ in range(50):
            if not torch.equal(product(inputs[index]), expected[index]):
                failures.append(index)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(len(inputs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def test_llm_int8_is_near_weight_only_over_a_whole_model(source: CheckpointWeights) -> None:
    prompt = torch.randint(2, 260, (40,), generator=generator()).tolist()
    logits = {}
    for matmul in ("w8a16", "llm-int8"):
        model = GPTNeoX(source, create("reference", source.config, CPU, matmul))
        logits[matmul] = Driver(model, [prompt], 1).prefill_logits(0)
    difference = logits["w8a16"].log_softmax(1) - logits["llm-int8"].log_softmax(1)
    assert 0 < difference.abs().max() < 0.3


def test_progress_counts_parts(source: CheckpointWeights) -> None:
    done: list[tuple[int, int]] = []
    GPTNeoX(source, ReferenceKernels(source.config, CPU), lambda *step: done.append(step))
    assert done == [(1, 4), (2, 4), (3, 4), (4, 4)]


@pytest.mark.parametrize("kind", [ReferenceKernels, LLMInt8Kernels])
def test_the_cache_costs_what_is_announced(kind: type[ReferenceKernels]) -> None:
    kernels = kind(CONFIG, CPU)
    cache = kernels.allocate_cache(7)
    assert cache.num_blocks == 7
    assert cache.nbytes == 7 * kernels.kv_bytes_per_block()


def test_weights_are_copies(source: CheckpointWeights) -> None:
    kernels, weight = ReferenceKernels(CONFIG, CPU), torch.ones(300, 64).half()
    table = kernels.load_embedding(weight)
    weight.zero_()
    ids = torch.tensor([3, 0, 299], dtype=torch.int32)
    assert torch.equal(kernels.embed(table, ids), torch.ones(3, 64))


def random_logits(rows: int) -> Tensor:
    return torch.randn(rows, 300, generator=generator()) * 4


def test_each_row_is_sampled_by_the_shared_definition() -> None:
    logits = random_logits(4)
    rows = [
        SamplingRow(3, temperature=0),
        SamplingRow(4, temperature=0.7, seed=9),
        SamplingRow(5, top_k=10, top_p=0.9, min_p=0.01, seed=2**64 - 1),
        SamplingRow(6, temperature=0, bias=((17, 1e9),)),
    ]
    chosen = ReferenceKernels(CONFIG, CPU).sample(logits, rows, 260)
    assert chosen.dtype == torch.int32
    expected = [choose(logits[i], row, 260) for i, row in enumerate(rows)]
    assert chosen.tolist() == expected
    assert expected[3] == 17


def test_log_probabilities_are_over_all_ids() -> None:
    logits = random_logits(3)
    chosen = torch.tensor([5, 299, 0], dtype=torch.int32)
    result = ReferenceKernels(CONFIG, CPU).logprobs(logits, chosen, 6)
    expected = logits.double().log_softmax(1)
    values = expected.gather(1, chosen.long()[:, None])[:, 0]
    torch.testing.assert_close(result.chosen.double(), values, rtol=0, atol=1e-5)
    top = expected.topk(6)
    assert torch.equal(result.top_ids.long(), top.indices)
    torch.testing.assert_close(result.top.double(), top.values, rtol=0, atol=1e-5)


def test_the_greedy_choice_and_the_best_are_the_same_float() -> None:
    kernels, logits = ReferenceKernels(CONFIG, CPU), random_logits(8)
    greedy = kernels.sample(logits, [SamplingRow(0, temperature=0)] * 8, 300)
    result = kernels.logprobs(logits, greedy, 1)
    assert torch.equal(result.chosen, result.top[:, 0])
    assert torch.equal(result.top_ids[:, 0], greedy)


def test_equal_log_probabilities_are_ordered_by_id() -> None:
    logits = torch.zeros(1, 300)
    logits[0, [7, 250]] = 1.0
    result = ReferenceKernels(CONFIG, CPU).logprobs(logits, torch.tensor([0]), 5)
    assert result.top_ids.tolist() == [[7, 250, 0, 1, 2]]


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_non_finite_row_fails_alone(bad: float) -> None:
    kernels, logits = ReferenceKernels(CONFIG, CPU), random_logits(3)
    logits[1, 200] = bad
    rows = [SamplingRow(0, temperature=0)] * 3
    greedy = kernels.sample(logits, rows, 260)
    assert (greedy == -1).tolist() == [False, True, False]
    result = kernels.logprobs(logits, greedy, 2)
    assert result.chosen.isnan().tolist() == [False, True, False]
    assert result.top.isnan().any(1).tolist() == [False, True, False]


def test_backends_by_name() -> None:
    assert create("reference", CONFIG, CPU, "llm-int8").matmul == "llm-int8"
    assert create("cpu", CONFIG, CPU).name == "cpu"
    with pytest.raises(ValueError, match="the cpu backend computes w8a16, not llm-int8"):
        create("cpu", CONFIG, CPU, "llm-int8")
    with pytest.raises(ValueError, match="'w4'; it can be w8a16 or llm-int8"):
        create("reference", CONFIG, CPU, "w4")
    with pytest.raises(ValueError, match="no kernel backend is called 'tpu'"):
        create("tpu", CONFIG, CPU)
