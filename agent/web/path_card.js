// Path card: what is known of one concept, in words and as bars. Draws what it is told.

import { languageName } from "./languages.js";

const STAGES = { encode: "understand", think: "think", decode: "word", voice: "voice", first_audio: "first sound" };

/**
 * What is known of a point's item.
 * @typedef {{who: string, text: string, latency: object|null, speculated: boolean}} Told
 */

/** One sentence. @param {import("./concepts.js").Point} point @param {Told} told */
export function inWords(point, { who, text, latency }) {
  const near = point.nearness === null ? "" : ` ${nearness(point)}.`;
  const times = stages(latency).map(({ name, ms }) => `${name} ${milliseconds(ms)}`);
  return `${who}: «${text || "…"}» ${languageName(point.language)}.${near}${times.length ? ` ${times.join(", ")}.` : ""}`;
}

/** The parts of a card. @param {import("./concepts.js").Point} point @param {Told} told @returns {HTMLElement[]} */
export function cardOf(point, { who, text, latency, speculated }) {
  const times = stages(latency);
  return [
    paragraph("who", `${who} · ${languageName(point.language)}`),
    paragraph("said", text || "…"),
    ...(point.nearness === null ? [] : [paragraph("near", nearness(point))]),
    ...(times.length ? [bars(times)] : []),
    ...(speculated ? [paragraph("near", "begun in the pause, before it was over")] : []),
  ];
}

function stages(latency) {
  return Object.entries(STAGES).flatMap(([stage, name]) => {
    const ms = latency?.[stage];
    return ms === undefined || ms === null ? [] : [{ stage, name, ms }];
  });
}

function bars(times) {
  const longest = Math.max(...times.map(({ ms }) => ms), 1);
  const list = document.createElement("dl");
  list.className = "stages";
  for (const { stage, name, ms } of times) {
    const title = list.appendChild(document.createElement("dt"));
    title.textContent = name;
    const bar = list.appendChild(document.createElement("dd"));
    bar.className = `stage-${stage}`;
    bar.textContent = milliseconds(ms);
    bar.style.setProperty("--share", ms / longest);
  }
  return list;
}

function milliseconds(ms) {
  return `${ms < 10 ? ms.toFixed(1) : Math.round(ms)} ms`;
}

function nearness(point) {
  return `cosine ${point.nearness.toFixed(2)} to the sentence before`;
}

function paragraph(className, text) {
  const element = document.createElement("p");
  element.className = className;
  element.textContent = text;
  element.dir = "auto";
  return element;
}
