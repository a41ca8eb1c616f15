"use strict";
const { label, log, curves } = JSON.parse(document.getElementById("data").textContent);
const svg = document.getElementById("chart");
const legend = document.getElementById("legend");
const reading = document.getElementById("reading");
const LEFT = 70, RIGHT = 940, TOP = 15, BOTTOM = 430;

// Steps 0 and 1 are apart by as much as 1 and 10.
const position = (step) => (step <= 1 ? step : 1 + Math.log10(step));
const height = (value) => (log ? Math.log10(value) : value);

function range(numbers) {
  let low = Infinity, high = -Infinity;
  for (const number of numbers) { low = Math.min(low, number); high = Math.max(high, number); }
  return low < high ? [low, high] : [low - 0.5, high + 0.5];
}

const steps = [...new Set(curves.flatMap((curve) => curve.steps))].sort((a, b) => a - b);
const [firstX, lastX] = range(steps.map(position));
const [low, high] = range(curves.flatMap((curve) => curve.values).map(height));
const x = (step) => LEFT + ((position(step) - firstX) / (lastX - firstX)) * (RIGHT - LEFT);
const y = (value) => BOTTOM - ((height(value) - low) / (high - low)) * (BOTTOM - TOP);

function add(name, attributes, text = "") {
  const element = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.textContent = text;
  svg.append(element);
  return element;
}

function ticks(from, to) {
  const rough = (to - from) / 6;
  const power = 10 ** Math.floor(Math.log10(rough));
  const unit = [1, 2, 5, 10].map((n) => n * power).find((n) => n >= rough);
  const found = [];
  for (let n = Math.ceil(from / unit); n * unit <= to; n++) found.push(n * unit);
  return found;
}

const shown = (value) => (Number.isInteger(value) ? value.toLocaleString("en") : String(Number(value.toPrecision(6))));

function axes() {
  for (const at of ticks(low, high)) {
    const value = log ? 10 ** at : at;
    add("line", { class: "grid", x1: LEFT, x2: RIGHT, y1: y(value), y2: y(value) });
    add("text", { x: LEFT - 8, y: y(value) + 4, "text-anchor": "end" }, String(Number(value.toPrecision(3))));
  }
  for (const step of [0, 1, 10, 100, 1000, 10000, 100000, 1000000]) {
    if (position(step) < firstX || position(step) > lastX) continue;
    add("line", { class: "grid", x1: x(step), x2: x(step), y1: TOP, y2: BOTTOM });
    add("text", { x: x(step), y: BOTTOM + 20, "text-anchor": "middle" }, step.toLocaleString("en"));
  }
  add("text", { x: (LEFT + RIGHT) / 2, y: 472, "text-anchor": "middle" }, "training step");
  add("text", { x: -(TOP + BOTTOM) / 2, y: 14, transform: "rotate(-90)", "text-anchor": "middle" }, label);
}

const models = [...new Set(curves.map((curve) => curve.model))];
const title = (curve) => (curve.mean ? `${curve.model}, all items` : models.length > 1 ? `${curve.model}, ${curve.name}` : curve.name);

// Of several models each has a hue; of one its items have.
function hue(curve, index) {
  const place = models.length > 1 ? models.indexOf(curve.model) : curve.mean ? 0 : index + 1;
  return `hsl(${(215 + place * 137.508) % 360} 65% ${models.length > 1 || !curve.mean ? 48 : 40}%)`;
}

function draw(curve, index) {
  const colour = hue(curve, index);
  const points = curve.steps.map((step, i) => `${x(step).toFixed(1)} ${y(curve.values[i]).toFixed(1)}`);
  const path = add("path", { class: curve.mean ? "curve mean" : "curve", d: `M${points.join("L")}` });
  const button = document.createElement("button");
  button.type = "button";
  button.textContent = title(curve);
  for (const element of [path, button]) element.style.setProperty("--hue", colour);
  button.addEventListener("click", () => choose(curve, curve.steps.length - 1));
  const line = document.createElement("li");
  line.append(button);
  legend.append(line);
  Object.assign(curve, { path, button, colour });
}

let chosen = null;

function choose(curve, i) {
  for (const element of [chosen?.curve.path, chosen?.curve.button]) element?.classList.remove("on");
  chosen = curve && { curve, i };
  svg.classList.toggle("chosen", Boolean(curve));
  dot.setAttribute("visibility", curve ? "visible" : "hidden");
  if (!curve) { reading.textContent = ""; return; }
  for (const element of [curve.path, curve.button]) element.classList.add("on");
  dot.style.setProperty("--hue", curve.colour);
  dot.setAttribute("cx", x(curve.steps[i]));
  dot.setAttribute("cy", y(curve.values[i]));
  reading.textContent = `${title(curve)}: step ${curve.steps[i].toLocaleString("en")}, ${shown(curve.values[i])}`;
}

function nearest(event) {
  const at = new DOMPoint(event.clientX, event.clientY).matrixTransform(svg.getScreenCTM().inverse());
  let best = null, distance = Infinity;
  for (const curve of curves) {
    for (let i = 0; i < curve.steps.length; i++) {
      const far = Math.hypot(x(curve.steps[i]) - at.x, y(curve.values[i]) - at.y);
      if (far < distance) [best, distance] = [{ curve, i }, far];
    }
  }
  return best;
}

const MOVES = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };

function move(event) {
  if (event.key === "Escape") choose(null);
  const by = MOVES[event.key];
  if (!by) return;
  event.preventDefault();
  if (!chosen) { choose(curves.at(-1), 0); return; }
  const curve = curves[(curves.indexOf(chosen.curve) + by[0] + curves.length) % curves.length];
  const near = by[0] ? curve.steps.findLastIndex((step) => step <= chosen.curve.steps[chosen.i]) : chosen.i + by[1];
  choose(curve, Math.min(Math.max(near, 0), curve.steps.length - 1));
}

axes();
curves.forEach(draw);
const dot = add("circle", { id: "dot", r: 5, visibility: "hidden" });
svg.addEventListener("pointermove", (event) => { const best = nearest(event); choose(best.curve, best.i); });
svg.addEventListener("pointerleave", () => choose(null));
svg.addEventListener("keydown", move);
