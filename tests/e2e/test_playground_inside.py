"""What the playground shows of a token's inside: what layers would say, and where heads look."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import pytest
from selenium.webdriver import ActionChains, Keys
from selenium.webdriver.support.select import Select

from tests.e2e.browser import Browser
from tests.e2e.serving import HTTP, Server
from tests.fuzz.http import KEY

pytestmark = pytest.mark.needs("chromium", "chromedriver")

PROMPT = "Once upon a time"
MODEL = "bundled@step1000"
FIELDS = {"max_tokens": 12, "temperature": 0.9, "seed": 3, "logprobs": 3}
RESIDUAL = "blocks.*.hook_resid_post"

# Of the canvas: what is opaque is what is looked at.
_ALPHAS = """
const canvas = document.querySelector("#map canvas");
const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
return [...data].filter((_, index) => index % 4 === 3);
"""
_ROWS = """return [...document.querySelectorAll("#lens tbody tr")]
    .map((row) => [...row.cells].map((cell) => cell.textContent))"""


@pytest.fixture(scope="module")
def window(window: Browser) -> Browser:
    """Such a window that all of the page is in sight."""
    window.driver.set_window_size(1200, 1600)
    return window


@pytest.fixture
def page(window: Browser, server: Server) -> Iterator[Browser]:
    """A text of one of the steps. Nothing was refused to the page in the end."""
    window.open(f"{server.url}/playground")
    window.wait(lambda: "context 512 tokens" in window("#model").text)
    Select(window("#checkpoint")).select_by_visible_text(MODEL)
    window.console()
    generate(window)
    yield window
    assert window.hosts() == {server.url.removeprefix("http://")}
    assert window.console() == []


def generate(page: Browser, **fields: object) -> None:
    for name, value in {"prompt": PROMPT, **FIELDS, **fields}.items():
        page.type(f"#{name}", value)
    page("#run").click()
    page.wait(lambda: "tokens in" in page("#status").text)


def shown(page: Browser) -> bool:
    return page("#inside-status").text.startswith("token ") or page("#inside-error").is_displayed()


def choose(page: Browser, index: int) -> None:
    page.all(".token")[index].click()
    page.wait(lambda: shown(page))


def ask(server: Server, path: str, **body: Any) -> dict[str, Any]:
    answer = HTTP.post(f"{server.url}/v1/{path}", json={"model": MODEL, **body}, timeout=60)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def text_of(server: Server) -> list[int]:
    """All ids of what ``generate`` shows."""
    body = {"prompt": PROMPT, "return_token_ids": True, **FIELDS}
    [choice] = ask(server, "completions", **body)["choices"]
    ids: list[int] = choice["prompt_token_ids"] + choice["token_ids"]
    return ids


def pattern(server: Server, layer: int, head: int) -> list[list[float]]:
    capture = [{"site": f"blocks.{layer}.attn.hook_pattern", "heads": [head]}]
    answer = ask(server, "activations", prompts=[text_of(server)], capture=capture, format="json")
    [(rows,)] = (
        value for name, value in answer["tensors"].items() if name.endswith("hook_pattern")
    )
    found: list[list[float]] = rows
    return found


def test_layers_say_what_the_lens_says(page: Browser, server: Server) -> None:
    choose(page, 5)
    ids = text_of(server)
    at = len(ids) - len(page.all(".token")) + 5
    reduce = {"lens": {"top": 3, "tokens": [ids[at]]}}
    capture = [{"site": RESIDUAL, "positions": [at - 1], "reduce": reduce}]
    answer = ask(server, "activations", prompts=[ids], capture=capture, format="json")
    rows = page.run(_ROWS)
    layers = sum(name.endswith(":lens_ids") for name in answer["tensors"])
    assert [row[0] for row in rows] == list(map(str, range(layers))) and layers > 1
    for layer, row in enumerate(rows):
        name = f"0:blocks.{layer}.hook_resid_post"
        [words], [values] = (
            answer["lens_tokens"][f"{name}:lens_ids"],
            answer["tensors"][f"{name}:lens_logprobs"],
        )
        said = [f"{visible(w)} {percent(v)}" for w, v in zip(words, values, strict=True)]
        assert row[1].split("\n") == said
        assert row[3] == percent(answer["tensors"][f"{name}:lens_token_logprobs"][0][0])
    # The last layer says what the model says: the likeliest token's share is the answer's, and the
    # token's own is that of its tooltip.
    assert rows[-1][2] == rows[-1][1].split("\n")[0].rpartition(" %")[0].rpartition(" ")[2] + " %"
    ActionChains(page.driver).move_to_element(page.all(".token")[5]).perform()
    page.wait(page("#tooltip").is_displayed)
    assert f"probability {rows[-1][3]}," in page("#tooltip").text
    assert page("#inside-status").text == f"token {at}, “{page('#tooltip strong').text}”"
    assert [token.get_attribute("aria-selected") for token in page.all(".token")].count("true") == 1


def test_a_head_is_chosen_and_its_map_is_drawn(page: Browser, server: Server) -> None:
    choose(page, 8)
    count = len(text_of(server))
    maps = []
    for layer, head in ((0, 0), (1, 1)):
        Select(page("#layer")).select_by_visible_text(str(layer))
        Select(page("#head")).select_by_visible_text(str(head))
        expected = [round_half_up(255 * w) for row in pattern(server, layer, head) for w in row]
        page.wait(lambda expected=expected: page.run(_ALPHAS) == expected)
        assert len(expected) == count**2 and max(expected) > 20
        maps.append(expected)
    assert maps[0] != maps[1]


def test_all_of_it_by_the_keyboard(page: Browser, server: Server) -> None:
    page("#tokens").send_keys(Keys.ARROW_RIGHT)
    page.driver.switch_to.active_element.send_keys(Keys.END)
    page.driver.switch_to.active_element.send_keys(Keys.ENTER)
    page.wait(lambda: shown(page))
    last, rows = len(text_of(server)) - 1, pattern(server, 0, 0)
    best = max(range(last + 1), key=rows[last].__getitem__)
    assert told(page) == (last, best, percent(math.log(rows[last][best])))
    page("#map").send_keys(Keys.ARROW_LEFT * (last + 3), Keys.ARROW_UP * 2, Keys.ARROW_RIGHT)
    assert told(page) == (last - 2, 1, percent(math.log(rows[last - 2][1])))
    page("#map").send_keys(Keys.ARROW_RIGHT * 99)  # no token looks at later ones
    assert told(page)[:2] == (last - 2, last - 2)
    names = [label.text for label in page.all("figure label")]
    assert [name.split()[0] for name in names] == ["Layer", "Head"]
    assert page("#map").get_attribute("aria-label").startswith("Attention map.")


def test_the_first_token_has_nothing_before_it(page: Browser) -> None:
    page("#echo").click()
    generate(page)
    choose(page, 0)
    assert page("#inside-status").text.endswith(": nothing comes before it")
    assert not page("#lens").is_displayed() and page("#map").is_displayed()
    assert told(page) == (0, 0, "100.00 %")
    choose(page, 1)
    assert page("#lens").is_displayed()


def test_another_text_takes_its_place(page: Browser) -> None:
    choose(page, 1)
    assert page("#inside-parts").is_displayed() and not page("#inside-hint").is_displayed()
    generate(page, seed=4)
    assert not page("#inside-parts").is_displayed() and page("#inside-hint").is_displayed()
    assert page("#inside-status").text == ""


def test_of_a_long_text_some_rows_are_shown(page: Browser) -> None:
    generate(page, prompt="a b " * 150, max_tokens=3)
    choose(page, 2)
    width, height = page.run(
        "const { width, height } = document.querySelector('#map canvas'); return [width, height]"
    )
    assert 256 < width <= 512 and width * height <= 65536 < width * (height + 1)
    assert told(page)[0] == width - 1


def test_with_a_key_and_errors_in_words(window: Browser, guarded: Server) -> None:
    window.open(f"{guarded.url}/playground")
    window.wait(lambda: "an API key is required" in window("#model").text)
    window.type("#key", KEY + Keys.TAB)
    window.wait(lambda: "context 512 tokens" in window("#model").text)
    generate(window, max_tokens=4)
    choose(window, 2)
    assert window("#map").is_displayed() and not window("#inside-error").is_displayed()
    window.type("#key", "another" + Keys.TAB)
    choose_again = window.all(".token")[1]
    choose_again.click()
    window.wait(window("#inside-error").is_displayed)
    assert "the API key is not known" in window("#inside-error").text
    assert window("#inside-status").text == ""


def told(page: Browser) -> tuple[int, int, str]:
    """The cell: who looks, at whom, and how much."""
    words = page("#cell").text
    places, _, weight = words.rpartition(": ")
    looking, looked_at = (
        part.rpartition("(")[2].rstrip(")") for part in places.split(" looks at ")
    )
    return int(looking), int(looked_at), weight


def round_half_up(value: float) -> int:
    """As JavaScript rounds."""
    return math.floor(value + 0.5)


def visible(token: str) -> str:
    return token.replace(" ", "␣").replace("\n", "⏎")


def percent(logprob: float) -> str:
    share = 100 * math.exp(logprob)
    return f"{share:.2f} %" if share >= 0.01 else "under 0.01 %"
