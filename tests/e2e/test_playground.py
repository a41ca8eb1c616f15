"""The playground as people use it: a real browser, a real server."""

from __future__ import annotations

import math
import re
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
FIELDS = {"max_tokens": 40, "temperature": 0.9, "top_p": 0.95, "top_k": 50, "seed": 3}

# Counts of tokens on the page, one for each time it was changed, until the answer is complete.
_WATCH = """
window.counts = [];
const box = document.getElementById("tokens");
new MutationObserver(() => counts.push(box.childElementCount)).observe(box, {childList: true});
"""
_STOP_AT_FIRST = """
const box = document.getElementById("tokens"), stop = document.getElementById("stop-button");
new MutationObserver(() => box.childElementCount && stop.click()).observe(box, {childList: true});
"""


@pytest.fixture
def page(window: Browser, server: Server) -> Iterator[Browser]:
    """The playground, fresh, of a server without keys. Nothing was refused to it in the end."""
    window.open(f"{server.url}/playground")
    window.wait(lambda: window("#status").text.startswith("An example"))
    window.console()
    yield window
    assert window.hosts() == {server.url.removeprefix("http://")}


def fill(page: Browser, **fields: object) -> None:
    for name, value in fields.items():
        page.type(f"#{name}", value)


def generate(page: Browser) -> None:
    page("#run").click()
    page.wait(lambda: "tokens in" in page("#status").text or page("#error").is_displayed())


def test_a_prompt_is_continued_token_by_token(page: Browser, server: Server) -> None:
    fill(page, prompt=PROMPT, logprobs=4, **FIELDS)
    page.run(_WATCH)
    generate(page)
    expected = ask(server, {"prompt": PROMPT, "logprobs": 4, **FIELDS})
    assert page.run("return document.getElementById('tokens').textContent") == expected["text"]
    tokens = page.all(".token")
    assert len(tokens) == len(expected["logprobs"]["tokens"]) > 10
    counts = page.run("return counts")
    assert len(set(counts)) > 5 and counts == sorted(counts)
    assert page("#status").text.startswith(f"{len(tokens)} tokens in ")
    assert page.console() == []


def test_a_seed_that_was_drawn_is_shown_and_repeats_the_text(page: Browser, server: Server) -> None:
    fill(page, prompt=PROMPT, max_tokens=20, temperature=2)
    texts = []
    for _ in range(2):
        generate(page)
        texts.append(page.run("return document.getElementById('tokens').textContent"))
        seed = re.search(r", seed (\d+)$", page("#status").text)
        assert seed
        body = {"prompt": PROMPT, "max_tokens": 20, "temperature": 2, "logprobs": 0}
        # Token by token: the page shows an end of text that was drawn, which a text leaves out.
        drawn = ask(server, {**body, "seed": int(seed[1])})["logprobs"]["tokens"]
        # Bytes that are no character alone are shown as what they are with those beside them.
        pattern = "".join(".*" if one.startswith("bytes:") else re.escape(one) for one in drawn)
        assert re.fullmatch(pattern, texts[-1], re.DOTALL)
    assert texts[0] != texts[1]
    fill(page, seed=seed[1])
    generate(page)
    assert page.run("return document.getElementById('tokens').textContent") == texts[1]
    assert "seed" not in page("#status").text


def test_a_token_tells_its_alternatives_to_the_pointer(page: Browser, server: Server) -> None:
    fill(page, prompt=PROMPT, logprobs=4, **FIELDS)
    generate(page)
    logprobs = ask(server, {"prompt": PROMPT, "logprobs": 4, **FIELDS})["logprobs"]
    assert not page("#tooltip").is_displayed()
    for index in (0, 7):
        ActionChains(page.driver).move_to_element(page.all(".token")[index]).perform()
        page.wait(page("#tooltip").is_displayed)
        assert alternatives(page) == expected_alternatives(logprobs["top_logprobs"][index])
        value = logprobs["token_logprobs"][index]
        assert f"log-probability {value:.4f}" in page("#tooltip").text
        assert page("#tooltip tr.chosen td").text == shown(logprobs["tokens"][index])
    ActionChains(page.driver).move_to_element(page("h1")).perform()
    page.wait(lambda: not page("#tooltip").is_displayed())


def test_a_token_tells_its_alternatives_to_the_keyboard(page: Browser, server: Server) -> None:
    fill(page, prompt=PROMPT, logprobs=2, **FIELDS)
    page("#prompt").send_keys(Keys.CONTROL, Keys.ENTER)
    page.wait(lambda: "tokens in" in page("#status").text)
    page("#tokens").send_keys(Keys.ARROW_RIGHT)
    page.driver.switch_to.active_element.send_keys(Keys.ARROW_RIGHT)
    focused = page.driver.switch_to.active_element
    assert focused == page.all(".token")[1]
    top = ask(server, {"prompt": PROMPT, "logprobs": 2, **FIELDS})["logprobs"]["top_logprobs"][1]
    assert alternatives(page) == expected_alternatives(top)
    assert focused.get_attribute("aria-describedby") == "tooltip"
    focused.send_keys(Keys.ESCAPE)
    assert not page("#tooltip").is_displayed()


def test_colour_follows_the_log_probability(page: Browser, server: Server) -> None:
    fill(page, prompt=PROMPT, logprobs=0, **FIELDS)
    generate(page)
    values = ask(server, {"prompt": PROMPT, "logprobs": 0, **FIELDS})["logprobs"]["token_logprobs"]
    colours = [token.value_of_css_property("background-color") for token in page.all(".token")]
    by_value = dict(sorted(zip(values, colours, strict=True)))
    certain = [colour for value, colour in by_value.items() if value > -1e-4]
    assert certain and set(certain) == {"rgba(0, 0, 0, 0)"}  # bare paper
    assert by_value[min(values)] != certain[0]


def test_the_prompt_is_scored_and_bytes_become_characters(page: Browser, server: Server) -> None:
    prompt = "Once, a café 🙂 in"
    fill(page, prompt=PROMPT, **{**FIELDS, "max_tokens": 3})
    page.run("document.getElementById('prompt').value = arguments[0]", prompt)
    page("#echo").click()
    generate(page)
    body = {"prompt": prompt, "echo": True, "logprobs": 5, **FIELDS, "max_tokens": 3}
    expected = ask(server, body)
    tokens = page.all(".token")
    assert len(tokens) == len(expected["logprobs"]["tokens"])
    text = page.run("return [...arguments[0]].map(token => token.textContent)", tokens)
    # Characters of several tokens stand once; the tokens without a character show their names.
    seen = [
        part for part, token in zip(text, tokens, strict=True) if "unseen" not in classes(token)
    ]
    assert "".join(seen) == expected["text"]
    assert any("unseen" in classes(token) for token in tokens)
    assert "first" in classes(tokens[0])
    assert ["prompt" in classes(token) for token in tokens] == [
        offset < len(prompt) for offset in expected["logprobs"]["text_offset"]
    ]


def test_stop_ends_the_answer(page: Browser) -> None:
    fill(page, prompt=PROMPT, max_tokens=500, temperature=20, seed=3)  # no end of text before 500
    page.run(_STOP_AT_FIRST)
    generate(page)
    assert page("#status").text.endswith("stopped")
    assert 0 < len(page.all(".token")) < 400
    assert not page("#stop-button").is_enabled() and page("#run").is_enabled()


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("max_tokens", 9999, "the model's context is 512 tokens"),
        ("prompt", "", "prompt is empty"),
        ("logprobs", 99, "logprobs must be an integer between 0 and 20"),
    ],
)
def test_errors_are_sentences(page: Browser, field: str, value: object, words: str) -> None:
    page.run("document.getElementById('form').noValidate = true")
    fill(page, prompt=PROMPT)
    fill(page, **{field: value})
    generate(page)
    assert words in page("#error").text
    fill(page, prompt=PROMPT, max_tokens=3, logprobs=1)
    generate(page)
    assert not page("#error").is_displayed()


def test_provenance_is_what_models_says(page: Browser, server: Server) -> None:
    model = HTTP.get(f"{server.url}/v1/models/bundled").json()
    page("#provenance summary").click()
    text = page("#provenance").text
    assert page("#model").text == f"{model['id']}, context 512 tokens"
    for value in (model["system_fingerprint"], model["provenance"]["commit"]):
        assert value in text
    for name, sha256 in model["provenance"]["files"].items():
        assert name in text and sha256 in text


def test_a_step_is_chosen_and_answers(page: Browser, server: Server) -> None:
    steps = [option.text for option in page.all("#checkpoint option")]
    assert steps == [f"bundled@step{step}" for step in (0, 64, 256, 512, 1000, 3000)]
    choice = Select(page("#checkpoint"))
    assert choice.first_selected_option.text == "bundled@step3000"
    choice.select_by_visible_text("bundled@step64")
    assert page("#model").text == "bundled@step64, context 512 tokens"
    card = HTTP.get(f"{server.url}/v1/models/bundled@step64").json()
    page("#provenance summary").click()
    assert card["system_fingerprint"] in page("#provenance").text
    assert '"model":"bundled@step64"' in page("#curl").get_attribute("textContent")
    fill(page, prompt=PROMPT, temperature=0, max_tokens=9)
    generate(page)
    body = {"prompt": PROMPT, "temperature": 0, "max_tokens": 9, "model": "bundled@step64"}
    shown = page.run("return document.getElementById('tokens').textContent")
    assert shown == ask(server, body)["text"]
    assert page.console() == []


# The server's answers, of whose models only the first is there.
_ONE = """
const ask = window.fetch;
window.fetch = async (path, options) => {
  const answer = await ask(path, options);
  if (path !== "v1/models") return answer;
  const models = await answer.json();
  return new Response(JSON.stringify({ ...models, data: models.data.slice(0, 1) }), answer);
};
"""


def test_where_there_is_one_there_is_no_choice(window: Browser, server: Server) -> None:
    with window.running_first(_ONE):
        window.open(f"{server.url}/playground")
        window.wait(lambda: "context 512 tokens" in window("#model").text)
        assert not window("#choice").is_displayed()
        assert '"model"' not in window("#curl").get_attribute("textContent")
        fill(window, prompt=PROMPT, max_tokens=3)
        generate(window)
        assert window("#status").text.startswith("3 tokens in ")


def test_a_server_with_keys_asks_for_one(window: Browser, guarded: Server) -> None:
    window.open(f"{guarded.url}/playground")
    window.wait(lambda: "an API key is required" in window("#model").text)
    fill(window, prompt=PROMPT, max_tokens=5)
    generate(window)
    assert "an API key is required" in window("#error").text
    window.type("#key", KEY + Keys.TAB)
    window.wait(lambda: "context 512 tokens" in window("#model").text)
    generate(window)
    assert window("#status").text.startswith("5 tokens in ")
    assert not window("#error").is_displayed()
    assert KEY not in window("#curl").get_attribute("textContent")
    stored = "return [document.cookie, localStorage.length, sessionStorage.length]"
    assert window.run(stored) == ["", 0, 0]


@pytest.mark.parametrize("path", ["/", "/docs", "/playground"])
def test_pages_allow_no_other_host(server: Server, path: str) -> None:
    headers = HTTP.get(server.url + path).headers
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy and "frame-ancestors 'none'" in policy
    assert not {"http:", "https:", "*", "'unsafe-eval'"} & set(policy.replace(";", "").split())
    assert headers["x-content-type-options"] == "nosniff"


def ask(server: Server, body: dict[str, Any]) -> dict[str, Any]:
    """The one choice."""
    response = HTTP.post(f"{server.url}/v1/completions", json=body, timeout=60)
    assert response.status_code == 200, response.text
    [choice] = response.json()["choices"]
    return choice


def alternatives(page: Browser) -> list[tuple[str, str]]:
    script = """return [...document.querySelectorAll("#tooltip tr")]
        .map(row => [row.cells[0].textContent, row.cells[1].textContent])"""
    return [(token, share) for token, share in page.run(script)]


def expected_alternatives(top: dict[str, float]) -> list[tuple[str, str]]:
    return [(shown(token), percent(value)) for token, value in top.items()]


def shown(token: str) -> str:
    return token.replace(" ", "␣").replace("\n", "⏎")


def percent(logprob: float) -> str:
    share = 100 * math.exp(logprob)
    return f"{share:.2f} %" if share >= 0.01 else "under 0.01 %"


def classes(element: Any) -> list[str]:
    return element.get_attribute("class").split()
