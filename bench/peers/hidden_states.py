"""transformers' ``output_hidden_states``: what who wants to look inside runs today."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

from bench.gpu import harness
from pythia_bento.hardware import usable_cores
from pythia_bento.model.config import ModelConfig


class HiddenStates:
    """Random weights in a shape, all cores, and prompts of one length at a time."""

    def __init__(self, config: ModelConfig, device: torch.device, dtype: torch.dtype) -> None:
        theirs = GPTNeoXConfig(
            vocab_size=config.vocab_size,
            hidden_size=config.hidden_size,
            num_hidden_layers=config.num_layers,
            num_attention_heads=config.num_heads,
            intermediate_size=config.intermediate_size,
            max_position_embeddings=config.max_positions,
        )
        with device:  # where a billion random numbers take no time
            self._model = GPTNeoXForCausalLM(theirs).to(dtype).eval()
        self._device = device
        self._hosts: list[torch.Tensor] = []  # locked, and used again: the fastest way there is

    @torch.inference_mode()
    def seconds(self, prompts: Sequence[Sequence[int]]) -> float:
        """Until log-probabilities and all layers' states are on the host, fp32."""
        before = torch.get_num_threads()
        torch.set_num_threads(usable_cores())
        try:
            start = harness.now()
            ids = torch.tensor([*prompts], device=self._device)
            found = self._model(ids, output_hidden_states=True, use_cache=False)
            scores = found.logits[:, :-1].float().log_softmax(-1)
            self._fetch([scores.gather(-1, ids[:, 1:, None]), *found.hidden_states])
            return harness.now() - start
        finally:
            torch.set_num_threads(before)

    def _fetch(self, found: Sequence[torch.Tensor]) -> None:
        """All of it to the host in fp32, behind one wait."""
        if self._device.type == "cpu":
            for one in found:
                one.float().numpy()
            return
        if [one.shape for one in found] != [one.shape for one in self._hosts]:
            self._hosts = [torch.empty(one.shape, pin_memory=True) for one in found]
        for host, one in zip(self._hosts, found, strict=True):
            host.copy_(one.float(), non_blocking=True)
        torch.cuda.synchronize(self._device)
