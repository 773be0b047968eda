// Calls with openapi-generator's TypeScript client.
import { Configuration, ModelsApi } from "./generated/index.js";

const models = new ModelsApi(new Configuration({ basePath: process.argv[2] ?? "" }));
const answer = await models.predictDoubles({ doublesRequest: { inputs: { x: 2 } } });
if (answer[0]?.y !== 4) throw new Error(JSON.stringify(answer));
