"""Where the inside of a forward pass can be read and changed.

Names are TransformerLens'. Pythia's residual is parallel: there is no ``hook_resid_mid``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from pythia_bento.errors import InvalidRequest, shown
from pythia_bento.model.config import ModelConfig

Kind = Literal["hidden", "heads", "inner", "keys"]


@dataclass(frozen=True, slots=True)
class Site:
    """A kind of activation; of most there is one in each layer."""

    name: str  # in a layer without "blocks.<layer>."
    kind: Kind
    """Of a position: "hidden" [H], "heads" [heads, head_dim], "inner" [intermediate], "keys"
    [heads, keys], which are the positions up to its own."""
    is_in_layer: bool = True
    is_writable: bool = True


EMBED = Site("hook_embed", "hidden", is_in_layer=False)
RESID_PRE = Site("hook_resid_pre", "hidden")
Q = Site("attn.hook_q", "heads")
"""Before rotation, as ``K`` is."""
K = Site("attn.hook_k", "heads")
V = Site("attn.hook_v", "heads")
PATTERN = Site("attn.hook_pattern", "keys", is_writable=False)
Z = Site("attn.hook_z", "heads")
ATTN_OUT = Site("hook_attn_out", "hidden")
POST = Site("mlp.hook_post", "inner")
MLP_OUT = Site("hook_mlp_out", "hidden")
RESID_POST = Site("hook_resid_post", "hidden")
NORMALIZED = Site("ln_final.hook_normalized", "hidden", is_in_layer=False, is_writable=False)
"""The final norm with its weight and bias: what the head multiplies."""

SITES = (*(EMBED, RESID_PRE, Q, K, V, PATTERN, Z, ATTN_OUT, POST, MLP_OUT, RESID_POST, NORMALIZED),)
_BY_NAME = {site.name: site for site in SITES}
_LAYER = r"\*|\d{1,4}|\{(\d{1,4})\.\.(\d{1,4})\}"
_IN_LAYER = re.compile(rf"blocks\.({_LAYER})\.(.+)", re.ASCII)


@dataclass(frozen=True, slots=True)
class Place:
    """A site of one layer."""

    site: Site
    layer: int = 0  # 0 too for a site that is in no layer

    @property
    def name(self) -> str:
        """The whole name."""
        prefix = f"blocks.{self.layer}." if self.site.is_in_layer else ""
        return prefix + self.site.name

    def shape(self, config: ModelConfig) -> tuple[int, ...]:
        """Of one position; of "keys" the heads alone."""
        heads = config.num_heads
        return {
            "hidden": (config.hidden_size,),
            "heads": (heads, config.head_dim),
            "inner": (config.intermediate_size,),
            "keys": (heads,),
        }[self.site.kind]


def places(pattern: str, num_layers: int, field: str) -> tuple[Place, ...]:
    """The places that a pattern names, by layer: ``*`` and ``{a..b}`` (both ends) stand for layers.

    Raises InvalidRequest, whose sentence begins with ``field``.
    """
    found = _IN_LAYER.fullmatch(pattern)
    site = _BY_NAME.get(found[4] if found else pattern)
    if site is None or site.is_in_layer != bool(found):
        raise _unknown(pattern, field)
    if found is None:
        return (Place(site),)
    if found[1] == "*":
        layers = range(num_layers)
    elif found[2]:
        layers = range(int(found[2]), int(found[3]) + 1)
    else:
        layers = range(int(found[1]), int(found[1]) + 1)
    if not layers or layers[-1] >= num_layers:
        raise InvalidRequest(
            f"{field} is {shown(pattern)}, but the model's layers are 0 to {num_layers - 1}",
            param=field,
        )
    return tuple(Place(site, layer) for layer in layers)


def _unknown(pattern: str, field: str) -> InvalidRequest:
    names = ", ".join(f"blocks.*.{s.name}" if s.is_in_layer else s.name for s in SITES)
    is_mid = pattern.endswith("hook_resid_mid")
    what = "no site of a model with a parallel residual" if is_mid else "no site"
    words = f"{field} is {shown(pattern)}, which is {what}; sites are {names}"
    return InvalidRequest(words, param=field)
