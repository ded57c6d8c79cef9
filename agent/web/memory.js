// Memory: what a page keeps for itself, as JSON. A tab's own for a session, this browser's for preferences.
// Storage may be forbidden or full: then the page works, and forgets.

const PREFIX = "noema.";

/** @param {() => Storage} storage asked for late: even that may throw */
function shelf(storage) {
  return {
    get(key) {
      try {
        return JSON.parse(storage().getItem(PREFIX + key));
      } catch {
        return null;
      }
    },
    set(key, value) {
      try {
        storage().setItem(PREFIX + key, JSON.stringify(value));
      } catch {
        this.remove(key); // rather nothing than something old
      }
    },
    remove(key) {
      try {
        storage().removeItem(PREFIX + key);
      } catch {
        // forbidden: there is nothing
      }
    },
  };
}

export const session = shelf(() => sessionStorage);
export const preferences = shelf(() => localStorage);

/** Values after the address's #, which is cleaned: a token must not stay where it is seen, copied and kept. */
export function takeFragment() {
  const values = Object.fromEntries(new URLSearchParams(location.hash.slice(1)));
  if (location.hash) history.replaceState(null, "", location.pathname + location.search);
  addEventListener("hashchange", () => location.reload()); // another link, opened in the same window
  return values;
}
