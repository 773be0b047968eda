// Calls with openapi-generator's TypeScript client.
import { Configuration, type DoublesRequest, ModelsApi } from "./generated/index.js";

const models = new ModelsApi(new Configuration({ basePath: process.argv[2] ?? "" }));
const answer = await models.predictDoubles({ doublesRequest: { x: 2 } as DoublesRequest });
if (answer[0]?.y !== 4) throw new Error(JSON.stringify(answer));
