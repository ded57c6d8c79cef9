// Hearing: which of the replies' sound has come, and which of it is still to be heard. Pure.
//
// A page that is loaded again has lost the sound that waited. So it asks for the events from the first sound on that
// was not heard, and this says where that is.

import { fromBase64, pcmToFloat } from "./base64.js";

const KEPT_ITEMS = 20;
const RATE = 24_000;
const ms = (samples) => (samples * 1000) / RATE;

export class Hearing {
  #waiting = []; // {item, event: the one before it, from, to: ms}
  #came = new Map(); // item → ms of its sound that came
  #base = new Map(); // item → ms of it that an earlier page played
  #skip = null; // {item, samples}: heard before the page was loaded again
  #silent = new Set();

  /**
   * Sound of a reply.
   * @param {{item_id: string, delta: string}} event
   * @param {string|null} before id of the event before it
   * @returns {Float32Array|null} what is to be played
   */
  take({ item_id: item, delta }, before) {
    let samples = pcmToFloat(fromBase64(delta));
    const from = this.#came.get(item) ?? 0;
    this.#came.set(item, from + ms(samples.length));
    if (this.#came.size > KEPT_ITEMS) this.#came.delete(this.#came.keys().next().value);
    if (this.#silent.has(item)) return null;
    this.#waiting.push({ item, event: before, from, to: from + ms(samples.length) });
    if (this.#skip?.item === item) {
      samples = samples.slice(this.#skip.samples);
      this.#skip = null;
    }
    return samples.length ? samples : null;
  }

  /** Ms of an item that have been heard, given how much of it this page has played. */
  heard(item, played) {
    const heard = played + (this.#base.get(item) ?? 0);
    const current = this.#waiting.findIndex((each) => each.item === item);
    if (current > 0) this.#waiting.splice(0, current); // replies sound in the order in which they came
    while (this.#waiting[0]?.item === item && this.#waiting[0].to <= heard + 1) this.#waiting.shift();
    return heard;
  }

  /**
   * Nothing that waits will sound, nor what may still come of these items.
   * @returns {Map<string, number>} items that waited, the next to sound first, and the ms of sound that came of each
   */
  silence(...items) {
    const waited = new Map(this.#waiting.map(({ item, to }) => [item, to]));
    for (const item of [...items, ...waited.keys()]) this.#silent.add(item);
    this.#waiting = [];
    return waited;
  }

  /** The event to resume after, and where in its item's sound that is; null: everything has been heard. */
  unheard(heardMs) {
    const [first] = this.#waiting;
    return first ? { event: first.event, item: first.item, from: first.from, heard: Math.max(first.from, heardMs(first.item)) } : null;
  }

  /** @param {{item: string, from: number, heard: number}|null} unheard */
  static goingOn(unheard) {
    const hearing = new Hearing();
    if (!unheard) return hearing;
    const { item, from, heard } = unheard;
    hearing.#came.set(item, from);
    hearing.#base.set(item, heard);
    hearing.#skip = { item, samples: Math.round(((heard - from) * RATE) / 1000) };
    return hearing;
  }
}
