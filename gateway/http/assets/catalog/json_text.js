// JSON as text. Numbers stay as they are written: a 64-bit integer is more than JavaScript's own
// numbers hold.
import { element } from "./dom.js";

const NUMBER = /^-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?$/;
const WORDS = { true: true, false: false, null: null };
const TOKEN = /"(?:[^"\\]|\\.)*"|true|false|null/g;
const WIDTH = 56; // characters of a line before it is broken
const COLOURED_AT_MOST = 200_000; // characters; what is longer is shown plain

/** A number by its text. */
export class Num {
  constructor(text) {
    this.text = text;
  }
}

export const isNumber = (text) => NUMBER.test(text);

export function isJson(text) {
  try {
    JSON.parse(text);
    return true;
  } catch {
    return false;
  }
}

/** The value of a JSON text: lists, `Map`s by name in their order, `Num`s; raises SyntaxError. */
export function parse(text) {
  return valueOf(scan(text));
}

function valueOf({ value }) {
  if (Array.isArray(value)) return value.map(valueOf);
  if (!(value instanceof Map)) return value;
  return new Map([...value].map(([name, node]) => [name, valueOf(node)]));
}

/** Where the value that a pointer's parts name stands in a JSON text: [start, end], or null. */
export function locate(text, parts) {
  let node = scan(text);
  for (const part of parts) {
    node = node.value instanceof Map ? node.value.get(part) : node.value?.[Number(part)];
    if (node?.start === undefined) return null;
  }
  return [node.start, node.end];
}

/** Nodes with their value and where it stands. */
function scan(text) {
  JSON.parse(text); // what is no JSON is found here, and not looked for below
  let at = 0;
  const take = (pattern) => {
    pattern.lastIndex = at;
    const [taken] = pattern.exec(text) ?? [""];
    at += taken.length;
    return taken;
  };
  const between = () => take(/[\s,:]*/y);
  const string = () => JSON.parse(take(/"(?:[^"\\]|\\.)*"/y));
  const closes = () => {
    between();
    return text[at] === "]" || text[at] === "}";
  };

  function node() {
    between();
    const start = at;
    const value = content();
    return { value, start, end: at };
  }

  function content() {
    if (text[at] === '"') return string();
    if (text[at] === "[") return list();
    if (text[at] === "{") return object();
    const word = take(/[^\s,\]}]+/y);
    return word in WORDS ? WORDS[word] : new Num(word);
  }

  function list() {
    const nodes = [];
    for (at += 1; !closes(); ) nodes.push(node());
    at += 1;
    return nodes;
  }

  function object() {
    const nodes = new Map();
    for (at += 1; !closes(); ) nodes.set(string(), node());
    at += 1;
    return nodes;
  }

  return node();
}

/** One value in a line of a table. */
export function brief(value) {
  if (value instanceof Num) return value.text;
  if (typeof value === "string") return value;
  return plain(value);
}

/** A value as JSON text, in one line or indented. */
export function plain(value, indent = null, depth = 0) {
  if (value instanceof Num) return value.text;
  if (value === null || typeof value !== "object") return JSON.stringify(value);
  const isList = Array.isArray(value);
  const parts = isList
    ? value.map((item) => plain(item, indent, depth + 1))
    : [...value].map(
        ([name, item]) => `${JSON.stringify(name)}: ${plain(item, indent, depth + 1)}`,
      );
  const [open, close] = isList ? "[]" : "{}";
  const line = open + parts.join(", ") + close;
  if (indent === null || parts.length === 0 || line.length <= WIDTH) return line;
  const gap = "\n" + indent.repeat(depth + 1);
  return open + gap + parts.join("," + gap) + "\n" + indent.repeat(depth) + close;
}

/** The text laid out over lines; as it is where it is no JSON. */
export function laidOut(text) {
  try {
    return plain(parse(text), "  ");
  } catch {
    return text;
  }
}

/** A <pre> of the text, its tokens coloured. */
export function coloured(text, label) {
  const shown = laidOut(text);
  const code = element("code");
  if (shown.length > COLOURED_AT_MOST) code.append(shown);
  else code.append(...tokens(shown));
  return element("pre", { tabindex: "0", "aria-label": label }, code);
}

function* tokens(text) {
  const pattern = /("(?:[^"\\]|\\.)*")(\s*:)?|(-?[0-9][0-9.eE+-]*)|(true|false|null)/g;
  let end = 0;
  for (const found of text.matchAll(pattern)) {
    const [whole, string, colon, number] = found;
    if (found.index > end) yield text.slice(end, found.index);
    if (string !== undefined) {
      yield element("span", { class: colon ? "json-key" : "json-string" }, string);
      if (colon) yield colon;
    } else {
      yield element("span", { class: number ? "json-number" : "json-word" }, whole);
    }
    end = found.index + whole.length;
  }
  yield text.slice(end);
}

/** A JSON text as an expression of Python. */
export function python(text) {
  const words = { true: "True", false: "False", null: "None" };
  // Python has no "\/" and no pairs of surrogates: strings are written as JSON.stringify does.
  return text.replace(TOKEN, (token) => words[token] ?? JSON.stringify(JSON.parse(token)));
}

/** The parts of a JSON pointer (RFC 6901). */
export function pointerParts(pointer) {
  return pointer
    .split("/")
    .slice(1)
    .map((part) => part.replaceAll("~1", "/").replaceAll("~0", "~"));
}
