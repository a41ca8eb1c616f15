// What a sweep has told of one text so far: a point for each step, by step.

import { csv } from "./saving.js";

export class Training {
  constructor() {
    this.points = [];
    this.failures = []; // sentences
    this.expected = 0;
    this.checkpoints = new Map(); // by index
  }

  // One event; whether there is a new point.
  take(event) {
    if (event.event === "start") this.expected = event.checkpoints;
    if (event.event === "checkpoint") this.checkpoints.set(event.index, event);
    if (event.event === "error") this.failures.push(event.error.message);
    return event.event === "row" && this.#row(event);
  }

  #row({ checkpoint, logprob, num_tokens, tokens, error }) {
    const { step, tokens_seen, model, weights, computed } = this.checkpoints.get(checkpoint);
    if (error) {
      this.failures.push(`step ${step}: ${error.message}`);
      return false;
    }
    const mean = num_tokens ? logprob / num_tokens : 0;
    this.points.push({ step, tokens_seen, model, weights, computed, mean, tokens });
    this.points.sort((one, other) => one.step - other.step);
    return true;
  }

  at(step) {
    return this.points.find((point) => point.step === step);
  }

  // The step before or behind another one, which is the last there is at the ends.
  beside(step, by) {
    const now = this.points.findIndex((point) => point.step === step);
    const wanted = Math.min(Math.max(now + by, 0), this.points.length - 1);
    return this.points[wanted]?.step;
  }

  curve() {
    return this.points.map(({ step, mean }) => [step, mean]);
  }

  // Of a token of the text; the first one has none.
  tokenCurve(index) {
    if (!(index > 0)) return [];
    return this.points.map(({ step, tokens }) => [step, tokens[index - 1].logprob]);
  }

  // One line for each token and step. names are the tokens' texts.
  csv(names) {
    const lines = [["model", "step", "tokens_seen", "position", "id", "text", "logprob", "rank"]];
    for (const { model, step, tokens_seen, tokens } of this.points) {
      for (const [index, { id, logprob, rank }] of tokens.entries()) {
        lines.push([model, step, tokens_seen, index + 1, id, names[index + 1], logprob, rank]);
      }
    }
    return csv(lines);
  }
}
