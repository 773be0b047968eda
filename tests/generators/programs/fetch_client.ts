// Calls with openapi-typescript's types and openapi-fetch, in the strictest that TypeScript has.
import createClient from "openapi-fetch";
import type { components, paths } from "./generated.js";

type Input = components["schemas"]["doubles.Input"];
type Output = components["schemas"]["doubles.Output"];

const client = createClient<paths>({ baseUrl: process.argv[2] ?? "" });
const row: Input = { x: 2 };
for (const body of [row, [row], { inputs: row, params: {} }]) {
  const { data, error } = await client.POST("/models/doubles/predict", { body });
  if (error) throw new Error(error.detail);
  const answer: Output[] = data;
  if (answer[0]?.y !== 4) throw new Error(JSON.stringify(answer));
}
// @ts-expect-error: the column is a number
const wrong: Input = { x: "text" };
const { error, response } = await client.POST("/models/doubles/predict", { body: wrong });
if (error?.errors?.[0]?.pointer !== "/x") throw new Error(`${response.status}`);
