// Resume queue: what is to be sent, and what was sent until the server is known to have it. Pure: no socket, no clock.
//
// The wire acknowledges nothing while it lasts. After a cut the server says how many samples and how many other
// messages of ours took effect; the queue drops those and gives the rest again, in the order in which it came.

import { fromBase64, toBase64 } from "./base64.js";

const BYTES_A_SAMPLE = 2;
export const KEPT_SAMPLES = 30 * 24_000;
export const KEPT_EVENTS = 500;
const SAVED_SAMPLES = 10 * 24_000; // session storage is small

/**
 * One message. `at` is null until it was sent in this session; then, of audio, the samples before it, and of another
 * message, its number (from 1).
 * @typedef {{audio: Uint8Array, at: number|null} | {event: object, at: number|null}} Entry
 */

export class ResumeQueue {
  /** @type {Entry[]} */
  #entries = [];
  #sent = 0; // so many of them went out on this connection
  #samples = 0;
  #events = 0;

  /** How much is waiting to go out. */
  get waiting() {
    return this.#entries.length - this.#sent;
  }

  /** Typed, and not gone out yet. @returns {string[]} */
  get sentences() {
    const typed = this.#entries.slice(this.#sent).filter(({ event, at }) => at === null && event?.item?.content);
    return typed.map(({ event }) => event.item.content.map((part) => part.text ?? "").join(" "));
  }

  /** @param {Uint8Array} audio samples of 16 bits */
  addAudio(audio) {
    this.#entries.push({ audio, at: null });
    this.#bound();
  }

  /** @param {{type: string}} event */
  addEvent(event) {
    // Where playback stands is worth sending once: the newest replaces one that waits.
    const last = this.#entries.at(-1);
    if (event.type === "noema.playback" && this.waiting && last?.event?.type === event.type) this.#entries.pop();
    this.#entries.push({ event, at: null });
    this.#bound();
  }

  /** What has not gone out yet; counts as sent from here on. @returns {object[]} */
  take() {
    const fresh = this.#entries.slice(this.#sent);
    this.#sent = this.#entries.length;
    return fresh.map((entry) => {
      if (entry.audio) {
        entry.at = this.#samples;
        this.#samples += entry.audio.length / BYTES_A_SAMPLE;
        return { type: "input_audio_buffer.append", audio: toBase64(entry.audio) };
      }
      entry.at = ++this.#events;
      return entry.event;
    });
  }

  /**
   * The session goes on: the server has so many of our samples and other messages.
   * @param {number} samples
   * @param {number} events
   */
  resumed(samples, events) {
    this.#entries = this.#entries.flatMap((entry) => {
      if (entry.at === null) return [entry];
      if (entry.event) return entry.at > events ? [{ ...entry, at: null }] : [];
      const known = Math.max(0, samples - entry.at) * BYTES_A_SAMPLE;
      return known < entry.audio.length ? [{ audio: entry.audio.subarray(known), at: null }] : [];
    });
    this.#sent = 0;
    this.#samples = samples;
    this.#events = events;
  }

  /**
   * A new session: nothing of the old one counts. What the old one may have had is not said again, nor what was meant
   * for its items; sentences that never went out are kept.
   * @param {{type: string}} first goes ahead of everything
   */
  begin(first) {
    let typed = false; // the entry before is a sentence that is kept, and so what asks for its answer
    const kept = this.#entries.filter(({ event, at }) => {
      const asks = typed && event?.type === "response.create";
      typed = at === null && event?.type === "conversation.item.create";
      return typed || asks;
    });
    this.#entries = [{ event: first, at: null }, ...kept];
    this.#sent = this.#samples = this.#events = 0;
  }

  /** For storage that holds text. */
  toJSON() {
    let room = SAVED_SAMPLES * BYTES_A_SAMPLE;
    const kept = [];
    for (const entry of [...this.#entries].reverse()) {
      if (!entry.audio) kept.push(entry);
      else if ((room -= entry.audio.length) >= 0) kept.push({ audio: toBase64(entry.audio), at: entry.at });
    }
    return { entries: kept.reverse(), samples: this.#samples, events: this.#events };
  }

  /** @param {ReturnType<ResumeQueue["toJSON"]>} saved */
  static fromJSON(saved) {
    const queue = new ResumeQueue();
    queue.#entries = saved.entries.map((entry) => (entry.audio ? { ...entry, audio: fromBase64(entry.audio) } : entry));
    queue.#samples = saved.samples;
    queue.#events = saved.events;
    return queue;
  }

  /** Forgets the oldest beyond what is kept: what was sent is almost surely there, and old sound that waits is stale. */
  #bound() {
    const audio = this.#entries.reduce((sum, entry) => sum + (entry.audio?.length ?? 0), 0);
    if (audio > KEPT_SAMPLES * BYTES_A_SAMPLE) this.#forget((entry) => entry.audio);
    const events = this.#entries.reduce((sum, entry) => sum + (entry.event ? 1 : 0), 0);
    if (events > KEPT_EVENTS) this.#forget((entry) => entry.event);
  }

  #forget(ofKind) {
    const oldest = this.#entries.findIndex(ofKind);
    this.#entries.splice(oldest, 1);
    if (oldest < this.#sent) this.#sent--;
  }
}
