// How busy each model is, and whether it is awake: what the gateway's own counters (/metrics) grew by while the page is open
// and looked at. Without counters there is a dash.
//
// Each ingress replica counts for itself, and may come, go, or miss a look. So what grew is found
// for each and then added up: a sum over replicas goes up and down with who is in it.
import { ask } from "./key.js";

const EVERY_MS = 5_000;
const FIRST_AFTER_MS = 2_000;
const WINDOW_MS = 60_000;
const SHARE_OF_TIME = 20; // reading takes at most a twentieth of the time, however long it is

const REQUESTS = "modelmux_requests_total";
const LATENCY = "modelmux_request_duration_seconds_bucket";
const REPLICAS = "modelmux_ingress_replicas";
const SYNC = "modelmux_sync_service_up";
const DEPLOYMENTS = "modelmux_model_deployments";
const PROCESSES = "modelmux_model_processes";
const LOADED = "modelmux_loaded_versions";

/** The counters of this moment. */
async function readCounters() {
  const address = `${document.documentElement.dataset.base}metrics`;
  const response = await ask(address, { headers: { Accept: "text/plain" } });
  if (!response.ok) return null;
  const text = await response.text();
  return { ...counters(text), active: activity(text) };
}

/** The same from the text of the Prometheus exposition format: `replicas` has, by replica, model
 * and version, the requests and how many took up to so many seconds; `heard` says how many were
 * heard, null where that isn't told. One that has counted nothing is heard, without numbers. */
export function counters(text) {
  const replicas = new Map();
  let heard = null;
  for (const line of text.split("\n")) {
    if (line.startsWith(`${REPLICAS} `)) heard = valueOf(line, REPLICAS.length);
    const isLatency = line.startsWith(`${LATENCY}{`);
    if (!isLatency && !line.startsWith(`${REQUESTS}{`)) continue;
    const labels = labelsOf(line);
    const value = valueOf(line, line.lastIndexOf("} ") + 1);
    if (!labels.model || !Number.isFinite(value)) continue;
    const models = entry(replicas, labels.replica ?? "", () => new Map());
    const versions = entry(models, labels.model, () => new Map());
    const counted = entry(versions, labels.version ?? "", nothing);
    if (isLatency) add(counted.upTo, labels.le === "+Inf" ? Infinity : Number(labels.le), value);
    else counted.requests += value;
  }
  return { replicas, heard };
}

/** Where models run, by the same text: of each that isn't asleep the `state` of its deployment, how
 * many versions are `loaded`, and on which `machines`. Null where the sync service wasn't heard. */
export function activity(text) {
  const models = new Map();
  let isHeard = false;
  for (const line of text.split("\n")) {
    if (line.startsWith(`${SYNC} `)) isHeard = valueOf(line, SYNC.length) === 1;
    const kind = [DEPLOYMENTS, PROCESSES, LOADED].find((name) => line.startsWith(`${name}{`));
    if (kind === undefined) continue;
    const labels = labelsOf(line);
    const found = entry(models, labels.model, () => ({ state: null, loaded: 0, machines: [] }));
    if (kind === DEPLOYMENTS) found.state = labels.state;
    if (kind === PROCESSES && labels.machine) found.machines.push(labels.machine);
    if (kind === LOADED) found.loaded = valueOf(line, line.lastIndexOf("} ") + 1);
  }
  return isHeard ? models : null;
}

/** What a model is doing, in a few words: `machines` are named where there are `several`. */
export function activityInWords(found, several) {
  if (found?.loaded > 0) {
    const where = several && found.machines.length ? ` on ${found.machines.join(", ")}` : "";
    return `${found.loaded} version${found.loaded === 1 ? "" : "s"} loaded${where}`;
  }
  return { starting: "starting", running: "awake, nothing loaded" }[found?.state] ?? "asleep";
}

const nothing = () => ({ requests: 0, upTo: new Map() });

const valueOf = (line, from) => Number(line.slice(from + 1).split(" ")[0]);

/** What a map has under a name; made where there is nothing. */
function entry(map, name, made) {
  if (!map.has(name)) map.set(name, made());
  return map.get(name);
}

const add = (counts, name, value) => counts.set(name, (counts.get(name) ?? 0) + value);

function labelsOf(line) {
  const escapes = { n: "\n", "\\": "\\", '"': '"' };
  const found = line.matchAll(/([a-z_]+)="((?:[^"\\]|\\.)*)"/g);
  const read = (value) => value.replace(/\\(.)/g, (whole, letter) => escapes[letter] ?? whole);
  return Object.fromEntries([...found].map(([, name, value]) => [name, read(value)]));
}

/** What was counted from the first to the last of some moments, by model: requests, and how many
 * took up to so many seconds. */
export function growth(moments) {
  const models = new Map();
  for (const [before, now] of spans(moments)) {
    for (const [model, versions] of now) {
      const grown = entry(models, model, nothing);
      for (const [version, counted] of versions) {
        addGrowth(grown, before.get(model)?.get(version) ?? nothing(), counted);
      }
    }
  }
  return models;
}

/** What each replica had counted when it was heard first, and last. */
function spans(moments) {
  const found = new Map();
  for (const [place, moment] of moments.entries()) {
    for (const [replica, now] of moment.replicas) {
      const isNew = !found.has(replica);
      const before = isNew && hadCountedNothing(moments[place - 1], moment) ? new Map() : now;
      found.set(replica, [isNew ? before : found.get(replica)[0], now]);
    }
  }
  return found.values();
}

/** Whether who has numbers only now was there before, and had none: as many are heard, and nobody
 * whose numbers were there is missing. */
function hadCountedNothing(before, now) {
  if (before === undefined || before.heard === null || before.heard !== now.heard) return false;
  return [...before.replicas.keys()].every((replica) => now.replicas.has(replica));
}

/** A counter that went down began anew: how much it grew isn't known. */
function addGrowth(grown, before, now) {
  grown.requests += Math.max(0, now.requests - before.requests);
  for (const [bound, count] of now.upTo) {
    add(grown.upTo, bound, Math.max(0, count - (before.upTo.get(bound) ?? 0)));
  }
}

/** Requests per second, and the median and 95th percentile in seconds, null where there was no
 * request. What has no counters yet had none, either. */
export function figures(grown, seconds) {
  if (grown === undefined) return { rate: 0, median: null, slow: null };
  const buckets = [...grown.upTo].sort(([a], [b]) => a - b);
  return {
    rate: grown.requests / seconds,
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

  function showActivity() {
    const { active } = samples.at(-1) ?? {};
    if (!active) return;
    const machines = new Set([...active.values()].flatMap((each) => each.machines));
    for (const place of document.querySelectorAll("[data-activity]")) {
      place.textContent = activityInWords(active.get(place.dataset.activity), machines.size > 1);
    }
  }

  function show() {
    showActivity();
    if (samples.length < 2) return;
    const seconds = (samples.at(-1).at - samples[0].at) / 1000;
    const grown = growth(samples);
    for (const box of document.querySelectorAll("[data-model]")) {
      const found = figures(grown.get(box.dataset.model), seconds);
      for (const [kind, value] of Object.entries(found)) {
        const place = box.querySelector(`[data-number="${kind}"]`);
        if (place) place.textContent = value === null ? "–" : FORMATS[kind](value);
      }
    }
  }

  async function look() {
    const started = performance.now();
    const read = document.hidden ? undefined : await readCounters().catch(() => undefined);
    if (read === null) return; // there are none, or not for this key
    const at = performance.now();
    if (read !== undefined) {
      samples = [...samples.filter((each) => at - each.at < WINDOW_MS), { at, ...read }];
      show();
    }
    const pause = samples.length < 2 ? FIRST_AFTER_MS : EVERY_MS;
    setTimeout(look, Math.max(pause, SHARE_OF_TIME * (at - started)));
  }

  look();
  return show;
}
