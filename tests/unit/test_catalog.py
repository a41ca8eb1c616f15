"""The catalog: its numbers against the model cards, and the grammar of model ids."""

from __future__ import annotations

import difflib
import re
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pythia_bento import catalog
from pythia_bento.catalog import EVEN_STEPS, MAIN, MODELS, SIZES, STEPS, ModelId, nearest, parse
from pythia_bento.errors import ModelNotFound

# size: all parameters, those outside the embeddings, head_dim, rotary dims (the cards' table)
CARDS = {
    "14m": (14_067_712, 1_189_888, 32, 8),
    "31m": (30_494_720, 4_739_072, 32, 8),
    "70m": (70_426_624, 18_915_328, 64, 16),
    "160m": (162_322_944, 85_056_000, 64, 16),
    "410m": (405_334_016, 302_311_424, 64, 16),
    "1b": (1_011_781_632, 805_736_448, 256, 64),
    "1.4b": (1_414_647_808, 1_208_602_624, 128, 32),
    "2.8b": (2_775_208_960, 2_517_652_480, 80, 20),
    "6.9b": (6_857_302_016, 6_444_163_072, 128, 32),
    "12b": (11_846_072_320, 11_327_027_200, 128, 32),
}

COMMIT = "7199d8fc61a6d565cd1f3c62bf11525b563e13b2"
commits = st.text("0123456789abcdef", min_size=40, max_size=40)
suite_ids = st.sampled_from(list(MODELS)).flatmap(
    lambda name: st.builds(
        ModelId,
        st.just(name),
        st.just(MAIN) | st.sampled_from(MODELS[name].steps).map("step{}".format) | commits,
    )
)
bundled_ids = st.builds(
    ModelId,
    st.just(catalog.BUNDLED),
    st.just(MAIN) | st.integers(0, 10**9 - 1).map("step{}".format) | commits,
)


@pytest.mark.parametrize("size", SIZES)
def test_shapes_have_the_published_parameter_counts(size: str) -> None:
    total, outside, head_dim, rotary_dims = CARDS[size]
    shape = catalog.config(f"pythia-{size}")
    assert catalog.parameters(shape) == total
    assert catalog.parameters(shape, embeddings=False) == outside
    assert (shape.head_dim, shape.rotary_dims) == (head_dim, rotary_dims)
    assert shape.hidden_size == shape.head_dim * shape.num_heads


def test_table_covers_the_cards() -> None:
    assert list(SIZES) == list(CARDS)


@pytest.mark.parametrize("size", SIZES)
def test_eight_bit_size_is_between_one_and_two_bytes_a_parameter(size: str) -> None:
    shape = catalog.config(f"pythia-{size}")
    total = catalog.parameters(shape)
    saved = 2 * total - catalog.int8_bytes(shape)
    scales = 4 * shape.num_layers * (5 * shape.hidden_size + shape.intermediate_size)
    assert saved == catalog.linear_weights(shape) - scales
    assert total < catalog.int8_bytes(shape) < 2 * total


def test_steps() -> None:
    assert len(STEPS) == len(set(STEPS)) == 154
    assert list(STEPS) == sorted(STEPS)
    assert STEPS[:11] == (0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
    assert STEPS[11] == 1000 and STEPS[-1] == 143_000
    assert STEPS[-1] * catalog.TOKENS_PER_STEP == 299_892_736_000


def test_variants() -> None:
    assert len(MODELS) == 10 + 8 + 5 * 9 + 2 * 3 + 2 * 8 + 5
    assert "pythia-14m-deduped" not in MODELS and "pythia-31m-deduped" not in MODELS
    assert MODELS["pythia-410m-seed9"].size == "410m"
    assert "pythia-1b-seed1" not in MODELS
    assert set(catalog.PREQUANTISED) <= set(MODELS)


@pytest.mark.parametrize(
    ("name", "size", "steps"),
    [
        ("pythia-160m-data-seed1", "160m", STEPS),
        ("pythia-160m-weight-seed3", "160m", STEPS),
        ("pythia-14m-seed9", "14m", STEPS),
        ("pythia-70m-v0", "70m", EVEN_STEPS),
        ("pythia-12b-deduped-v0", "12b", EVEN_STEPS),
        ("pythia-intervention-70m-deduped", "70m", EVEN_STEPS[-10:]),
        ("pythia-intervention-410m-deduped", "410m", EVEN_STEPS[-10:]),
        ("pythia-intervention-1.4b-deduped", "1.4b", EVEN_STEPS[-10:]),
        ("pythia-intervention-6.9b-deduped", "6.9b", EVEN_STEPS[-10:]),
        ("pythia-intervention-long-1.4b-deduped", "1.4b", EVEN_STEPS[-30:]),
    ],
)
def test_the_organisation_s_other_repositories(
    name: str, size: str, steps: tuple[int, ...]
) -> None:
    model = parse(f"EleutherAI/{name}@step{steps[0]}")
    assert (model.name, model.step) == (name, steps[0])
    assert catalog.config(name) == SIZES[size].config
    assert MODELS[name].steps == steps


def test_the_first_version_has_no_early_steps() -> None:
    assert len(EVEN_STEPS) == 143 and EVEN_STEPS[0] == 1000
    with pytest.raises(ModelNotFound, match="the nearest are step1000, step2000, step3000"):
        parse("pythia-160m-v0@step512")


parts = st.from_regex(r"[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,94}[A-Za-z0-9])?", fullmatch=True)
foreign_ids = st.builds(
    ModelId,
    st.tuples(parts.filter(lambda owner: owner != "EleutherAI"), parts)
    .map("/".join)
    .filter(lambda name: not ("--" in name or ".." in name or name.endswith(".git"))),
    st.just(MAIN) | commits | st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,199}", fullmatch=True),
)


@given(suite_ids | bundled_ids | foreign_ids)
def test_what_is_printed_parses_to_the_same_id(model: ModelId) -> None:
    assert parse(str(model)) == model


@given(suite_ids)
def test_organisation_is_optional(model: ModelId) -> None:
    assert parse(f"EleutherAI/{model}") == model
    assert model.repository == f"EleutherAI/{model.name}"


@given(suite_ids | bundled_ids)
def test_a_revision_is_main_or_a_step_or_a_commit(model: ModelId) -> None:
    assert [model.revision == MAIN, model.step is not None, model.is_commit].count(True) == 1
    if model.step is not None:
        assert model.revision == f"step{model.step}"


@given(st.text())
def test_any_other_text_is_refused_with_suggestions_that_parse(text: str) -> None:
    try:
        model = parse(text)
    except ModelNotFound as error:
        assert error.param == "model"
        assert "nearest are" in error.message
    else:
        assert str(model) in (text.removeprefix("EleutherAI/"), text.removesuffix("@main"))


@pytest.mark.parametrize(
    ("text", "suggestions"),
    [
        ("pythia-1b-dedup", ["pythia-1b-deduped"]),
        ("pythia1.4b", ["pythia-1.4b"]),
        ("EleutherAI/pythia-12b-depuded", ["pythia-12b-deduped"]),
        ("gpt-neox-20b", ["pythia-"]),
        ("bundle", ["bundled"]),
        ("", ["pythia-"]),
        ("pythia-1b@step1500", ["step1000", "step2000"]),
        ("pythia-1b@step3", ["step2", "step4"]),
        ("pythia-1b@step03000", ["step3000"]),
        ("pythia-1b@STEP3000", ["step3000"]),
        ("pythia-1b@143000", ["step143000"]),
        ("pythia-1b@step99999999999999999999", ["step142000", "step143000"]),
        ("pythia-1b@v0", ["step0"]),
        ("pythia-1b@master", ["main", "step<N>", "40 lower-case hexadecimal"]),
        ("pythia-1b@", ["main"]),
        ("pythia-1b@7199d8fc", ["40 lower-case hexadecimal"]),
        ("pythia-1b@" + "A" * 40, ["40 lower-case hexadecimal"]),
        ("bundled@../step0", ["main", "step<N>"]),
        ("Someone/pythia-1b@", ["main", "step<N>"]),
        ("EleutherAI/bundled", ["<owner>/<name>"]),
        ("Someone//pythia-1b", ["pythia-1b", "<owner>/<name>"]),
        ("pythia-1b@main@main", ["main"]),
        ("pythia-1b@step³", ["main"]),
    ],
)
def test_suggestions(text: str, suggestions: list[str]) -> None:
    with pytest.raises(ModelNotFound) as caught:
        parse(text)
    for suggestion in suggestions:
        assert suggestion in caught.value.message


def test_message_quotes_a_long_name_in_part() -> None:
    with pytest.raises(ModelNotFound) as caught:
        parse("x" * 100_000)
    assert len(caught.value.message) < 300


@pytest.mark.parametrize("beginning", ["", "pythia-1b@", "pythia-1b@step", "owner/", "owner/name@"])
def test_of_a_long_name_no_more_is_looked_at_than_names_have(
    beginning: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked_at: list[str] = []

    class Pattern:
        def fullmatch(self, text: str, pattern: re.Pattern[str] = catalog._ID) -> object:
            looked_at.append(text)
            return pattern.fullmatch(text)

    monkeypatch.setattr(catalog, "_ID", Pattern())
    with pytest.raises(ModelNotFound):
        parse(beginning + "1" * 3_000_000)
    assert [len(text) for text in looked_at] == [catalog.MAX_ID]


@pytest.mark.parametrize("text", ["bundled", "Someone/pythia-1b"])
def test_only_models_of_the_suite_have_a_shape_here(text: str) -> None:
    with pytest.raises(ModelNotFound, match=text):
        catalog.config(text)


def test_the_bundled_checkpoint_is_on_no_hub() -> None:
    model = parse("bundled@step64")
    assert model.is_bundled
    with pytest.raises(ModelNotFound, match="bundled@step64 comes with the package"):
        _ = model.repository


@pytest.mark.parametrize(
    ("text", "repository", "revision", "id"),
    [
        ("pythia-1b-deduped", "EleutherAI/pythia-1b-deduped", "main", "pythia-1b-deduped"),
        ("EleutherAI/pythia-1b@step3000", "EleutherAI/pythia-1b", "step3000", "pythia-1b@step3000"),
        ("pythia-70m@main", "EleutherAI/pythia-70m", "main", "pythia-70m"),
        (f"pythia-70m@{COMMIT}", "EleutherAI/pythia-70m", COMMIT, f"pythia-70m@{COMMIT}"),
        ("Someone/a_-_b.c", "Someone/a_-_b.c", "main", "Someone/a_-_b.c"),
        ("Someone/x@v1.0", "Someone/x", "v1.0", "Someone/x@v1.0"),
    ],
)
def test_ids(text: str, repository: str, revision: str, id: str) -> None:
    model = parse(text)
    assert (model.repository, model.revision, str(model)) == (repository, revision, id)
    assert parse(str(model)) == model


@pytest.mark.parametrize(
    "text",
    [
        *("", "/", "pythia-2b", "pythia-1b@step5", "EleutherAI/else", "EleutherAI/EleutherAI/x"),
        *(
            "a/b/c",
            "../x",
            "a/..",
            "a/b@../c",
            "a/b@",
            "a/b@.c",
            "a/b\n",
            "a/ä",
            "a/b@" + "c" * 201,
        ),
        *("0/_", "_/0", "a-/b", "a/b.", "a--b/c", "a/b..c", "a/b.git", "a/" + "b" * 97),
    ],
)
def test_what_is_no_id_is_refused(text: str) -> None:
    with pytest.raises(ModelNotFound):
        parse(text)


def test_main_is_said_to_be_the_last_step() -> None:
    assert parse("pythia-1b").claimed_step == 143_000
    assert parse("pythia-1b@step8").claimed_step == 8
    assert parse(f"pythia-1b@{COMMIT}").claimed_step is None


@given(st.text(), st.lists(st.text(), min_size=1))
@example("bundled@step4", ["bundled@main", "bundled@main", "bundled"])
def test_nearest_names_are_distinct_and_never_none(text: str, known: list[str]) -> None:
    found = nearest(text, known)
    assert 1 <= len(found) == len(set(found)) <= 3
    assert set(found) <= set(known)


def test_a_wrong_name_is_compared_with_few_of_thousands(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that begin as it does; of fewer names with all."""
    inner, compared = difflib.get_close_matches, []

    def counted(text: str, names: list[str], **options: Any) -> list[str]:
        compared.append(len(names))
        return inner(text, names, **options)

    monkeypatch.setattr(catalog.difflib, "get_close_matches", counted)
    names = [f"owner/model{size}@step{step}" for size in range(20) for step in range(0, 5000, 10)]
    assert nearest("owner/model7@step77", names)[0] in (
        "owner/model7@step770",
        "owner/model7@step70",
    )
    assert nearest("?", names)
    assert max(compared) <= catalog.MAX_COMPARED < len(names)
    assert nearest("pythia-410mm", MODELS)[0] == "pythia-410m"
    assert len(MODELS) in compared


def test_nearest_names_of_long_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    """The search takes quadratic time, and holds the event loop."""
    looked_at: list[str] = []

    def matches(text: str, names: list[str], **options: object) -> list[str]:
        looked_at.append(text)
        return names[:1]

    monkeypatch.setattr("difflib.get_close_matches", matches)
    assert nearest("a" * 8_000_000, ["pythia-14m"]) == ["pythia-14m"]
    assert {len(text) for text in looked_at} == {100}
