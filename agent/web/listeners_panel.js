// Listeners' panel: the link by which others listen in their own languages, as a QR code, and how many do.

import { hide } from "./focus.js";
import { languageName } from "./languages.js";

const LOOPBACK = ["127.0.0.1", "localhost", "[::1]"];
const SVG = "http://www.w3.org/2000/svg";

export class ListenersPanel {
  /**
   * @param {HTMLDialogElement} dialog
   * @param {HTMLButtonElement} opener
   * @param {(open: boolean) => void} choose the user lets others listen, or no more
   */
  constructor(dialog, opener, choose) {
    Object.assign(this, { dialog, opener });
    const find = (name) => dialog.querySelector(`[data-part="${name}"]`);
    this.parts = Object.fromEntries(
      ["start", "trouble", "open", "code", "here", "link", "copy", "stop", "counts", "close"].map((name) => [name, find(name)]),
    );
    this.count = opener.querySelector("[data-part=count]");
    opener.addEventListener("click", () => dialog.showModal());
    this.parts.close.addEventListener("click", () => dialog.close());
    dialog.addEventListener("click", (event) => event.target === dialog && dialog.close()); // beside it
    this.parts.start.querySelector("button").addEventListener("click", () => choose(true));
    this.parts.stop.addEventListener("click", () => choose(false));
    this.parts.copy.addEventListener("click", () => this.#copy());
    this.showCounts({});
  }

  /** @param {{url: string, qr_svg: string}|null} listeners as the session has it */
  show(listeners) {
    const { start, open, copy } = this.parts;
    const [shown, gone, next] = listeners ? [open, start, copy] : [start, open, start.querySelector("button")];
    shown.hidden = false;
    hide(gone, true, next);
    if (!listeners) {
      this.showCounts({});
      return;
    }
    this.parts.link.href = this.parts.link.textContent = listeners.url;
    const here = LOOPBACK.includes(this.parts.link.hostname); // no camera's device gets there
    this.parts.here.hidden = !here;
    this.parts.code.hidden = here;
    this.parts.code.replaceChildren(qrCode(listeners.qr_svg));
  }

  /** Why there is no link. @param {string} message */
  tell(message) {
    this.parts.trouble.textContent = message;
  }

  /** @param {Record<string, number>} counts listeners by language */
  showCounts(counts) {
    const heard = Object.entries(counts).filter(([, count]) => count);
    const all = heard.reduce((sum, [, count]) => sum + count, 0);
    this.count.textContent = all || "";
    this.opener.setAttribute("aria-label", all ? `Listeners: ${all}` : "Listeners");
    this.parts.counts.textContent = heard.length
      ? heard.map(([language, count]) => `${languageName(language)}: ${count}`).join(" · ")
      : "Nobody listens yet.";
  }

  async #copy() {
    try {
      await navigator.clipboard.writeText(this.parts.link.href);
      this.parts.copy.textContent = "Copied";
    } catch {
      getSelection().selectAllChildren(this.parts.link); // without HTTPS there is no clipboard
      this.parts.copy.textContent = "Selected: copy it";
    }
    setTimeout(() => (this.parts.copy.textContent = "Copy the link"), 3000);
  }
}

/** Only the code's own shapes are taken over, and always dark on white: that is what cameras read. */
function qrCode(text) {
  const given = new DOMParser().parseFromString(text, "image/svg+xml").documentElement;
  const size = (name) => parseFloat(given.getAttribute(name)) || 0;
  const code = document.createElementNS(SVG, "svg");
  code.setAttribute("viewBox", given.getAttribute("viewBox") ?? `0 0 ${size("width")} ${size("height")}`);
  code.setAttribute("role", "img");
  code.setAttribute("aria-label", "QR code of the listeners' link");
  for (const path of given.querySelectorAll("path")) {
    const copy = code.appendChild(document.createElementNS(SVG, "path"));
    for (const name of ["d", "transform", "stroke", "fill", "stroke-width"]) {
      if (path.hasAttribute(name)) copy.setAttribute(name, path.getAttribute(name));
    }
  }
  return code;
}
