// Elements from values. Text is always text: nothing here reads HTML.

/** An element with attributes (null, false: left out; true: empty) and children (nodes or text). */
export function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === false || value === undefined) continue;
    if (name === "onclick") made.addEventListener("click", value);
    else made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

/** A table in a box that scrolls by itself; the first cell of a row is its heading. */
export function table(label, headings, rows) {
  const head = element("tr", {}, ...headings.map((text) => element("th", { scope: "col" }, text)));
  const body = rows.map(([first, ...others]) =>
    element(
      "tr",
      {},
      element("th", { scope: "row" }, first),
      ...others.map((cell) => element("td", {}, cell)),
    ),
  );
  return element(
    "div",
    { class: "scroller", role: "region", "aria-label": label, tabindex: "0" },
    element("table", {}, element("thead", {}, head), element("tbody", {}, ...body)),
  );
}

/** Tabs by the keyboard pattern of the ARIA Authoring Practices: arrows, Home and End. */
export function wireTabs(box, onChange = () => {}) {
  const tabs = [...box.querySelectorAll('[role="tab"]')];

  function choose(tab, focus) {
    for (const each of tabs) {
      const chosen = each === tab;
      each.setAttribute("aria-selected", String(chosen));
      each.tabIndex = chosen ? 0 : -1;
      box.querySelector(`#${each.getAttribute("aria-controls")}`).hidden = !chosen;
    }
    if (focus) tab.focus();
    onChange(tab.id);
  }

  for (const [place, tab] of tabs.entries()) {
    tab.addEventListener("click", () => choose(tab, false));
    tab.addEventListener("keydown", (event) => {
      const last = tabs.length - 1;
      const next = {
        ArrowRight: place === last ? 0 : place + 1,
        ArrowLeft: place === 0 ? last : place - 1,
        Home: 0,
        End: last,
      }[event.key];
      if (next === undefined) return;
      event.preventDefault();
      choose(tabs[next], true);
    });
  }
  return (id) => choose(tabs.find((tab) => tab.id === id), false);
}

/** Say something to those who don't see it happen. */
export function announce(text) {
  document.getElementById("announcement").textContent = text;
}
