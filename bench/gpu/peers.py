"""transformers' ``generate`` on the same random weights: fp16, and bitsandbytes' LLM.int8."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import torch

from bench.gpu import harness
from pythia_bento import catalog


def peers(name: str, args: Any) -> Iterator[tuple[str, int, float, int]]:
    """(backend, batch, seconds of the steps after the first, bytes a weight)."""
    for backend, model, size in models(name):
        yield from _measure(backend, model, args, size)


def random_model(name: str) -> Any:
    """transformers' model on the GPU, in fp16."""
    from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

    shape = catalog.config(name)
    config = GPTNeoXConfig(
        vocab_size=shape.vocab_size,
        hidden_size=shape.hidden_size,
        num_hidden_layers=shape.num_layers,
        num_attention_heads=shape.num_heads,
        intermediate_size=shape.intermediate_size,
        max_position_embeddings=shape.max_positions,
        bos_token_id=0,
        eos_token_id=0,
    )
    torch.manual_seed(0)
    with torch.device("cuda"):  # where a billion random numbers take no time
        return GPTNeoXForCausalLM(config).half().eval()


def models(name: str) -> Iterator[tuple[str, Any, int]]:
    """(backend, model on the GPU, bytes a weight), one after the other."""
    model = random_model(name)
    yield "transformers fp16", model, 2
    try:
        import bitsandbytes as bnb
    except ImportError:
        print("bitsandbytes is not installed: its rows are missing")
        return
    for threshold in (6.0, 0.0):
        quantised = copy.deepcopy(model)
        for layer in quantised.gpt_neox.layers:
            for parent in (layer.attention, layer.mlp):
                for key, linear in list(parent.named_children()):
                    if isinstance(linear, torch.nn.Linear):
                        setattr(parent, key, _int8(bnb, linear, threshold))
        label = f"transformers + bitsandbytes, threshold {threshold:.0f}"
        yield label, quantised, 1


def _int8(bnb: Any, linear: torch.nn.Linear, threshold: float) -> Any:
    new = bnb.nn.Linear8bitLt(
        linear.in_features, linear.out_features, has_fp16_weights=False, threshold=threshold
    )
    new.weight = bnb.nn.Int8Params(
        linear.weight.data.cpu(), requires_grad=False, has_fp16_weights=False
    )
    new.bias = torch.nn.Parameter(linear.bias.data.cpu(), requires_grad=False)
    return new.to("cuda")


@torch.inference_mode()
def score_seconds(model: Any, ids: torch.Tensor, batch: int) -> float:
    """Log-probabilities of the texts ``ids`` [N, L], as lm-eval's hf backend computes them."""
    start = harness.now()
    for texts in ids.split(batch):
        values = torch.log_softmax(model(texts, use_cache=False).logits[:, :-1], -1)
        values.gather(2, texts[:, 1:, None]).cpu()
    return harness.now() - start


@torch.inference_mode()
def _measure(
    backend: str, model: Any, args: Any, size: int
) -> Iterator[tuple[str, int, float, int]]:
    for batch in (int(batch) for batch in args.batches.split(",") if int(batch) <= 128):
        ids = torch.randint(1, 50000, (batch, args.prompt), device="cuda")
        times = []
        for new in (2, 1, args.new):
            start = harness.now()
            model.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=new,
                min_new_tokens=new,
                do_sample=False,
                pad_token_id=0,
            )
            times.append(harness.now() - start)
        yield backend, batch, times[2] - times[1], size
