// Vercel's AI SDK with its provider for what is compatible with OpenAI: plain and streamed.

import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { generateText, streamText } from "ai";
import { asked, prompt, tell, url } from "./told.mjs";

const provider = createOpenAICompatible({ name: "pythia", baseURL: `${url}/v1`, apiKey: "none" });
const model = provider.completionModel(asked.model);
const options = { model, prompt, maxOutputTokens: asked.max_tokens, temperature: 0 };
// The SDK writes a conversation around a prompt.
const sent = `user:\n${prompt}\n\nassistant:\n`;
tell("generateText", (await generateText(options)).text, sent);

let text = "";
for await (const part of streamText(options).textStream) text += part;
tell("streamText", text, sent);
