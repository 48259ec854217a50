// The official Node client over chat, streaming, tools, structured output and responses.
// Arguments: base URL, API key, a JSON schema.
import assert from "node:assert/strict";
import OpenAI from "openai";

const [baseURL, apiKey, schemaText] = process.argv.slice(2);
const schema = JSON.parse(schemaText);
const client = new OpenAI({ baseURL, apiKey, maxRetries: 0 });
const model = (await client.models.list()).data[0].id;
const messages = [{ role: "user", content: "How is the weather in Oslo?" }];
const ask = { model, messages, temperature: 0, max_tokens: 16 };
const one = { tool_choice: "required", parallel_tool_calls: false, max_tokens: 200 };
const tools = [{ type: "function", function: { name: "get_weather", parameters: schema } }];

function checkCity(text) {
  const value = JSON.parse(text);
  assert.deepEqual(Object.keys(value), ["city"]);
  assert.equal(typeof value.city, "string");
}

const whole = await client.chat.completions.create(ask);
assert.equal(whole.usage.completion_tokens, 16);

let text = "";
for await (const chunk of await client.chat.completions.create({ ...ask, stream: true })) {
  text += chunk.choices[0]?.delta?.content ?? "";
}
assert.equal(text, whole.choices[0].message.content);

const call = await client.chat.completions.create({
  ...ask, ...one, tools,
});
assert.equal(call.choices[0].finish_reason, "tool_calls");
checkCity(call.choices[0].message.tool_calls[0].function.arguments);

const stream = client.beta.chat.completions.stream({
  ...ask, ...one, tools,
});
const streamed = await stream.finalChatCompletion();
assert.deepEqual(
  streamed.choices[0].message.tool_calls[0].function.arguments,
  call.choices[0].message.tool_calls[0].function.arguments,
);

const format = { type: "json_schema", json_schema: { name: "city", strict: true, schema } };
const city = await client.chat.completions.create({
  ...ask, max_tokens: 200, response_format: format,
});
checkCity(city.choices[0].message.content);

const response = await client.responses.create({
  model, input: "Say hi.", temperature: 0, max_output_tokens: 8,
});
assert.ok(response.output_text.length > 0);

await assert.rejects(
  client.chat.completions.create({ ...ask, temperature: -1 }),
  (error) => error instanceof OpenAI.BadRequestError && error.param === "temperature",
);

console.log("passed");
