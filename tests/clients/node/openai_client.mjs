// openai for Node: plain and streamed.

import OpenAI from "openai";
import { asked, prompt, tell, url } from "./told.mjs";

const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: "none", maxRetries: 0 });
tell("plain", (await client.completions.create({ ...asked, prompt })).choices[0].text);

let text = "";
for await (const chunk of await client.completions.create({ ...asked, prompt, stream: true })) {
  text += chunk.choices[0].text;
}
tell("streamed", text);
