// Curves over training steps as SVG: steps on a logarithmic axis, log-probabilities below 0.

const NAMESPACE = "http://www.w3.org/2000/svg";
const MARGIN = { top: 10, right: 12, bottom: 24, left: 44 }; // steps.css has left and right too
const TICKS = [0, 1, 10, 100, 1000, 10000, 100000];

// Where a step lies between 0 and 1, when the last one lies at 1. Step 0 has a place too.
export function place(step, last) {
  return Math.log1p(step) / Math.log1p(Math.max(last, 1));
}

export class Curves {
  // choose is called with the step that was pressed.
  constructor(svg, choose) {
    this.svg = svg;
    this.shown = { last: 1, now: undefined, text: [], token: [], training: [] };
    new ResizeObserver(() => this.draw()).observe(svg);
    const pressed = (event) => event.buttons & 1 && this.#choose(event.offsetX, choose);
    svg.addEventListener("pointerdown", pressed);
    svg.addEventListener("pointermove", pressed);
  }

  // text, token and training are lists of [step, log-probability]; last is where the axis ends.
  show(changes) {
    Object.assign(this.shown, changes);
    this.draw();
  }

  draw() {
    const { now, text, token, training } = this.shown;
    this.width = this.svg.clientWidth - MARGIN.left - MARGIN.right;
    this.height = this.svg.clientHeight - MARGIN.top - MARGIN.bottom;
    const values = [...text, ...token, ...training].map(([, value]) => value);
    this.lowest = Math.min(-1, ...values);
    const parts = [...this.#values(), ...this.#steps()];
    if (now !== undefined) parts.push(this.#vertical(this.#x(now), "now"));
    parts.push(this.#line(training, "of-training"));
    parts.push(this.#curve(text, "of-text"), this.#curve(token, "of-token"));
    this.svg.replaceChildren(...parts);
    this.svg.setAttribute("aria-label", this.#inWords());
  }

  #x(step) {
    return MARGIN.left + place(step, this.shown.last) * this.width;
  }

  #y(value) {
    return MARGIN.top + (value / this.lowest) * this.height;
  }

  #choose(x, choose) {
    const { text } = this.shown;
    if (text.length === 0) return;
    const distance = ([step]) => Math.abs(this.#x(step) - x);
    choose(text.reduce((best, point) => (distance(point) < distance(best) ? point : best))[0]);
  }

  // Lines and numbers at whole log-probabilities, some six of them.
  #values() {
    const by = [1, 2, 5, 10, 20, 50].find((size) => -this.lowest / size <= 6) ?? 100;
    const count = Math.floor(-this.lowest / by) + 1;
    return Array.from({ length: count }, (_, index) => -by * index).flatMap((value) => {
      const y = this.#y(value);
      const x2 = MARGIN.left + this.width;
      const line = made("line", { class: "grid", x1: MARGIN.left, x2, y1: y, y2: y });
      const place = { x: MARGIN.left - 6, y, "text-anchor": "end", "dominant-baseline": "middle" };
      return [line, made("text", place, value === 0 ? "0" : `−${-value}`)];
    });
  }

  #steps() {
    const { last } = this.shown;
    const y = MARGIN.top + this.height + 16;
    return TICKS.filter((step) => step <= last).flatMap((step) => {
      const x = this.#x(step);
      const label = step < 1000 ? String(step) : `${step / 1000}k`;
      return [this.#vertical(x, "grid"), made("text", { x, y, "text-anchor": "middle" }, label)];
    });
  }

  #vertical(x, name) {
    return made("line", { class: name, x1: x, x2: x, y1: MARGIN.top, y2: MARGIN.top + this.height });
  }

  #places(points) {
    return points.map(([step, value]) => [this.#x(step), this.#y(value)]);
  }

  #line(points, name = "") {
    const pairs = this.#places(points).map((pair) => pair.join(","));
    return made("polyline", { class: name, points: pairs.join(" ") });
  }

  #curve(points, name) {
    const group = made("g", { class: name });
    const at = this.#places(points);
    group.append(this.#line(points));
    for (const [index, [x, y]] of at.entries()) {
      const isNow = points[index][0] === this.shown.now;
      group.append(made("circle", { cx: x, cy: y, r: isNow ? 5 : 3, class: isNow ? "chosen" : "" }));
    }
    return group;
  }

  #inWords() {
    const { text } = this.shown;
    if (text.length === 0) return "No curve yet";
    const [first, last] = [text[0], text.at(-1)];
    const said = ([step, value]) => `${value.toFixed(2)} at step ${step}`;
    return `Mean log-probability of a token over ${text.length} steps: from ${said(first)} to ${said(last)}`;
  }
}

function made(tag, attributes, text = "") {
  const element = document.createElementNS(NAMESPACE, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.textContent = text;
  return element;
}
