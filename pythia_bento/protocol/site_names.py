"""What other libraries call the sites of a forward pass; ours have TransformerLens' names.

``#`` stands for a layer: a number, ``*``, or ``{a..b}``. Where a library has no name for a site, or
gives the same name to another tensor, the site keeps its own. Where the names were read:

- ``transformers`` 5.23, models/gpt_neox/modeling_gpt_neox.py: modules by the tensor that they
  return, and ``hidden_states`` and ``attentions`` of its answers.
- ``nnterp``, nnterp/standardized_transformer.py at 142130b.
- ``interp-engine``, docs/ENGINE_HOOK_MAPPINGS.md at 63e28d5. Its ``attn_in`` and ``mlp_in`` are
  what norms return, which is no site; its ``value`` and ``z`` are the same numbers, heads joined.
"""

from __future__ import annotations

import re
from typing import Literal

from pythia_bento.errors import InvalidRequest, shown

Names = Literal["transformer-lens", "transformers", "nnterp", "interp-engine"]
OURS: Names = "transformer-lens"

# By our name: theirs, of which the first is the one that answers have.
_TABLE: dict[Names, dict[str, tuple[str, ...]]] = {
    OURS: {},
    "transformers": {
        "hook_embed": ("gpt_neox.embed_in",),
        "blocks.#.hook_resid_pre": ("hidden_states[#]",),
        "blocks.#.attn.hook_pattern": ("attentions[#]",),
        "blocks.#.hook_attn_out": (
            "gpt_neox.layers.#.attention",
            "gpt_neox.layers.#.attention.dense",
        ),
        "blocks.#.mlp.hook_post": ("gpt_neox.layers.#.mlp.act",),
        "blocks.#.hook_mlp_out": ("gpt_neox.layers.#.mlp", "gpt_neox.layers.#.mlp.dense_4h_to_h"),
        "blocks.#.hook_resid_post": ("gpt_neox.layers.#",),
        "ln_final.hook_normalized": ("gpt_neox.final_layer_norm", "hidden_states[-1]"),
    },
    "nnterp": {
        "hook_embed": ("token_embeddings",),
        "blocks.#.hook_resid_pre": ("layers_input[#]",),
        "blocks.#.attn.hook_pattern": ("attention_probabilities[#]",),
        "blocks.#.hook_attn_out": ("attentions_output[#]",),
        "blocks.#.hook_mlp_out": ("mlps_output[#]",),
        "blocks.#.hook_resid_post": ("layers_output[#]",),
        "ln_final.hook_normalized": ("ln_final.output",),
    },
    "interp-engine": {
        "hook_embed": ("embeddings",),
        "blocks.#.hook_resid_pre": ("resid_pre.#",),
        "blocks.#.attn.hook_v": ("value.#",),
        "blocks.#.attn.hook_pattern": ("attn_probs.#",),
        "blocks.#.attn.hook_z": ("z.#",),
        "blocks.#.hook_attn_out": ("attn_out.#", "attn_out_post.#"),
        "blocks.#.mlp.hook_post": ("mlp_act.#",),
        "blocks.#.hook_mlp_out": ("mlp_out.#", "mlp_out_post.#"),
        "blocks.#.hook_resid_post": ("resid_post.#",),
        "ln_final.hook_normalized": ("final_norm",),
    },
}
_LAYER = re.compile(r"(?<=[.\[])(\*|\d{1,4}|\{\d{1,4}\.\.\d{1,4}\})(?=[.\]]|$)")
_FORWARD = {
    names: {ours: theirs[0] for ours, theirs in table.items()} for names, table in _TABLE.items()
}
_BACK = {
    names: {their: ours for ours, theirs in table.items() for their in theirs}
    for names, table in _TABLE.items()
}


def check_names(names: str) -> Names:
    """Raise InvalidRequest for a library that is not known."""
    if names in _TABLE:
        return names
    raise InvalidRequest(
        f"names must be one of {', '.join(_TABLE)}, not {shown(names)}", param="names"
    )


def ours(name: str, names: Names) -> str:
    """Our name of a site; one that is no name of theirs stays as it is."""
    return _translated(name, _BACK[names])


def theirs(name: str, names: Names) -> str:
    """Their name of a site, or of what was made of one, as ``...:norm``; ours if there is none."""
    site, colon, rest = name.partition(":")
    return _translated(site, _FORWARD[names]) + colon + rest


def _translated(name: str, table: dict[str, str]) -> str:
    if name in table:
        return table[name]
    layer = _LAYER.search(name)
    if layer is None:
        return name
    found = table.get(f"{name[: layer.start()]}#{name[layer.end() :]}")
    return name if found is None else found.replace("#", layer[0])
