// What a link to a text says: the request with its seed, in the part of the address that browsers keep
// to themselves. Equal requests have equal answers, so that the link is the text.

const ELSEWHERE = "fingerprint"; // of the server that made the text

export function toHash(body, beside) {
  const { logprobs, stop, ...rest } = body;
  const said = { ...rest, logprobs, ...(stop && { stop: stop[0] }), ...beside };
  const pairs = Object.entries(said).filter(([, value]) => value !== undefined && value !== "");
  return `#${new URLSearchParams(pairs.map(([name, value]) => [name, String(value)]))}`;
}

// Values by name, as text; undefined where the address says nothing.
export function fromHash(hash) {
  const said = Object.fromEntries(new URLSearchParams(hash.slice(1)));
  return said.prompt === undefined ? undefined : said;
}

export function differs(said, fingerprint) {
  return Boolean(said?.[ELSEWHERE] && fingerprint && said[ELSEWHERE] !== fingerprint);
}
