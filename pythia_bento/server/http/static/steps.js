// The page of steps: a text, the slider over training, and what is shown of the step it is at.

import { servedModels, spelled, sweep, training as trainingLosses } from "./api.js";
import { Curves, place } from "./curves.js";
import { showLegend } from "./measures.js";
import { save as saveFile } from "./saving.js";
import { TokenView, visible } from "./tokens.js";
import { Training } from "./training.js";

const PLAY_MS = 500; // a step
const field = (id) => document.getElementById(id);
const view = new TokenView(field("tokens"), field("tooltip"));
const curves = new Curves(field("curves"), (step) => choose(step));
let models = []; // those with a step
let training = new Training();
let running; // AbortController of the sweep
let playing; // timer
let now; // the step that is shown
let hasChosen = false; // whether somebody did; until then the newest is shown
let token; // index of the one that was looked at last

function request() {
  return {
    model: field("name").value,
    steps: field("steps").value,
    task: { type: "score", tokens: true },
    items: [{ prompt: field("text").value }],
  };
}

async function run(event) {
  event?.preventDefault();
  if (running) return;
  running = new AbortController();
  const body = request();
  begin(body.model);
  try {
    const key = field("key").value;
    const spelling = await spelled(body.items[0].prompt, key, running.signal);
    view.append(spelling);
    view.finish();
    view.update([]);
    const ids = spelling.prompt_token_ids.slice(1).join();
    for await (const told of sweep(body, key, running.signal)) receive(told, ids);
    say(`${training.points.length} of ${training.expected} steps`);
  } catch (error) {
    if (error.name === "AbortError") say(`${training.points.length} steps, stopped`);
    else fail(error.message);
  } finally {
    running = undefined;
    enable();
  }
}

function begin(name) {
  pause();
  training = new Training();
  [now, token, hasChosen] = [undefined, undefined, false];
  field("error").hidden = true;
  field("token-name").textContent = "point at a token for its own curve";
  field("at").textContent = "none yet";
  view.clear(0);
  const last = Math.max(...models.filter((model) => named(model) === name).map(({ step }) => step));
  curves.show({ last, now: undefined, text: [], token: [] });
  say("waiting for the first step …");
  fillTable();
  enable();
}

function receive(event, ids) {
  if (training.take(event)) {
    const newest = training.checkpoints.get(event.checkpoint).step;
    if (event.tokens.map(({ id }) => id).join() !== ids) {
      throw new Error(`step ${newest} has other tokens for this text than the server's default`);
    }
    say(`${training.points.length} of ${training.expected} steps …`);
    choose(hasChosen ? now : newest);
    fillTable();
    enable();
  } else if (event.event === "error" || event.error) {
    fail(training.failures.join("; "));
  }
}

// Shows a step that has arrived.
function choose(step) {
  const point = training.at(step);
  if (!point) return;
  now = step;
  const seen = `${(point.tokens_seen / 1e9).toPrecision(3)} billion tokens seen`;
  const words = `${step}, ${seen}, mean log-probability ${point.mean.toFixed(4)}`;
  field("at").textContent = words;
  field("step").value = place(step, curves.shown.last);
  field("step").setAttribute("aria-valuetext", `step ${words}`);
  view.update([undefined, ...point.tokens]);
  draw();
}

function draw() {
  curves.show({ now, text: training.curve(), token: training.tokenCurve(token) });
  for (const row of field("table").tBodies[0].rows) {
    row.toggleAttribute("aria-current", Number(row.dataset.step) === now);
  }
}

function move(by) {
  hasChosen = true;
  choose(training.beside(now, by));
}

// The slider is at any place of the axis; the nearest step is meant.
function slide() {
  hasChosen = true;
  const wanted = Number(field("step").value);
  const far = ({ step }) => Math.abs(place(step, curves.shown.last) - wanted);
  choose(training.points.reduce((best, one) => (far(one) < far(best) ? one : best)).step);
}

function press(event) {
  const steps = { ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1, Home: -Infinity, End: Infinity };
  const isElsewhere = event.target.closest("textarea, select, input:not(#step), #tokens");
  const isOfSlider = event.target === field("step") || ["ArrowLeft", "ArrowRight"].includes(event.key);
  if (isElsewhere || !isOfSlider || !(event.key in steps) || event.ctrlKey || event.altKey || event.metaKey) return;
  if (training.points.length === 0) return;
  event.preventDefault();
  pause();
  move(steps[event.key]);
}

// From the step that is shown on, or from the first where it is the last.
function play() {
  if (playing) return pause();
  if (!running && now === training.points.at(-1).step) move(-Infinity);
  playing = setInterval(advance, PLAY_MS);
  field("play").textContent = "Pause";
}

function advance() {
  move(1);
  if (!running && now === training.points.at(-1).step) pause();
}

function pause() {
  clearInterval(playing);
  playing = undefined;
  field("play").textContent = "Play";
}

function save() {
  const names = view.tokens.map(({ span, name }) => span.textContent || name);
  saveFile(`${field("name").value}-steps.csv`, "text/csv", training.csv(names));
}

function fillTable() {
  const rows = training.points.map((point) => {
    const row = document.createElement("tr");
    row.dataset.step = point.step;
    const again = point.computed ? "" : " (as before)";
    const cells = [
      point.step,
      point.tokens_seen,
      point.mean.toFixed(4),
      `${(point.weights ?? "").slice(0, 12)}${again}`,
    ];
    for (const cell of cells) row.insertCell().textContent = cell;
    return row;
  });
  field("table").tBodies[0].replaceChildren(...rows);
  draw();
}

function look({ detail }) {
  token = detail;
  const { span, name } = view.tokens[detail];
  field("token-name").textContent = `token ${visible(span.textContent || name)}`;
  draw();
}

function enable() {
  const isEmpty = training.points.length === 0;
  field("run").disabled = Boolean(running) || models.length === 0;
  field("stop-button").disabled = !running;
  for (const id of ["step", "play", "save"]) field(id).disabled = isEmpty;
  field("tokens").setAttribute("aria-busy", String(Boolean(running)));
}

function say(text) {
  field("status").textContent = text;
}

function fail(message) {
  field("error").textContent = message;
  field("error").hidden = false;
}

function named({ id }) {
  return id.split("@")[0];
}

async function askModels() {
  try {
    const all = await servedModels(field("key").value);
    models = all.filter(({ step }) => step !== null);
    const names = [...new Set(models.map(named))];
    field("name").replaceChildren(...names.map((name) => new Option(name, name)));
    showModel();
  } catch (error) {
    field("model").textContent = `No steps to show: ${error.message}.`;
  }
  enable();
}

function showModel() {
  const name = field("name").value;
  const own = models.filter((model) => named(model) === name).map(({ step }) => step);
  const range = own.length ? `${own.length} steps of ${name}, ${Math.min(...own)} to ${Math.max(...own)}` : "";
  field("model").textContent = range || "What is served here has no steps of training.";
  showTraining(name, Math.max(...own, 1));
  showCurl();
}

// What the package knows of its own model alone.
async function showTraining(name, last) {
  const isBundled = name === "bundled";
  field("training-key").hidden = !isBundled;
  const losses = isBundled ? await trainingLosses() : [];
  if (field("name").value !== name) return; // another one was chosen since
  curves.show({ last, training: losses.map(([step, loss]) => [step, -loss]) });
}

function showCurl() {
  const url = new URL("v1/sweep", document.baseURI);
  const key = field("key").value ? " \\\n  -H \"Authorization: Bearer $KEY\"" : "";
  const json = JSON.stringify(request()).replaceAll("'", "'\\''");
  field("curl").textContent =
    `curl -N ${url} -H 'Content-Type: application/json'${key} \\\n  -d '${json}'`;
}

field("form").addEventListener("submit", run);
field("form").addEventListener("input", showCurl);
field("key").addEventListener("change", askModels);
field("name").addEventListener("change", showModel);
field("stop-button").addEventListener("click", () => running?.abort());
field("step").addEventListener("input", slide);
field("play").addEventListener("click", play);
field("save").addEventListener("click", save);
field("tokens").addEventListener("token", look);
document.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) run(event);
  if (event.key === "Escape") running?.abort();
  press(event);
});
showLegend(field("legend"), "surprise");
askModels();
