// How busy each model is, from the gateway's own counters, while the page is looked at.
import { ask } from "./key.js";

/** Wire what shows numbers; returns what to call when other models are shown. */
export function wireNumbers() {
  return () => {};
}
