// What layers would say in a token's place (the logit lens), and where a head looks.

import { activations } from "./api.js";
import { AttentionMap } from "./attention.js";
import { element, percent, visible } from "./tokens.js";

const TOP = 3; // tokens of each layer
const MOST_NUMBERS = 65536; // of an answer in JSON
const RESIDUAL = "hook_resid_post";
const field = (id) => document.getElementById(id);

export class Inside {
  // key is a function that gives the one to ask with.
  constructor(key) {
    this.key = key;
    this.map = new AttentionMap(field("map"), field("cell"));
    for (const id of ["layer", "head"]) field(id).addEventListener("change", () => this.#look());
    this.forget();
  }

  // Of a text that is no longer there.
  forget() {
    this.asking?.abort();
    this.text = undefined;
    this.map.clear();
    field("inside-parts").hidden = true;
    field("inside-error").hidden = true;
    field("inside-hint").hidden = false;
    say("");
  }

  // A token of a text: text is { ids, model }, at the number of one of its tokens.
  async choose(text, at) {
    await this.#ask(async (signal) => {
      Object.assign(this, { text, at });
      await this.#layers(signal);
      await this.#attention(signal);
      field("inside-hint").hidden = true;
      field("inside-parts").hidden = false;
    });
  }

  #look() {
    if (this.text) return this.#ask((signal) => this.#attention(signal));
  }

  // One question at a time: another one ends the one before.
  async #ask(question) {
    this.asking?.abort();
    const asking = (this.asking = new AbortController());
    field("inside-error").hidden = true;
    say("asking …");
    try {
      await question(asking.signal);
      const before = this.at ? "" : ": nothing comes before it";
      say(`token ${this.at}, “${visible(this.names[this.at])}”${before}`);
    } catch (error) {
      if (this.asking !== asking || error.name === "AbortError") return;
      say("");
      field("inside-error").textContent = error.message;
      field("inside-error").hidden = false;
    }
  }

  async #captured(capture, signal) {
    const { ids, model } = this.text;
    const body = { prompts: [ids], capture, ...(model && { model }) };
    const answer = await activations(body, this.key(), signal);
    signal.throwIfAborted();
    return answer;
  }

  // What stands in a token's place is said at the one before it. The norms tell how many layers and
  // heads there are.
  async #layers(signal) {
    const [id, hasPlace] = [this.text.ids[this.at], this.at > 0];
    const norms = { site: "blocks.*.attn.hook_q", positions: [0], reduce: "norm" };
    const capture = hasPlace ? [norms, this.#lens(id)] : [norms];
    const answer = await this.#captured(capture, signal);
    const { tensors } = answer;
    this.names = answer.tokens[0];
    fill("layer", Object.keys(tensors).filter((name) => name.endsWith("hook_q:norm")).length);
    fill("head", tensors["0:blocks.0.attn.hook_q:norm"][0].length);
    field("lens").hidden = !hasPlace;
    if (!hasPlace) return;
    const layers = read(answer);
    const final = layers.at(-1).ids[0];
    const again = final === id ? layers : read(await this.#captured([this.#lens(final)], signal));
    for (const [index, layer] of layers.entries()) layer.final = again[index].given;
    this.#fillTable(layers);
  }

  #lens(token) {
    const reduce = { lens: { top: TOP, tokens: [token] } };
    return { site: `blocks.*.${RESIDUAL}`, positions: [this.at - 1], reduce };
  }

  #fillTable(layers) {
    const own = visible(this.names[this.at]);
    field("final").textContent = `“${visible(layers.at(-1).names[0])}”, the answer`;
    field("this").textContent = `“${own}”, this token`;
    const said = (layer) => layer.names.map((name, index) => [name, layer.logprobs[index]]);
    const rows = layers.map((layer, index) => {
      const row = element("tr");
      row.append(element("th", index));
      const words = said(layer).map(([name, logprob]) => `${visible(name)} ${percent(logprob)}`);
      row.append(element("td", words.join("\n")), share(layer.final), share(layer.given));
      row.firstChild.scope = "row";
      return row;
    });
    field("lens").tBodies[0].replaceChildren(...rows);
  }

  // Of a long text some rows around the token.
  async #attention(signal) {
    const { ids } = this.text;
    const count = Math.min(Math.floor(MOST_NUMBERS / ids.length), ids.length);
    const first = Math.min(Math.max(this.at - Math.floor(count / 2), 0), ids.length - count);
    const site = `blocks.${field("layer").value}.attn.hook_pattern`;
    const heads = [Number(field("head").value)];
    const capture = [{ site, heads, positions: { from: first, to: first + count } }];
    const { tensors } = await this.#captured(capture, signal);
    this.map.show(tensors[`0:${site}`][0], this.names, first, this.at);
  }
}

// By layer: the likeliest tokens, and the log-probability of the one that was given.
function read({ tensors, lens_tokens }) {
  const layers = [];
  for (let layer = 0; `0:blocks.${layer}.${RESIDUAL}:lens_ids` in tensors; layer++) {
    const name = `0:blocks.${layer}.${RESIDUAL}`;
    layers.push({
      ids: tensors[`${name}:lens_ids`][0],
      names: lens_tokens[`${name}:lens_ids`][0],
      logprobs: tensors[`${name}:lens_logprobs`][0],
      given: tensors[`${name}:lens_token_logprobs`][0][0],
    });
  }
  return layers;
}

function share(logprob) {
  const cell = element("td", percent(logprob));
  const bar = element("i");
  bar.style.setProperty("--share", Math.exp(logprob).toFixed(4));
  cell.append(bar);
  return cell;
}

// Numbers from 0, of which the one that was chosen stays.
function fill(id, count) {
  const select = field(id);
  if (select.options.length === count) return;
  select.replaceChildren(...Array.from({ length: count }, (_, number) => new Option(number)));
}

function say(text) {
  field("inside-status").textContent = text;
}
