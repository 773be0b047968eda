// Trying a prediction on the page of a model.
import { answerNodes, problemNodes, problemSentence } from "./answer.js";
import { announce, wireTabs } from "./dom.js";
import { EventList, eventsOf, isStream } from "./event_stream.js";
import { isJson, laidOut, locate, pointerParts } from "./json_text.js";
import { ask, key } from "./key.js";
import { RequestForm } from "./request_form.js";
import { curl, program } from "./snippets.js";

/** Wire the page's form; nothing where the model can't be tried. */
export function wireTrying(askForKey) {
  const form = document.getElementById("request");
  if (form) new Trial(form, askForKey);
}

// A header takes characters of one byte each; the gateway reads UTF-8.
const utf8 = (text) => String.fromCharCode(...new TextEncoder().encode(text));

class Trial {
  constructor(form, askForKey) {
    this.form = form;
    this.askForKey = askForKey;
    this.version = form.querySelector("#version");
    this.text = form.querySelector("#body");
    this.answer = document.getElementById("answer");
    this.outcome = document.getElementById("outcome");
    this.result = document.getElementById("answer-body");
    this.inText = false;
    this.fields = new RequestForm(form, () => this.refresh());
    wireTabs(form.querySelector("[data-tabs]"), (id) => this.change(id === "tab-json"));
    wireTabs(document.querySelector(".snippets [data-tabs]"));
    document.getElementById("copy").addEventListener("click", () => this.copy());
    form.addEventListener("input", () => this.refresh());
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.send();
    });
    this.refresh();
    // Until here nobody would have answered: a browser would send the form by itself.
    document.getElementById("send").disabled = false;
  }

  change(toText) {
    if (toText && !this.inText) this.text.value = laidOut(this.fields.body());
    this.inText = toText;
    this.refresh();
  }

  body() {
    return this.inText ? this.text.value : this.fields.body();
  }

  refresh() {
    const url = new URL(this.form.dataset.url, location.href).href;
    const keys = this.form.dataset.keys === "on";
    const request = { url, version: this.version.value, body: this.body(), keys };
    document.getElementById("curl").textContent = curl(request);
    document.getElementById("python").textContent = program(request);
  }

  async copy() {
    const panel = document.querySelector('.snippets [role="tabpanel"]:not([hidden]) code');
    try {
      await navigator.clipboard.writeText(panel.textContent);
      announce("Copied.");
    } catch {
      // Not allowed, or no secure context: select it, so that the keyboard can copy it.
      getSelection().selectAllChildren(panel);
      announce("Selected; copy it with the keyboard.");
    }
  }

  async send() {
    if (this.answer.getAttribute("aria-busy") === "true") return;
    const body = this.body();
    this.textError("");
    if (this.inText && !isJson(body)) {
      this.textError("This is not JSON yet.");
      this.text.focus();
      return;
    }
    this.busy(true);
    this.show("", "Asking …", []);
    await this.request(body);
    this.busy(false);
  }

  async request(body) {
    const started = performance.now();
    const headers = { "Content-Type": "application/json" };
    if (this.version.value) headers["X-Model-Version"] = utf8(this.version.value);
    if (document.getElementById("stream")?.checked) headers.Accept = "text/event-stream";
    let response;
    let text;
    try {
      response = await ask(this.form.dataset.url, { method: "POST", headers, body });
      if (isStream(response)) {
        await this.follow(response, started);
        return;
      }
      text = await response.text();
    } catch {
      this.show("bad", "The gateway could not be reached.", []);
      return;
    }
    try {
      this.tell(response, text, performance.now() - started);
    } catch (error) {
      // Nested deeper than JavaScript's stack, or not what the gateway would say.
      console.error(error);
      this.show("bad", `The answer (${response.status}) can’t be shown here.`, []);
    }
  }

  /** Show a stream as it comes. */
  async follow(response, started) {
    const version = response.headers.get("X-Model-Version");
    const events = new EventList();
    this.fields.clear();
    this.show("", `Version ${version} answers …`, [events.node]);
    for await (const data of eventsOf(response)) events.add(data);
    const spent = Math.round(performance.now() - started);
    const told = `${events.count} ${events.count === 1 ? "event" : "events"} in ${spent} ms`;
    const sentence = events.failed ? "The stream broke off after" : `Version ${version} answered with`;
    this.show(events.failed ? "bad" : "good", `${sentence} ${told}.`, [events.node]);
  }

  busy(is) {
    this.answer.setAttribute("aria-busy", String(is));
    document.getElementById("send").setAttribute("aria-disabled", String(is));
  }

  tell(response, text, spent) {
    if (response.ok) {
      this.fields.clear();
      const version = response.headers.get("X-Model-Version");
      this.show(
        "good",
        `Version ${version} answered in ${spent.toFixed(spent < 10 ? 1 : 0)} ms.`,
        answerNodes(text, response.headers),
      );
      return;
    }
    const isProblem = (response.headers.get("Content-Type") ?? "").includes("problem+json");
    if (!isProblem) {
      this.show("bad", `The answer was ${response.status}.`, []);
      return;
    }
    this.refused(JSON.parse(text), response);
  }

  refused(problem, response) {
    let homeless = problem.errors ?? [];
    if (this.inText) {
      if (homeless.length) {
        this.textError(homeless.length === 1 ? homeless[0].message : "Several places don’t fit.");
        this.select(homeless[0].pointer);
      }
    } else {
      homeless = this.fields.place(homeless);
    }
    const nodes = problemNodes(problem, homeless);
    this.show("bad", problemSentence(problem, response.headers), nodes);
    if (response.status === 401) this.askForKey(key() === null ? "" : problem.detail);
  }

  /** Select what a pointer names, or the nearest that is there. */
  select(pointer) {
    const parts = pointerParts(pointer);
    let place = null;
    while (place === null) place = locate(this.text.value, parts) ?? (parts.pop(), null);
    this.text.focus();
    this.text.setSelectionRange(...place);
  }

  textError(message) {
    document.getElementById("body-error").textContent = message;
    if (message) this.text.setAttribute("aria-invalid", "true");
    else this.text.removeAttribute("aria-invalid");
  }

  show(state, sentence, nodes) {
    this.answer.dataset.state = state;
    this.outcome.textContent = sentence;
    this.result.replaceChildren(...nodes);
  }
}

