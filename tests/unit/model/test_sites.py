"""The names of sites, patterns of layers, and what is said of those that do not exist."""

from __future__ import annotations

import pytest

from pythia_bento.errors import InvalidRequest
from pythia_bento.model.config import ModelConfig
from pythia_bento.model.sites import EMBED, NORMALIZED, PATTERN, RESID_POST, SITES, Place, places

LAYERS = 16
FIELD = "capture[0].site"
CONFIG = ModelConfig(LAYERS, 64, 2, 256, 300, 128, 8)


@pytest.mark.parametrize("site", SITES, ids=lambda site: site.name)
def test_a_place_is_found_by_its_name(site) -> None:
    place = Place(site, 5 if site.is_in_layer else 0)
    assert places(place.name, LAYERS, FIELD) == (place,)


@pytest.mark.parametrize(
    ("layers", "wanted"),
    [("*", range(16)), ("{3..5}", range(3, 6)), ("{15..15}", range(15, 16)), ("07", range(7, 8))],
)
def test_patterns_of_layers(layers: str, wanted: range) -> None:
    found = places(f"blocks.{layers}.hook_resid_post", LAYERS, FIELD)
    assert found == tuple(Place(RESID_POST, layer) for layer in wanted)


@pytest.mark.parametrize(
    "name",
    [
        "blocks.16.hook_resid_post",
        "blocks.{3..16}.hook_resid_post",
        "blocks.{5..3}.hook_resid_post",
        "blocks.{16..20}.attn.hook_q",
        "blocks.9999.mlp.hook_post",
    ],
)
def test_layers_that_the_model_does_not_have(name: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        places(name, LAYERS, FIELD)
    wanted = f"capture[0].site is '{name}', but the model's layers are 0 to 15"
    assert str(caught.value) == wanted


@pytest.mark.parametrize(
    "name",
    [
        "",
        "*",
        "hook_resid_post",
        "blocks.hook_resid_post",
        "blocks.-1.hook_resid_post",
        "blocks.10000.hook_resid_post",
        "blocks.{1..}.hook_resid_post",
        "blocks.3.hook_embed",
        "blocks.3.ln_final.hook_normalized",
        "blocks.3.mlp.hook_pre",
        "blocks.3.hook_resid_post\n",
        "\nhook_embed",
        "blocks.\u0663.hook_resid_post",
        "hook_embed" * 1000,
    ],
)
def test_names_of_no_site(name: str) -> None:
    with pytest.raises(InvalidRequest, match=r"^capture\[0\].site is .*, which is no site; ") as it:
        places(name, LAYERS, FIELD)
    words = str(it.value)
    assert "sites are hook_embed, blocks.*.hook_resid_pre, " in words
    assert len(words) < 1000


def test_there_is_no_stream_between_attention_and_mlp() -> None:
    with pytest.raises(InvalidRequest, match="no site of a model with a parallel residual"):
        places("blocks.3.hook_resid_mid", LAYERS, FIELD)


def test_shapes_of_a_position() -> None:
    shapes = {site.name: Place(site).shape(CONFIG) for site in SITES}
    assert shapes["hook_resid_pre"] == (64,)
    assert shapes["attn.hook_q"] == shapes["attn.hook_z"] == (2, 32)
    assert shapes["mlp.hook_post"] == (256,)
    assert shapes["attn.hook_pattern"] == (2,)


def test_what_follows_from_other_values_is_not_changed() -> None:
    assert {site for site in SITES if not site.is_writable} == {PATTERN, NORMALIZED}
    assert {site for site in SITES if not site.is_in_layer} == {EMBED, NORMALIZED}
