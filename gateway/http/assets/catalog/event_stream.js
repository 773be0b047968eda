// A stream of server-sent events, read as it comes (`EventSource` can neither POST nor send a key).
import { element } from "./dom.js";
import { coloured } from "./json_text.js";

const DONE = "[DONE]";

/** Whether a response is a stream. */
export const isStream = (response) =>
  (response.headers.get("Content-Type") ?? "").startsWith("text/event-stream");

/** The data of each event, until the stream is done. */
export async function* eventsOf(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    text += value;
    const parts = text.split("\n\n");
    text = parts.pop();
    for (const part of parts) {
      if (!part.startsWith("data: ")) continue; // a comment, which only keeps the line open
      const data = part.slice("data: ".length);
      if (data === DONE) return;
      yield data;
    }
  }
}

/** A list that grows by an event at a time. */
export class EventList {
  constructor() {
    this.node = element("ol", { class: "events", "aria-label": "The events of the stream" });
    this.count = 0;
    this.failed = false;
  }

  add(data) {
    this.count += 1;
    this.failed = "error" in (JSON.parse(data) ?? {});
    this.node.append(element("li", {}, coloured(data, `Event ${this.count}`)));
  }
}
