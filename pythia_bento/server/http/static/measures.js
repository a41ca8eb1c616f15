// What can be shown of a token by one hue over bare paper: how surprising it was, its rank, and how
// open the choice was. Each has a strength between 0 and 1 and a legend in numbers.

const BITS = 8; // of entropy at the far end of the scale
const RANKS = 16; // the place at the far end

const RARE = 0.0025; // probability at the far end

export const MEASURES = {
  surprise: {
    strength: ({ logprob }) => surprise(logprob),
    legend: [1, 0.5, 0.1, 0.01, RARE].map((share) => [percent(share), surprise(Math.log(share))]),
    unit: "probability of the token",
  },
  rank: {
    strength: (token) => place(rank(token)),
    legend: [1, 2, 4, 8, 16].map((rank) => [rank < RANKS ? `${rank}` : `${rank} or later`, place(rank)]),
    unit: "place among all tokens; later than the alternatives is the last colour",
  },
  entropy: {
    strength: (token) => openness(entropy(token)),
    legend: [0, 1, 2, 4, 8].map((bits) => [bits < BITS ? `${bits}` : `${bits} or more`, openness(bits)]),
    unit: "bits of the choice at this place, at least, as far as the alternatives tell",
  },
};

// From 1; null where it comes behind all alternatives, undefined where there are none.
export function rank({ logprob, rank, top, asked }) {
  if (logprob === null) return undefined;
  if (rank !== undefined) return rank;
  if (!asked) return undefined; // no alternatives to count
  const better = Object.values(top).filter((value) => value > logprob).length;
  return better < asked ? better + 1 : null;
}

// In bits. What is left beside the alternatives is taken as one token, so it is never too high.
export function entropy({ logprob, top }) {
  const shares = logprob === null ? [] : Object.values(top).map(Math.exp);
  if (shares.length === 0) return undefined;
  const left = Math.max(1 - shares.reduce((sum, share) => sum + share, 0), 0);
  return [...shares, left].reduce((sum, share) => sum - (share && share * Math.log2(share)), 0);
}

function percent(share) {
  return `${share * 100} %${share > RARE ? "" : " or less"}`;
}

function surprise(logprob) {
  return Math.min((logprob ?? 0) / Math.log(RARE), 1);
}

function place(rank) {
  if (rank === undefined) return 0;
  return rank === null ? 1 : Math.min(Math.log2(rank) / Math.log2(RANKS), 1);
}

function openness(bits) {
  return Math.min((bits ?? 0) / BITS, 1);
}

// Swatches with their numbers, in the place of what is there.
export function showLegend(box, name) {
  const { legend, unit } = MEASURES[name];
  const parts = legend.map(([words, strength]) => {
    const part = document.createElement("span");
    const swatch = document.createElement("i");
    swatch.style.setProperty("--strength", strength.toFixed(3));
    part.append(swatch, words);
    return part;
  });
  const said = document.createElement("span");
  said.textContent = unit;
  box.replaceChildren(...parts, said);
}
