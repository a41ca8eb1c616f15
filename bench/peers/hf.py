"""transformers, with and without bitsandbytes' LLM.int8."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import torch
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

from bench.peers import worker

THRESHOLDS = {"bnb-6": 6.0, "bnb-0": 0.0}  # llm_int8_threshold; 0 has no fp16 outlier columns
DTYPES = {"fp32": torch.float32}  # all others compute in bf16


class Transformers:
    """A plain loop over ``forward`` with its cache: a little faster than ``generate``."""

    def __init__(self, directory: Path, variant: str) -> None:
        torch.set_num_threads(worker.THREADS)
        options: dict[str, Any] = {"dtype": DTYPES.get(variant, torch.bfloat16)}
        if variant in THRESHOLDS:
            options["quantization_config"] = BitsAndBytesConfig(
                load_in_8bit=True, llm_int8_threshold=THRESHOLDS[variant]
            )
            options["device_map"] = "cpu"
        self.model = AutoModelForCausalLM.from_pretrained(directory, **options).eval()

    @torch.inference_mode()
    def decode(self, prompts: list[list[int]], new: int) -> float:
        token, cache = self._forward(torch.tensor(prompts), None)
        start = time.perf_counter()
        for _ in range(new):
            token, cache = self._forward(token, cache)
        return time.perf_counter() - start

    @torch.inference_mode()
    def prefill(self, prompt: list[int]) -> float:
        start = time.perf_counter()
        self._forward(torch.tensor([prompt]), None)
        return time.perf_counter() - start

    @torch.inference_mode()
    def score(self, texts: list[list[int]], batch: int) -> float:
        start = time.perf_counter()
        for first in range(0, len(texts), batch):
            ids = torch.tensor(texts[first : first + batch])
            logits = self.model(ids, use_cache=False).logits[:, :-1].float()
            wanted = ids[:, 1:].reshape(-1)
            cross_entropy(logits.flatten(0, 1), wanted, reduction="none")
        return time.perf_counter() - start

    def _forward(self, ids: torch.Tensor, cache: Any) -> tuple[torch.Tensor, Any]:
        out = self.model(ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
        return out.logits[:, -1:].argmax(-1), out.past_key_values


if __name__ == "__main__":
    worker.main(Transformers)
