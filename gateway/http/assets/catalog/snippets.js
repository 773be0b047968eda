// The request of the form as a command and as a program. A key is never in them: they read it from
// the environment.
import { laidOut, python } from "./json_text.js";

const quoted = (text) => `'${text.replaceAll("'", `'\\''`)}'`;

// httpx takes text in ASCII only; the gateway reads UTF-8.
const headerValue = (text) =>
  JSON.stringify(text) + (/^[\x20-\x7e]*$/.test(text) ? "" : ".encode()");

export function curl({ url, version, body, keys }) {
  const lines = [`curl ${quoted(url)}`, "  -H 'Content-Type: application/json'"];
  if (version) lines.push(`  -H ${quoted(`X-Model-Version: ${version}`)}`);
  if (keys) lines.push('  -H "Authorization: Bearer $MODELMUX_KEY"');
  lines.push(`  -d ${quoted(laidOut(body))}`);
  return lines.join(" \\\n");
}

export function program({ url, version, body, keys }) {
  const headers = [];
  if (version) headers.push(`"X-Model-Version": ${headerValue(version)}`);
  if (keys) headers.push(`"Authorization": f"Bearer {os.environ['MODELMUX_KEY']}"`);
  const lines = [
    ...(keys ? ["import os", ""] : []),
    "import httpx",
    "",
    "response = httpx.post(",
    `    ${JSON.stringify(url)},`,
    `    json=${python(laidOut(body)).replaceAll("\n", "\n    ")},`,
    ...(headers.length ? [`    headers={${headers.join(", ")}},`] : []),
    "    timeout=60,",
    ")",
    "response.raise_for_status()",
    "print(response.json())",
  ];
  return lines.join("\n");
}
