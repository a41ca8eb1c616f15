"""What transformers has at our sites, by hooks on its own modules."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from pythia_bento.model.sites import SITES, Place
from tests.later import transformers
from tests.taps import Change


class TheirSites:
    """Hooks that copy, and change in place; of passes over one sequence."""

    def __init__(self, model: transformers.GPTNeoXForCausalLM, changes: Mapping[str, Change]):
        self.found: dict[str, Tensor] = {}
        self._heads = model.config.num_attention_heads
        self._changes = changes
        self._handles: list[Any] = []
        inner = model.gpt_neox
        self._after(inner.embed_in, "hook_embed")
        for index, layer in enumerate(inner.layers):
            name = f"blocks.{index}."
            self._before(layer, name + "hook_resid_pre")
            qkv = layer.attention.query_key_value
            self._handles.append(qkv.register_forward_hook(self._qkv(name)))
            self._before(layer.attention.dense, name + "attn.hook_z", self._heads)
            self._after(layer.attention.dense, name + "hook_attn_out")
            self._before(layer.mlp.dense_4h_to_h, name + "mlp.hook_post")
            self._after(layer.mlp.dense_4h_to_h, name + "hook_mlp_out")
            self._after(layer, name + "hook_resid_post")
        self._after(inner.final_layer_norm, "ln_final.hook_normalized")

    def remove(self) -> None:
        """Leave the model as it was."""
        for handle in self._handles:
            handle.remove()

    def _see(self, name: str, rows: Tensor) -> None:
        self.found[name] = rows.clone()
        if change := self._changes.get(name):
            change(rows)

    def _before(self, module: Any, name: str, heads: int = 0) -> None:
        def hook(module: Any, inputs: tuple[Tensor, ...]) -> None:
            rows = inputs[0][0]
            self._see(name, rows.view(len(rows), heads, -1) if heads else rows)

        self._handles.append(module.register_forward_pre_hook(hook))

    def _after(self, module: Any, name: str) -> None:
        def hook(module: Any, inputs: Any, output: Tensor) -> None:
            self._see(name, output[0])

        self._handles.append(module.register_forward_hook(hook))

    def _qkv(self, name: str) -> Any:
        def hook(module: Any, inputs: Any, output: Tensor) -> None:
            rows = output[0].view(output.shape[1], self._heads, 3, -1)
            for index, letter in enumerate("qkv"):
                self._see(f"{name}attn.hook_{letter}", rows[:, :, index])

        return hook


@contextmanager
def watched(
    model: transformers.GPTNeoXForCausalLM, changes: Mapping[str, Change] | None = None
) -> Iterator[dict[str, Tensor]]:
    """What the passes of the context find, by the names of places, without patterns."""
    sites = TheirSites(model, changes or {})
    try:
        yield sites.found
    finally:
        sites.remove()


@torch.no_grad()
def all_sites(model: transformers.GPTNeoXForCausalLM, ids: list[int]) -> dict[str, Tensor]:
    """Of every place [tokens, ...]; the residual stream and patterns as transformers gives them."""
    with watched(model) as found:
        output = model(
            torch.tensor([ids]), use_cache=False, output_hidden_states=True, output_attentions=True
        )
    for index, weights in enumerate(output.attentions):
        found[f"blocks.{index}.attn.hook_pattern"] = weights[0].transpose(0, 1)
    *streams, last = (states[0] for states in output.hidden_states)
    for index, states in enumerate(streams):
        found[f"blocks.{index}.hook_resid_pre"] = states
    for index, states in enumerate(streams[1:]):
        found[f"blocks.{index}.hook_resid_post"] = states
    found["hook_embed"], found["ln_final.hook_normalized"] = streams[0], last
    return found


def all_names(layers: int) -> set[str]:
    """Of all places of a model."""
    return {
        Place(site, layer).name
        for site in SITES
        for layer in range(layers if site.is_in_layer else 1)
    }
