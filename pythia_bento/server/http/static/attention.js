// The attention of one head as a map: a row for each token that looks, a column for each that it
// looks at. Weights are the colour's opacity; one cell is told in words.

import { percent, visible } from "./tokens.js";

export class AttentionMap {
  constructor(box, caption) {
    [this.box, this.caption] = [box, caption];
    this.canvas = box.querySelector("canvas");
    this.marker = box.querySelector("i");
    this.clear();
    box.addEventListener("pointermove", (event) => this.#point(event));
    box.addEventListener("pointerdown", (event) => this.#point(event));
    box.addEventListener("keydown", (event) => this.#move(event));
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.#draw());
  }

  clear() {
    [this.rows, this.names, this.first] = [[], [], 0];
    this.box.hidden = true;
    this.caption.textContent = "";
  }

  // rows are of the tokens from the one with the number first on; names are those of all tokens.
  show(rows, names, first, chosen) {
    [this.rows, this.names, this.first] = [rows, names, first];
    this.box.hidden = false;
    this.#draw();
    const row = chosen - first;
    this.#tell(row, rows[row].indexOf(Math.max(...rows[row])));
  }

  #draw() {
    if (this.rows.length === 0) return;
    const [width, height] = [this.names.length, this.rows.length];
    Object.assign(this.canvas, { width, height });
    const context = this.canvas.getContext("2d");
    const [red, green, blue] = getComputedStyle(this.box).color.match(/[\d.]+/g).map(Number);
    const image = context.createImageData(width, height);
    for (const [index, weight] of this.rows.flat().entries()) {
      image.data.set([red, green, blue, Math.round(255 * weight)], 4 * index);
    }
    context.putImageData(image, 0, 0);
  }

  // A token looks at itself and at those before it.
  #tell(row, column) {
    this.row = Math.min(Math.max(row, 0), this.rows.length - 1);
    const looking = this.first + this.row;
    this.column = Math.min(Math.max(column, 0), looking);
    const place = { row: this.row, column: this.column };
    const sizes = { rows: this.rows.length, columns: this.names.length };
    for (const [name, value] of Object.entries({ ...place, ...sizes })) {
      this.marker.style.setProperty(`--${name}`, value);
    }
    const weight = percent(Math.log(this.rows[this.row][this.column]));
    const [from, to] = [looking, this.column].map((at) => `“${visible(this.names[at])}” (${at})`);
    this.caption.textContent = `${from} looks at ${to}: ${weight}`;
  }

  #point(event) {
    const rect = this.canvas.getBoundingClientRect();
    const [x, y] = [(event.clientX - rect.left) / rect.width, (event.clientY - rect.top) / rect.height];
    this.#tell(Math.floor(y * this.rows.length), Math.floor(x * this.names.length));
  }

  #move(event) {
    const steps = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
    const [rows, columns] = steps[event.key] ?? [];
    if (rows === undefined) return;
    event.preventDefault();
    this.#tell(this.row + rows, this.column + columns);
  }
}
