"""Names of sites in other libraries' words, and back."""

from __future__ import annotations

import pytest

from pythia_bento.errors import InvalidRequest
from pythia_bento.model.sites import SITES
from pythia_bento.protocol.site_names import OURS, Names, check_names, ours, theirs
from tests.later import transformers

ALL = [f"blocks.#.{site.name}" if site.is_in_layer else site.name for site in SITES]
LIBRARIES: list[Names] = ["transformers", "nnterp", "interp-engine"]
# Sites for which a library has no name, or one that means another tensor.
NAMELESS = {
    "transformers": {"attn.hook_q", "attn.hook_k", "attn.hook_v", "attn.hook_z"},
    "nnterp": {"attn.hook_q", "attn.hook_k", "attn.hook_v", "attn.hook_z", "mlp.hook_post"},
    "interp-engine": {"attn.hook_q", "attn.hook_k"},
}


@pytest.mark.parametrize("names", LIBRARIES)
def test_every_site_has_a_name_that_leads_back(names: Names) -> None:
    nameless = set()
    for layer in ("0", "11", "*", "{2..5}"):
        for name in (one.replace("#", layer) for one in ALL):
            their = theirs(name, names)
            assert ours(their, names) == name
            if their == name:
                nameless.add(name.partition(f".{layer}.")[2])
    assert nameless == NAMELESS[names]


@pytest.mark.parametrize(
    ("names", "their", "our"),
    [
        ("nnterp", "layers_output[5]", "blocks.5.hook_resid_post"),
        ("nnterp", "layers_output[*]", "blocks.*.hook_resid_post"),
        ("interp-engine", "resid_post.5", "blocks.5.hook_resid_post"),
        ("interp-engine", "attn_out_post.{0..3}", "blocks.{0..3}.hook_attn_out"),
        ("transformers", "hidden_states[5]", "blocks.5.hook_resid_pre"),
        ("transformers", "hidden_states[-1]", "ln_final.hook_normalized"),
        ("transformers", "gpt_neox.layers.7.attention.dense", "blocks.7.hook_attn_out"),
        ("transformers", "gpt_neox.layers.7", "blocks.7.hook_resid_post"),
    ],
)
def test_examples(names: Names, their: str, our: str) -> None:
    assert ours(their, names) == our


def test_what_was_made_of_a_site_keeps_its_ending() -> None:
    assert theirs("blocks.3.hook_resid_post:lens_ids", "nnterp") == "layers_output[3]:lens_ids"
    assert theirs("logits", "nnterp") == "logits"
    assert theirs("blocks.3.hook_resid_post", OURS) == "blocks.3.hook_resid_post"
    for name in ("blocks.3.hook_resid_post", "no.such.5", "layers_output[x]", ""):
        assert ours(name, "nnterp") == name


def test_libraries_that_are_not_known() -> None:
    for names in LIBRARIES:
        assert check_names(names) == names
    with pytest.raises(InvalidRequest, match=r"names must be one of transformer-lens, .*'baukit'"):
        check_names("baukit")


def test_the_modules_are_there() -> None:
    """Of transformers, whose own names the table has."""
    config = transformers.GPTNeoXConfig(
        num_hidden_layers=1, hidden_size=8, num_attention_heads=2, intermediate_size=8
    )
    modules = dict(transformers.GPTNeoXForCausalLM(config).named_modules())
    named = [theirs(name.replace("#", "0"), "transformers") for name in ALL]
    paths = [name for name in named if name.startswith("gpt_neox.")]
    assert len(paths) == 6 and set(paths) <= modules.keys()
