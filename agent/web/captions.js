// Captions: draws the conversation's lines. A reply's words light up as they are heard.

import { heardCharacters } from "./conversation.js";
import { languageName, languageTag } from "./languages.js";

const SEGMENTER = new Intl.Segmenter(undefined, { granularity: "word" }); // not all languages have spaces
const NEAR_END = 80; // pixels: whoever reads further up is left there

export class Captions {
  #drawn = new Map(); // line's id → its elements

  /** @param {HTMLElement} list */
  constructor(list) {
    this.list = list;
    this.atEnd = true;
    this.waiting = []; // drawn below all lines
    list.addEventListener("scroll", () => {
      this.atEnd = list.scrollHeight - list.scrollTop - list.clientHeight < NEAR_END;
    });
    new ResizeObserver(() => this.#follow()).observe(list);
  }

  #follow() {
    if (this.atEnd) this.list.scrollTop = this.list.scrollHeight;
  }

  /** @param {import("./conversation.js").Line[]} lines */
  showAll(lines) {
    this.list.replaceChildren();
    this.#drawn.clear();
    this.waiting = [];
    for (const line of lines) this.show(line, lines);
    this.atEnd = true;
    this.#follow();
  }

  /** Draws a line, new or changed. @param {import("./conversation.js").Line} line @param {object[]} lines all of them */
  show(line, lines) {
    const drawn = this.#drawn.get(line.id) ?? this.#begin(line, lines);
    drawn.root.className = `line ${line.role} ${line.state}`;
    const meta = about(line);
    if (drawn.meta.textContent !== meta) drawn.meta.textContent = meta;
    if (line.language) drawn.text.lang = languageTag(line.language);
    this.#write(drawn, line);
    this.#follow();
  }

  /** What was typed and has not gone out. @param {string[]} sentences */
  showWaiting(sentences) {
    if (!sentences.length && !this.waiting.length) return;
    for (const root of this.waiting) root.remove();
    this.waiting = sentences.map((sentence) => {
      const { root, meta, text } = framed({ role: "user" });
      root.className = "line user waiting";
      meta.textContent = "waiting for the connection";
      text.textContent = sentence;
      return root;
    });
    this.list.append(...this.waiting);
    this.#follow();
  }

  /** Takes lines off that are no more. */
  keep(lines) {
    const ids = new Set(lines.map((line) => line.id));
    for (const [id, { root }] of this.#drawn) {
      if (ids.has(id)) continue;
      root.remove();
      this.#drawn.delete(id);
    }
  }

  #begin(line, lines) {
    const { root, meta, text } = framed(line);
    const after = lines[lines.indexOf(line) + 1];
    this.list.insertBefore(root, this.#drawn.get(after?.id)?.root ?? this.waiting[0] ?? null);
    const drawn = { root, meta, text, written: "", words: [] };
    this.#drawn.set(line.id, drawn);
    this.keep(lines);
    return drawn;
  }

  #write(drawn, line) {
    if (drawn.written !== line.text) {
      if (!line.text.startsWith(drawn.written)) {
        drawn.text.replaceChildren();
        drawn.words = [];
        drawn.written = "";
      }
      let end = drawn.written.length;
      for (const word of words(line.text.slice(end))) {
        const span = drawn.text.appendChild(document.createElement("span"));
        span.textContent = word;
        end += word.length;
        drawn.words.push({ span, end: end - (word.length - word.trimEnd().length) });
      }
      drawn.written = line.text;
    }
    const heard = heardCharacters(line);
    for (const { span, end } of drawn.words) {
      const is = end <= heard;
      if (span.classList.contains("heard") !== is) span.classList.toggle("heard", is);
    }
  }
}

/** A line's elements, nothing in them yet but whose it is. @param {{role: string, paraphrase?: boolean}} line */
function framed({ role, paraphrase }) {
  const root = document.createElement("div");
  const head = root.appendChild(document.createElement("p"));
  head.className = "meta";
  const who = head.appendChild(document.createElement("span"));
  who.className = "who";
  who.textContent = role === "user" ? "You" : "Noema";
  if (paraphrase) head.append(" ", approximately());
  const meta = head.appendChild(document.createElement("span"));
  meta.className = "about";
  const text = root.appendChild(document.createElement("p"));
  text.className = "text";
  text.dir = "auto";
  return { root, meta, text };
}

/** Words, each with what follows it. @param {string} text */
function words(text) {
  const words = [];
  for (const { segment, isWordLike } of SEGMENTER.segment(text)) {
    if (isWordLike || !words.length) words.push(segment);
    else words[words.length - 1] += segment;
  }
  return words;
}

/** What stands beside the name. @param {import("./conversation.js").Line} line */
function about({ role, language, probability, latency, state }) {
  const sure = probability === null ? "" : ` ${Math.round(probability * 100)} %`;
  const parts = [language ? `${languageName(language)}${sure}` : ""];
  const wait = latency?.first_audio; // none, where the reply was ready when the pause was over
  if (wait !== undefined && wait !== null) parts.push(wait < 1 ? "first sound at once" : `first sound after ${Math.round(wait)} ms`);
  if (state === "cut") parts.push("interrupted");
  if (state === "failed") parts.push(role === "user" ? "not understood" : "came to nothing");
  return parts.filter(Boolean).join(" · ");
}

function approximately() {
  const sign = document.createElement("abbr");
  sign.title = "roughly: a paraphrase of what was understood, not a transcript";
  sign.textContent = "≈";
  return sign;
}
