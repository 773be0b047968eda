// Light or dark, as chosen, before anything is painted; otherwise as the system says.
"use strict";

(() => {
  const root = document.documentElement;
  const order = ["system", "light", "dark"];
  const stored = (() => {
    try {
      return localStorage.getItem("modelmux.theme");
    } catch {
      return null; // a browser that keeps nothing follows the system
    }
  })();

  function show(theme) {
    if (theme === "system") delete root.dataset.theme;
    else root.dataset.theme = theme;
  }

  let theme = order.includes(stored) ? stored : "system";
  show(theme);

  addEventListener("DOMContentLoaded", () => {
    const button = document.getElementById("theme");
    const name = document.getElementById("theme-name");
    button.hidden = false;
    name.textContent = theme;
    button.addEventListener("click", () => {
      theme = order[(order.indexOf(theme) + 1) % order.length];
      show(theme);
      name.textContent = theme;
      try {
        localStorage.setItem("modelmux.theme", theme);
      } catch {
        // chosen for this page, then
      }
    });
  });
})();
