// The two calls that the page makes; every failure is an Error whose message can be shown.

// All that may be asked for; the first is the default.
export async function servedModels(key) {
  const response = await call("v1/models", key);
  return (await response.json()).data;
}

// Yields the parsed events of a streamed completion.
export async function* completion(body, key, signal) {
  const response = await call("v1/completions", key, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ ...body, stream: true, stream_options: { include_usage: true } }),
    signal,
  });
  for await (const data of events(response.body)) {
    if (data === "[DONE]") return;
    const event = JSON.parse(data);
    if (event.error) throw new Error(event.error.message);
    yield event;
  }
  throw new Error("the server ended the answer before it was complete");
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

async function* events(stream) {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const parts = (text + value).split("\n\n");
    text = parts.pop();
    for (const part of parts) yield part.replace(/^data: /, "");
  }
}
