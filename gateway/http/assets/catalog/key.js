// The key of this tab: in sessionStorage alone, which ends with the tab, and sent as a Bearer token.

const NAME = "modelmux.key";

export const key = () => sessionStorage.getItem(NAME);

export const keep = (secret) => sessionStorage.setItem(NAME, secret);

export const forget = () => sessionStorage.removeItem(NAME);

/** `fetch` with the key, where there is one. */
export function ask(url, options = {}) {
  const headers = new Headers(options.headers);
  if (key() !== null) headers.set("Authorization", `Bearer ${key()}`);
  return fetch(url, { ...options, headers, cache: "no-store", redirect: "error" });
}
