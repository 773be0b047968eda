// What came back: an answer as a table and as JSON, or a problem in words, with what is different.
import { element, table, wireTabs } from "./dom.js";
import { brief, coloured, parse, pointerParts } from "./json_text.js";

const ROWS_AT_MOST = 100;

/** Everything about an answer, as nodes. */
export function answerNodes(text, headers) {
  const shown = element("div", { class: "tabs" });
  shown.append(
    element(
      "div",
      { role: "tablist", "aria-label": "How to show the answer" },
      tab("table", "Table", true),
      tab("json", "JSON", false),
    ),
    panel("table", false, asTable(parse(text))),
    panel("json", true, coloured(text, "The answer as JSON")),
  );
  wireTabs(shown);
  return [shown, timings(headers)];
}

function tab(name, label, chosen) {
  return element(
    "button",
    {
      type: "button",
      role: "tab",
      id: `tab-answer-${name}`,
      "aria-controls": `panel-answer-${name}`,
      "aria-selected": String(chosen),
      tabindex: chosen ? null : "-1",
    },
    label,
  );
}

function panel(name, hidden, ...content) {
  return element(
    "div",
    {
      role: "tabpanel",
      id: `panel-answer-${name}`,
      "aria-labelledby": `tab-answer-${name}`,
      hidden,
    },
    ...content,
  );
}

function asTable(rows) {
  const shown = rows.slice(0, ROWS_AT_MOST);
  const isRecord = (row) => row instanceof Map;
  const names = shown.every(isRecord) ? [...new Set(shown.flatMap((row) => [...row.keys()]))] : null;
  const cells = shown.map((row, place) => [
    String(place + 1),
    ...(names === null ? [brief(row)] : names.map((name) => (row.has(name) ? brief(row.get(name)) : ""))),
  ]);
  const nodes = [table("The answer as a table", ["Input", ...(names ?? ["Answer"])], cells)];
  if (rows.length > shown.length) {
    nodes.push(element("p", { class: "small" }, `The first ${shown.length} of ${rows.length}.`));
  }
  return element("div", {}, ...nodes);
}

/** Request id, and where the time went (Server-Timing). */
function timings(headers) {
  const steps = (headers.get("Server-Timing") ?? "")
    .split(",")
    .map((step) => /^\s*([^;]+);dur=([0-9.]+)/.exec(step))
    .filter((found) => found !== null);
  const list = element("dl", { class: "timings" });
  for (const [, name, spent] of steps) list.append(entry(name, `${spent} ms`));
  list.append(entry("request", headers.get("X-Request-ID") ?? "–"));
  return list;
}

const entry = (name, value) =>
  element("div", {}, element("dt", {}, name), element("dd", {}, value));

/** What a problem (RFC 9457) means, in a sentence. */
export function problemSentence(problem, headers) {
  const wait = headers.get("Retry-After");
  const again = wait === null ? "" : ` Try again in ${wait} second${wait === "1" ? "" : "s"}.`;
  return `${problem.title}.${again}`;
}

/** The details of a problem, as nodes. `homeless` are errors that no field of the form shows. */
export function problemNodes(problem, homeless) {
  const nodes = [element("p", {}, problem.detail)];
  if (problem.differences?.length) {
    const label = `Differences of version ${problem.requested_version}`;
    nodes.push(
      table(
        label,
        ["Field", "Part", "Change", "Contract", `Version ${problem.requested_version}`],
        problem.differences.map(difference),
      ),
    );
  }
  if (homeless.length) {
    const cells = homeless.map((error) => [...placeOf(error.pointer), error.message]);
    nodes.push(table("What doesn’t fit", ["Input", "Field", "What is expected"], cells));
  }
  nodes.push(
    element(
      "p",
      { class: "small" },
      `${problem.status} · ${problem.code} · request `,
      element("code", {}, problem.request_id || "–"),
    ),
  );
  return nodes;
}

function difference(each) {
  const place = pointerParts(each.pointer).map((part) => (part === "*" ? "each" : part));
  const side = (text, name) =>
    text === null
      ? element("span", { class: "none" }, "nothing")
      : element("code", { class: name }, text);
  return [
    element("code", {}, place.join(" › ") || "all of it"),
    each.section,
    each.change.replaceAll("_", " "),
    side(each.contract, "was"),
    side(each.candidate, "becomes"),
  ];
}

/** Which input and which field a pointer names, for people. */
function placeOf(pointer) {
  const parts = pointerParts(pointer);
  if (parts[0] === "params") return ["params", element("code", {}, parts.slice(1).join(" › "))];
  if (parts[0] === "inputs") parts.shift();
  const counted = /^[0-9]+$/.test(parts[0] ?? "");
  const row = counted ? String(Number(parts.shift()) + 1) : "1";
  return [row, element("code", {}, parts.join(" › ") || "all of it")];
}
