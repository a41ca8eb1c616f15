// The tokens of a text as coloured spans, and the tooltip of a token. The box tells by events, whose
// detail is an index, which one is looked at ("token") and which one was pressed ("choose").

import { entropy, MEASURES, rank } from "./measures.js";

export class TokenView {
  constructor(box, tooltip) {
    this.box = box;
    this.tooltip = tooltip;
    this.measure = "surprise";
    box.addEventListener("pointerover", (event) => this.#show(event.target));
    box.addEventListener("pointerleave", () => this.#hide());
    box.addEventListener("focusin", (event) => this.#show(event.target));
    box.addEventListener("focusout", () => this.#hide());
    box.addEventListener("keydown", (event) => this.#move(event));
    box.addEventListener("click", (event) => this.#choose(event.target));
    document.addEventListener("keydown", (event) => event.key === "Escape" && this.#hide());
    this.clear(0);
  }

  // The first promptLength code points of the next text are the prompt; so many alternatives are asked
  // for with each token.
  clear(promptLength, asked = Infinity) {
    this.box.replaceChildren();
    this.asked = asked;
    this.text = []; // code points: the server counts offsets in them
    this.tokens = [];
    this.promptLength = promptLength;
    this.#hide();
  }

  // One choice of one event. Text may come later than the tokens it is made of.
  append({ text, logprobs }) {
    const unfinished = this.tokens.findLastIndex((token) => token.offset < this.text.length);
    this.text.push(...text);
    for (const [index, name] of (logprobs?.tokens ?? []).entries()) {
      this.#add({
        name,
        logprob: logprobs.token_logprobs[index],
        top: logprobs.top_logprobs[index],
        offset: logprobs.text_offset[index],
        asked: this.asked,
      });
    }
    this.#spell(Math.max(unfinished, 0), false);
  }

  // All text is there: tokens without any of it are shown by name.
  finish() {
    this.#spell(0, true);
  }

  // Which of MEASURES the colours are of.
  color(measure) {
    this.measure = measure;
    for (const token of this.tokens) this.#paint(token);
  }

  // The same tokens with other values; null where nothing is known of one.
  update(values) {
    for (const [index, token] of this.tokens.entries()) {
      Object.assign(token, { logprob: null, rank: undefined, top: {} }, values[index]);
      this.#paint(token);
    }
    if (this.shown) this.#show(this.shown);
  }

  // Which one is chosen; none where there is no such index.
  mark(chosen) {
    for (const [index, { span }] of this.tokens.entries()) {
      span.setAttribute("aria-selected", String(index === chosen));
    }
  }

  #add(token) {
    const span = document.createElement("span");
    span.className = "token";
    span.tabIndex = -1;
    span.role = "option";
    span.classList.toggle("prompt", token.offset < this.promptLength);
    this.tokens.push({ ...token, span });
    this.#paint(this.tokens.at(-1));
    this.box.append(span);
  }

  #paint(token) {
    const strength = MEASURES[this.measure].strength(token).toFixed(3);
    token.span.classList.toggle("first", token.logprob === null);
    token.span.classList.toggle("plain", Number(strength) < 0.005);
    token.span.style.setProperty("--strength", strength);
  }

  #spell(from, complete) {
    for (let index = from; index < this.tokens.length; index++) {
      const { offset, span, name } = this.tokens[index];
      const end = this.tokens[index + 1]?.offset ?? this.text.length;
      const own = this.text.slice(offset, end).join("");
      span.classList.toggle("unseen", complete && own === "");
      span.classList.toggle("newline", own.startsWith("\n"));
      span.textContent = complete && own === "" ? name : own;
    }
  }

  #choose(target) {
    const index = this.tokens.findIndex(({ span }) => span === target);
    if (index >= 0) this.box.dispatchEvent(new CustomEvent("choose", { detail: index }));
  }

  #move(event) {
    if (event.key === "Enter" && !event.ctrlKey && !event.metaKey) this.#choose(event.target);
    const steps = { ArrowRight: 1, ArrowLeft: -1, Home: -Infinity, End: Infinity };
    if (!(event.key in steps) || this.tokens.length === 0) return;
    event.preventDefault();
    const now = this.tokens.findIndex((token) => token.span === document.activeElement);
    const wanted = now < 0 ? 0 : now + steps[event.key];
    this.tokens[Math.min(Math.max(wanted, 0), this.tokens.length - 1)].span.focus();
  }

  #show(target) {
    const index = this.tokens.findIndex(({ span }) => span === target);
    if (index < 0) return this.#hide();
    this.tooltip.replaceChildren(...describe(this.tokens[index], index));
    this.tooltip.hidden = false;
    this.shown = target;
    target.setAttribute("aria-describedby", this.tooltip.id);
    this.#place(target);
    this.box.dispatchEvent(new CustomEvent("token", { detail: index }));
  }

  #hide() {
    this.tooltip.hidden = true;
    this.shown?.removeAttribute("aria-describedby");
    this.shown = undefined;
  }

  // Below the token's first line, inside the card.
  #place(target) {
    const card = this.tooltip.offsetParent.getBoundingClientRect();
    const rect = target.getClientRects()[0] ?? target.getBoundingClientRect();
    const room = card.width - this.tooltip.offsetWidth - 8;
    this.tooltip.style.left = `${Math.max(Math.min(rect.left - card.left, room), 8)}px`;
    this.tooltip.style.top = `${rect.bottom - card.top + 6}px`;
  }
}

function describe(token, index) {
  const { name, logprob, top } = token;
  const title = element("strong", visible(name));
  if (logprob === null) {
    const why = index ? "not computed" : "the first token: nothing comes before it";
    return [title, element("div", why)];
  }
  const at = rank(token);
  const place = at === undefined ? "" : `, rank ${at ?? `behind ${token.asked}`}`;
  const bits = entropy(token);
  const open = bits === undefined ? "" : `, entropy at least ${bits.toFixed(2)} bits`;
  const line = element(
    "div",
    `probability ${percent(logprob)}, log-probability ${logprob.toFixed(4)}${place}${open}`,
  );
  const rows = Object.entries(top).sort(([, a], [, b]) => b - a);
  const table = element("table");
  for (const [other, value] of rows) {
    const row = table.insertRow();
    row.className = other === name ? "chosen" : "";
    row.insertCell().textContent = visible(other);
    row.insertCell().textContent = percent(value);
    const bar = element("i");
    bar.style.setProperty("--share", Math.exp(value).toFixed(4));
    row.insertCell().append(bar);
  }
  return [title, line, table];
}

export function element(tag, text = "") {
  const made = document.createElement(tag);
  made.textContent = text;
  return made;
}

export function percent(logprob) {
  const share = 100 * Math.exp(logprob);
  return share >= 0.01 ? `${share.toFixed(2)} %` : "under 0.01 %";
}

export function visible(text) {
  return text.replaceAll(" ", "␣").replaceAll("\n", "⏎").replaceAll("\t", "⇥");
}
