// The list while one types: the server's page for these words, with its list taken over.
import { announce } from "./dom.js";
import { ask } from "./key.js";

const PAUSE_MS = 180;

/** Wire the search of the list; `onNew` is called when other models are shown. */
export function wireSearch(onNew) {
  const form = document.querySelector("form.search");
  if (!form) return;
  const input = form.querySelector("#search");
  let timer = 0;
  let latest = 0;

  async function find() {
    latest += 1;
    const mine = latest;
    const question = new URLSearchParams(new FormData(form));
    for (const [name, value] of [...question]) if (!value) question.delete(name);
    const url = `${form.getAttribute("action")}?${question}`;
    const response = await ask(url);
    const page = new DOMParser().parseFromString(await response.text(), "text/html");
    const results = page.getElementById("results");
    if (mine !== latest) return;
    if (results === null) {
      location.assign(url); // a refusal, or an error: it is a page of its own
      return;
    }
    document.getElementById("results").replaceWith(results);
    history.replaceState(null, "", url);
    announce(results.querySelector("#found").textContent);
    onNew();
  }

  const later = () => {
    clearTimeout(timer);
    timer = setTimeout(() => find().catch(() => form.submit()), PAUSE_MS);
  };
  input.addEventListener("input", later);
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    later();
  });
}
