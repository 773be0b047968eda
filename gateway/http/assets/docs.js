// Loads the document and shows it; asks for a key where that is needed, unless the catalog's pages
// have asked for it in this tab. Requests are tried where this page itself was found: below
// whatever path, whether the gateway knows of it or not.
import { ask as fetchWithKey, forget, keep, key } from "./catalog/key.js";

const page = document.documentElement.dataset;
const root = new URL(page.base, location.href);
const form = document.getElementById("ask");
const problem = document.getElementById("problem");

/** Shows the document, or says why not; whether it is there. */
async function load() {
  let response;
  let answer;
  try {
    response = await fetchWithKey(new URL("openapi.json", root));
    answer = await response.json();
  } catch {
    problem.textContent = "The gateway could not be reached.";
    return false;
  }
  if (!response.ok) {
    if (response.status === 401) forget();
    problem.textContent = answer.detail;
    return false;
  }
  problem.textContent = "";
  answer.servers = [{ url: root.href.replace(/\/$/, "") }];
  const ui = SwaggerUIBundle({
    spec: answer,
    dom_id: "#swagger-ui",
    deepLinking: true,
    docExpansion: "list",
    defaultModelsExpandDepth: 0,
    onComplete: () => {
      if (key() !== null) ui.preauthorizeApiKey("key", key());
    },
  });
  return true;
}

function askForKey() {
  form.hidden = false;
  document.getElementById("key").focus();
}

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  keep(document.getElementById("key").value.trim());
  if (await load()) form.remove();
});

if (page.keys === "on" && key() === null) askForKey();
else if (!(await load()) && page.keys === "on") askForKey();
