// The form, the state of a run, and what is said about the model.

import { completion, servedModels } from "./api.js";
import { Inside } from "./inside.js";
import { TokenView } from "./tokens.js";

const NUMBERS = ["max_tokens", "temperature", "top_p", "top_k", "seed", "logprobs"];
const field = (id) => document.getElementById(id);
const view = new TokenView(field("tokens"), field("tooltip"));
const inside = new Inside(() => field("key").value);
let running; // AbortController of the run
let ran; // the body of the last run, and the ids of its prompt and of what came behind it
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
  begin(body);
  const state = { tokens: 0, reason: "", started: performance.now() };
  try {
    const withIds = { ...body, return_token_ids: true };
    for await (const part of completion(withIds, field("key").value, running.signal)) {
      receive(part, state);
    }
    say(summary(state));
  } catch (error) {
    if (error.name === "AbortError") say(`${summary(state)}, stopped`);
    else fail(error);
  } finally {
    view.finish();
    running = undefined;
    enable();
  }
}

function receive({ choices, usage, seed }, state) {
  state.seed = seed;
  for (const choice of choices) {
    view.append(choice);
    ran.prompt.push(...(choice.prompt_token_ids ?? []));
    ran.generated.push(...(choice.token_ids ?? []));
    state.tokens += choice.logprobs?.tokens.length ?? 0;
    state.reason = choice.finish_reason ?? state.reason;
  }
  if (usage) state.tokens = usage.completion_tokens;
  say(`${state.tokens} tokens …`);
}

// A seed repeats the text: one that the server drew is to be seen.
function summary({ tokens, reason, started, seed }) {
  const seconds = (performance.now() - started) / 1000;
  const ended = { stop: ", ended by itself or at the stop string", length: ", cut at max tokens" };
  const drawn = field("seed").value === "" && Number.isInteger(seed) ? `, seed ${seed}` : "";
  return `${tokens} tokens in ${seconds.toFixed(2)} s${ended[reason] ?? ""}${drawn}`;
}

function begin(body) {
  ran = { body, prompt: [], generated: [] };
  field("error").hidden = true;
  view.clear(body.echo ? [...body.prompt].length : 0);
  inside.forget();
  say("waiting for the first token …");
  enable();
}

// The text's tokens are shown from the prompt's end on, unless the prompt is shown too.
function lookInside(index) {
  const { body, prompt, generated } = ran;
  const hidden = body.echo ? 0 : prompt.length;
  const ids = [...prompt, ...generated].slice(0, hidden + view.tokens.length);
  view.mark(index);
  inside.choose({ ids, model: body.model }, hidden + index);
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
    showChoice();
    showModel();
  } catch (error) {
    field("model").textContent = `No model to show: ${error.message}.`;
  }
}

// In the order of training, which is the order to read them in.
function showChoice() {
  const kept = field("checkpoint").value;
  const step = (model) => model.step ?? Infinity;
  const byStep = [...models].sort((a, b) => (step(a) === step(b) ? 0 : step(a) - step(b)));
  field("checkpoint").replaceChildren(...byStep.map(({ id }) => new Option(id, id)));
  field("checkpoint").value = (models.find(({ id }) => id === kept) ?? models[0]).id;
  field("choice").hidden = models.length < 2;
}

function showModel() {
  const chosen = models.find(({ id }) => id === field("checkpoint").value);
  field("model").textContent = `${chosen.id}, context ${chosen.max_model_len} tokens`;
  showProvenance(chosen);
  showCurl();
}

function showProvenance({ system_fingerprint, provenance }) {
  const { files, same_weights, ...rest } = provenance ?? {};
  const named = Object.entries(rest).map(([name, value]) => [name.replaceAll("_", " "), value]);
  const rows = [["fingerprint", system_fingerprint], ...named];
  for (const branch of same_weights ?? []) rows.push(["same weights", branch]);
  for (const [name, sha256] of Object.entries(files ?? {})) rows.push([name, sha256]);
  const cells = rows.flatMap(([name, value]) => {
    const term = document.createElement("dt");
    const text = document.createElement("dd");
    term.textContent = name;
    text.textContent = String(value ?? "none");
    return [term, text];
  });
  document.querySelector("#provenance dl").replaceChildren(...cells);
}

function showCurl() {
  const url = new URL("v1/completions", document.baseURI);
  const key = field("key").value ? " \\\n  -H \"Authorization: Bearer $KEY\"" : "";
  const json = JSON.stringify(request()).replaceAll("'", "'\\''");
  field("curl").textContent =
    `curl ${url} -H 'Content-Type: application/json'${key} \\\n  -d '${json}'`;
}

field("form").addEventListener("submit", run);
field("form").addEventListener("input", showCurl);
field("key").addEventListener("change", askModels);
field("checkpoint").addEventListener("change", showModel);
field("tokens").addEventListener("choose", ({ detail }) => lookInside(detail));
field("stop-button").addEventListener("click", () => running?.abort());
document.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) run(event);
  if (event.key === "Escape") running?.abort();
});
showCurl();
askModels();
