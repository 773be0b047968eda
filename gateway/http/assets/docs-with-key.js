// Asks for a key, loads the document with it, and has the page's requests sent with it. The key is
// kept in the page's memory alone.
"use strict";

const ask = document.getElementById("ask");

ask.addEventListener("submit", async (event) => {
  event.preventDefault();
  const key = document.getElementById("key").value.trim();
  const response = await fetch("openapi.json", { headers: { Authorization: `Bearer ${key}` } });
  const answer = await response.json();
  if (!response.ok) {
    document.getElementById("problem").textContent = answer.detail;
    return;
  }
  ask.remove();
  const ui = SwaggerUIBundle({
    spec: answer,
    dom_id: "#swagger-ui",
    deepLinking: true,
    docExpansion: "list",
    defaultModelsExpandDepth: 0,
    onComplete: () => ui.preauthorizeApiKey("key", key),
  });
});
