// The form and the state of a run.

import { completion, servedModels } from "./api.js";
import { Inside } from "./inside.js";
import { differs, fromHash, toHash } from "./link.js";
import { MEASURES, rank, showLegend } from "./measures.js";
import { showChoice, showProvenance } from "./models.js";
import { copy, csv, save } from "./saving.js";
import { TokenView } from "./tokens.js";

const NUMBERS = ["max_tokens", "temperature", "top_p", "top_k", "seed", "logprobs"];
const EXAMPLE = "Once upon a time, there was a lonely boy named Finn. Finn lived in a big banana near the river.";
const field = (id) => document.getElementById(id);
const view = new TokenView(field("tokens"), field("tooltip"));
const second = new TokenView(field("second"), field("tooltip"));
const inside = new Inside(() => field("key").value);
let running; // AbortController of the run
let showing; // of the example
let ran; // the body of the last run, what came of it, and the ids of its prompt and of what came behind
let linked; // what the address said, until somebody asks for something else
let models = []; // the default first

function request() {
  const body = { prompt: field("prompt").value };
  if (models.length > 1) body.model = field("checkpoint").value;
  for (const name of NUMBERS) {
    if (field(name).value !== "") body[name] = Number(field(name).value);
  }
  body.logprobs ??= 0; // without log-probabilities there is nothing to colour
  if (field("stop").value) body.stop = [field("stop").value];
  if (field("echo").checked) body.echo = true;
  return body;
}

async function run(event) {
  event?.preventDefault();
  if (running) return;
  running = new AbortController();
  const body = request();
  const beside = models.length > 1 ? field("beside").value : "";
  begin(body, beside);
  try {
    await receive(body, view, running.signal, ran);
    // A seed that was drawn holds for both.
    const seed = ran.first.seed ?? body.seed;
    if (beside) await receive({ ...body, model: beside, seed }, second, running.signal);
    say(summary(ran.first) + elsewhere());
    keep(beside);
  } catch (error) {
    if (error.name === "AbortError") say(`${summary(ran.first)}, stopped`);
    else fail(error);
  } finally {
    view.finish();
    second.finish();
    running = undefined;
    enable();
  }
}

// One text, into its place. What came of it is told to `of`, where there is one.
async function receive(body, place, signal, of) {
  const state = { tokens: 0, reason: "", started: performance.now() };
  if (of) of.first = state;
  const withIds = { ...body, return_token_ids: true };
  for await (const part of completion(withIds, field("key").value, signal)) {
    const { choices, usage, seed, system_fingerprint } = part;
    Object.assign(state, { seed, fingerprint: system_fingerprint });
    for (const choice of choices) {
      place.append(choice);
      of?.prompt.push(...(choice.prompt_token_ids ?? []));
      of?.generated.push(...(choice.token_ids ?? []));
      state.tokens += choice.logprobs?.tokens.length ?? 0;
      state.reason = choice.finish_reason ?? state.reason;
    }
    if (usage) state.tokens = usage.completion_tokens;
    if (running) say(`${state.tokens} tokens …`);
  }
  state.seconds = (performance.now() - state.started) / 1000;
}

// A seed repeats the text: one that the server drew is to be seen.
function summary({ tokens, reason, started, seconds, seed }) {
  const took = seconds ?? (performance.now() - started) / 1000;
  const ended = { stop: ", ended by itself or at the stop string", length: ", cut at max tokens" };
  const drawn = field("seed").value === "" && Number.isInteger(seed) ? `, seed ${seed}` : "";
  return `${tokens} tokens in ${took.toFixed(2)} s${ended[reason] ?? ""}${drawn}`;
}

function elsewhere() {
  const isOther = differs(linked, ran.first.fingerprint);
  return isOther ? "; the link was made by another server, whose bits may differ" : "";
}

function begin(body, beside) {
  showing?.abort();
  ran = { body, beside, first: { tokens: 0, reason: "", started: performance.now() }, prompt: [], generated: [] };
  field("error").hidden = true;
  field("take").hidden = true;
  for (const place of [view, second]) {
    place.clear(body.echo ? [...body.prompt].length : 0, body.logprobs);
  }
  field("texts").classList.toggle("pair", Boolean(beside));
  for (const id of ["second", "of-first", "of-second"]) field(id).hidden = !beside;
  field("of-first").textContent = body.model;
  field("of-second").textContent = beside;
  inside.forget();
  say("waiting for the first token …");
  enable();
  if (matchMedia("(max-width: 50rem)").matches) field("output-title").scrollIntoView();
}

// A text to look at, until somebody asks for one: it is read, which costs the server little.
async function showExample() {
  if (ran || running) return;
  showing = new AbortController();
  const body = { prompt: EXAMPLE, max_tokens: 0, echo: true, logprobs: 5 };
  if (models.length > 1) body.model = field("checkpoint").value;
  const example = { body, prompt: [], generated: [] };
  ran = example;
  view.clear(0, body.logprobs);
  try {
    await receive(body, view, showing.signal, example);
    say("An example: what surprises the model in a text.");
    view.finish();
  } catch (error) {
    if (error.name !== "AbortError") fail(error);
  }
}

// What was asked for, as an address that gives it again to the bit.
function keep(beside) {
  const seed = ran.first.seed ?? ran.body.seed;
  const measure = field("measure").value;
  const more = { seed, beside, measure, fingerprint: ran.first.fingerprint };
  history.replaceState(null, "", toHash(ran.body, more));
  field("take").hidden = false;
}

function followLink() {
  linked = fromHash(location.hash);
  if (!linked) return false;
  for (const name of [...NUMBERS, "prompt", "stop"]) field(name).value = linked[name] ?? "";
  field("echo").checked = linked.echo === "true";
  if (linked.measure in MEASURES) field("measure").value = linked.measure;
  for (const [id, wanted] of [["checkpoint", linked.model], ["beside", linked.beside]]) {
    const isThere = [...field(id).options].some(({ value }) => value === wanted);
    if (isThere) field(id).value = wanted;
    else if (wanted) return fail(new Error(`${wanted} of the link is not served here`));
  }
  colour();
  showModel();
  run();
  return true;
}

// The text's tokens are shown from the prompt's end on, unless the prompt is shown too.
function lookInside(index) {
  const { body, prompt, generated } = ran;
  const hidden = body.echo ? 0 : prompt.length;
  const ids = [...prompt, ...generated].slice(0, hidden + view.tokens.length);
  view.mark(index);
  inside.choose({ ids, model: body.model }, hidden + index);
}

// Tokens as they stand on the page, of one text or of both.
function told() {
  const { body, beside } = ran;
  const texts = [[body.model ?? models[0].id, view], ...(beside ? [[beside, second]] : [])];
  return texts.flatMap(([model, { tokens }]) =>
    tokens.map((token, position) => ({
      model,
      position,
      text: token.span.textContent || token.name,
      logprob: token.logprob,
      rank: rank(token) ?? null,
      top_logprobs: token.top,
    })),
  );
}

function copyJson() {
  const { body, first } = ran;
  const made = { request: { ...body, seed: first.seed ?? body.seed }, system_fingerprint: first.fingerprint };
  take(JSON.stringify({ ...made, tokens: told() }, null, 1), "tokens");
}

function saveCsv() {
  const names = ["model", "position", "text", "logprob", "rank"];
  const lines = told().map((token) => names.map((name) => token[name]));
  save("tokens.csv", "text/csv", csv([names, ...lines]));
}

async function take(text, what) {
  try {
    await copy(text);
    say(`${what} copied`);
  } catch (error) {
    fail(error);
  }
}

function colour() {
  const measure = field("measure").value;
  for (const place of [view, second]) place.color(measure);
  showLegend(field("legend"), measure);
}

function enable() {
  field("run").disabled = Boolean(running);
  field("stop-button").disabled = !running;
  field("tokens").setAttribute("aria-busy", String(Boolean(running)));
}

function say(text) {
  field("status").textContent = text;
}

function fail(error) {
  say("");
  field("error").textContent = error.message;
  field("error").hidden = false;
}

async function askModels() {
  try {
    models = await servedModels(field("key").value);
  } catch (error) {
    field("model").textContent = `No model to show: ${error.message}.`;
    return;
  }
  showChoice(models, field("checkpoint"), field("beside"));
  field("choice").hidden = models.length < 2;
  showModel();
  if (!ran && !followLink()) showExample();
}

function showModel() {
  const chosen = models.find(({ id }) => id === field("checkpoint").value);
  field("model").textContent = `${chosen.id}, context ${chosen.max_model_len} tokens`;
  showProvenance(document.querySelector("#provenance dl"), chosen);
  showCurl();
}

function showCurl() {
  const url = new URL("v1/completions", document.baseURI);
  const key = field("key").value ? " \\\n  -H \"Authorization: Bearer $KEY\"" : "";
  const json = JSON.stringify(request()).replaceAll("'", "'\\''");
  field("curl").textContent =
    `curl ${url} -H 'Content-Type: application/json'${key} \\\n  -d '${json}'`;
}

field("form").addEventListener("submit", run);
field("form").addEventListener("input", () => {
  linked = undefined;
  showCurl();
});
field("key").addEventListener("change", askModels);
field("checkpoint").addEventListener("change", showModel);
field("measure").addEventListener("change", colour);
field("tokens").addEventListener("choose", ({ detail }) => lookInside(detail));
field("stop-button").addEventListener("click", () => running?.abort());
field("copy-link").addEventListener("click", () => take(location.href, "link"));
field("copy-json").addEventListener("click", copyJson);
field("save-csv").addEventListener("click", saveCsv);
window.addEventListener("hashchange", followLink);
document.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) run(event);
  if (event.key === "Escape") running?.abort();
});
colour();
showCurl();
askModels();
