// What every program asks, and how it tells the answers: a line of JSON each.

export const url = process.argv[2];
export const prompt = "Question: What color is";
export const asked = { model: "bundled", max_tokens: 13, temperature: 0 };

// `sent` is the prompt where a program writes words of its own around it.
export function tell(how, text, sent = prompt) {
  console.log(JSON.stringify({ how, text, prompt: sent }));
}
