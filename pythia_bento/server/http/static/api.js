// The calls that the pages make; every failure is an Error whose message can be shown.

const BROKEN = "the server ended the answer before it was complete";

// All that may be asked for; the first is the default.
export async function servedModels(key) {
  const response = await call("v1/models", key);
  return (await response.json()).data;
}

// How the bundled model was trained: pairs of a step and the mean loss up to there.
export async function training() {
  return (await call("playground/training.json")).json();
}

// Yields the parsed events of a streamed completion. What has arrived when `signal` says to end is
// not told any more; the same in a sweep.
export async function* completion(body, key, signal) {
  const streamed = { ...body, stream: true, stream_options: { include_usage: true } };
  const response = await post("v1/completions", streamed, key, signal);
  for await (const part of parts(response.body, "\n\n")) {
    const data = part.replace(/^data: /, "");
    if (data === "[DONE]") return;
    const event = JSON.parse(data);
    if (event.error) throw new Error(event.error.message);
    yield event;
    signal.throwIfAborted();
  }
  throw new Error(BROKEN);
}

// The tokens of a text as a completion that is the text alone; `prompt_token_ids` are beside them.
export async function spelled(text, key, signal) {
  const body = { prompt: text, max_tokens: 0, echo: true, logprobs: 0, return_token_ids: true };
  const response = await post("v1/completions", body, key, signal);
  return (await response.json()).choices[0];
}

// What the model computes of a prompt, as numbers by the names of tensors.
export async function activations(body, key, signal) {
  const response = await post("v1/activations", { ...body, format: "json" }, key, signal);
  return response.json();
}

// Yields the events of a sweep; what fails of it is an event too, unless all of it does.
export async function* sweep(body, key, signal) {
  const response = await post("v1/sweep", body, key, signal);
  for await (const line of parts(response.body, "\n")) {
    const event = JSON.parse(line);
    if (event.event === "error" && event.checkpoint == null) throw new Error(event.error.message);
    yield event;
    signal.throwIfAborted();
    if (event.event === "end") return;
  }
  throw new Error(BROKEN);
}

function post(path, body, key, signal) {
  const headers = { "Content-Type": "application/json" };
  return call(path, key, { method: "POST", headers, body: JSON.stringify(body), signal });
}

async function call(path, key, options = {}) {
  const headers = { ...options.headers, ...(key && { Authorization: `Bearer ${key}` }) };
  let response;
  try {
    response = await fetch(path, { ...options, headers });
  } catch (error) {
    throw error.name === "AbortError" ? error : new Error("the server cannot be reached");
  }
  if (!response.ok) throw new Error(await sentence(response));
  return response;
}

async function sentence(response) {
  const wait = response.headers.get("Retry-After");
  const after = wait ? ` (again in ${wait} s)` : "";
  try {
    return (await response.json()).error.message + after;
  } catch {
    return `the server answered with status ${response.status}${after}`;
  }
}

// What stands between separators, each as soon as it is whole.
async function* parts(stream, separator) {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const found = (text + value).split(separator);
    text = found.pop();
    yield* found;
  }
}
