// How busy each model is: what the gateway's own counters (/metrics) grew by while the page is open
// and looked at. Without counters there is a dash.
import { ask } from "./key.js";

const EVERY_MS = 5_000;
const FIRST_AFTER_MS = 2_000;
const WINDOW_MS = 60_000;
const SHARE_OF_TIME = 20; // reading takes at most a twentieth of the time, however long it is

const REQUESTS = "modelmux_requests_total";
const LATENCY = "modelmux_request_duration_seconds_bucket";

/** The counters of this moment by model: requests, and how many took up to so many seconds. */
async function readCounters() {
  const address = `${document.documentElement.dataset.base}metrics`;
  const response = await ask(address, { headers: { Accept: "text/plain" } });
  return response.ok ? counters(await response.text()) : null;
}

/** The same from the text of the Prometheus exposition format. */
export function counters(text) {
  const models = new Map();
  for (const line of text.split("\n")) {
    const isLatency = line.startsWith(`${LATENCY}{`);
    if (!isLatency && !line.startsWith(`${REQUESTS}{`)) continue;
    const labels = labelsOf(line);
    const value = Number(line.slice(line.lastIndexOf("} ") + 2).split(" ")[0]);
    if (!labels.model || !Number.isFinite(value)) continue;
    if (!models.has(labels.model)) models.set(labels.model, { requests: 0, upTo: new Map() });
    const model = models.get(labels.model);
    if (!isLatency) {
      model.requests += value;
      continue;
    }
    const bound = labels.le === "+Inf" ? Infinity : Number(labels.le);
    model.upTo.set(bound, (model.upTo.get(bound) ?? 0) + value);
  }
  return models;
}

function labelsOf(line) {
  const escapes = { n: "\n", "\\": "\\", '"': '"' };
  const found = line.matchAll(/([a-z_]+)="((?:[^"\\]|\\.)*)"/g);
  const read = (value) => value.replace(/\\(.)/g, (whole, letter) => escapes[letter] ?? whole);
  return Object.fromEntries([...found].map(([, name, value]) => [name, read(value)]));
}

/** Requests per second, and the median and 95th percentile in seconds; null where unknown. */
export function figures(before, now, seconds) {
  if (now === undefined) return { rate: null, median: null, slow: null };
  const grown = (get) => get(now) - (before === undefined ? 0 : get(before));
  const requests = grown((each) => each.requests);
  const bounds = [...now.upTo.keys()].sort((a, b) => a - b);
  const buckets = bounds.map((bound) => [bound, grown((each) => each.upTo.get(bound) ?? 0)]);
  return {
    rate: Math.max(0, requests) / seconds,
    median: quantile(buckets, 0.5),
    slow: quantile(buckets, 0.95),
  };
}

/** By linear interpolation in the bucket, as Prometheus' histogram_quantile does. */
function quantile(buckets, share) {
  const total = buckets.at(-1)?.[1] ?? 0;
  if (!(total > 0)) return null;
  let [below, count] = [0, 0];
  for (const [bound, upTo] of buckets) {
    if (upTo >= share * total) {
      if (bound === Infinity) return below;
      return below + ((bound - below) * (share * total - count)) / (upTo - count || 1);
    }
    [below, count] = [bound, upTo];
  }
  return below;
}

const FORMATS = {
  rate: (value) => `${value === 0 || value >= 10 ? value.toFixed(0) : value.toFixed(1)}/s`,
  median: duration,
  slow: duration,
};

function duration(seconds) {
  if (seconds >= 1) return `${seconds.toFixed(1)} s`;
  const ms = seconds * 1000;
  return `${ms >= 10 ? ms.toFixed(0) : ms.toFixed(1)} ms`;
}

/** Wire what shows numbers; returns what to call when other models are shown. */
export function wireNumbers() {
  let samples = [];

  function show() {
    const [first, last] = [samples[0], samples.at(-1)];
    if (samples.length < 2) return;
    const seconds = (last.at - first.at) / 1000;
    for (const box of document.querySelectorAll("[data-model]")) {
      const name = box.dataset.model;
      const found = figures(first.models.get(name), last.models.get(name), seconds);
      for (const [kind, value] of Object.entries(found)) {
        const place = box.querySelector(`[data-number="${kind}"]`);
        if (place) place.textContent = value === null ? "–" : FORMATS[kind](value);
      }
    }
  }

  async function look() {
    const started = performance.now();
    const models = document.hidden ? undefined : await readCounters().catch(() => undefined);
    if (models === null) return; // there are none, or not for this key
    const at = performance.now();
    if (models !== undefined) {
      samples = [...samples.filter((each) => at - each.at < WINDOW_MS), { at, models }];
      show();
    }
    const pause = samples.length < 2 ? FIRST_AFTER_MS : EVERY_MS;
    setTimeout(look, Math.max(pause, SHARE_OF_TIME * (at - started)));
  }

  look();
  return show;
}
