// Puts a page together: the key where one is needed, then what the page has.
import { announce } from "./dom.js";
import { ask, forget, keep, key } from "./key.js";
import { wireNumbers } from "./numbers.js";
import { wireSearch } from "./search.js";
import { wireTrying } from "./try.js";

/** Fetch this very page with the key, and take over what it shows; says why not. A key that was
 * refused is forgotten. */
async function unlock() {
  let response;
  let text;
  try {
    response = await ask(location.href);
    text = await response.text();
  } catch {
    return "The gateway could not be reached.";
  }
  const page = new DOMParser().parseFromString(text, "text/html");
  if (response.status === 401) {
    forget();
    return page.querySelector(".lede")?.textContent ?? "The key is refused.";
  }
  const content = page.getElementById("content");
  // Something between here and the gateway may answer in its place.
  if (content === null) return `The answer was ${response.status}, and no page. Try again.`;
  document.title = page.title;
  document.getElementById("content").replaceWith(content);
  content.focus({ preventScroll: true });
  announce(page.title);
  wire();
  return "";
}

function wireKey(onKey, problem = "") {
  const form = document.getElementById("ask");
  if (!form) return;
  const tell = (text) => {
    document.getElementById("key-problem").textContent = text;
  };
  const input = document.getElementById("key");
  tell(problem);
  form.querySelector("button").disabled = false;
  input.focus();
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    keep(input.value.trim());
    const refused = await onKey();
    if (!refused) return;
    tell(refused);
    input.select();
  });
}

/** Where the page itself is open but a prediction needs a key. */
function askForKey(problem) {
  const place = document.getElementById("key-place");
  if (!place || !place.hidden) {
    if (place && problem) document.getElementById("key-problem").textContent = problem;
    return;
  }
  place.hidden = false;
  wireKey(async () => {
    place.hidden = true;
    showForgetting();
    document.getElementById("send").focus();
    announce("The key is kept for this tab.");
    return "";
  }, problem);
}

function showForgetting() {
  const button = document.getElementById("forget-key");
  if (button) button.hidden = key() === null;
}

function wire() {
  showForgetting();
  const numbers = wireNumbers();
  wireSearch(numbers);
  wireTrying(askForKey);
}

async function start() {
  document.getElementById("forget-key")?.addEventListener("click", () => {
    forget();
    location.reload();
  });
  if (!document.querySelector("[data-locked]")) {
    wire();
    return;
  }
  let refused = "";
  if (key() !== null) {
    refused = await unlock();
    if (!refused) return;
  }
  wireKey(unlock, refused);
}

start();
