// The page at /: which model answers, from which commit, and what was compared.

import { servedModels } from "./api.js";

const field = (id) => document.getElementById(id);

async function show() {
  try {
    const models = await servedModels(field("key").value);
    tell(models);
    field("facts").hidden = false;
    field("unlock").hidden = true;
    field("status").textContent = "ready";
  } catch (error) {
    field("status").textContent = `No model to show: ${error.message}.`;
    field("unlock").hidden = false;
  }
}

function tell([first, ...others]) {
  const { files, commit, ...origin } = first.provenance ?? {};
  const more = others.length ? ` and ${others.length} more by the field model` : "";
  field("model").textContent = `${first.id}${more}, context ${first.max_model_len} tokens`;
  field("commit").textContent = commit || "none: a directory, or part of the package";
  field("checks").textContent = checks(Object.keys(files ?? {}).length, first.weights);
  field("arithmetic").textContent = arithmetic(origin);
  field("fingerprint").textContent = first.system_fingerprint;
}

function checks(count, weights) {
  const compared = `${count} files compared with their sha256 before the first request`;
  return count ? `${compared}; weights ${weights.slice(0, 12)}` : "no files were compared";
}

function arithmetic({ quantization, matmul, backend, batch_invariant }) {
  const bits = batch_invariant ? "the same bits in every batch" : "bits may depend on the batch";
  return [quantization, matmul, backend, bits].filter(Boolean).join(", ");
}

const base = new URL("v1", document.baseURI).href;
field("base").textContent = base;
field("curl").textContent = `curl -s ${base}/completions -H 'Content-Type: application/json' \\
  -d '{"prompt": "Once upon a time", "max_tokens": 22, "temperature": 0}'`;
field("unlock").addEventListener("submit", (event) => {
  event.preventDefault();
  show();
});
show();
