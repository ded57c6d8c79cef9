// Speaker: plays replies, says how much of each has been heard, and falls silent at once.

import { PlainPlayback } from "./plain_playback.js";
import { openSound } from "./sound.js";

const RATE = 24_000;

const PATIENCE_MS = 500;
const ANSWER_MS = 300;

/**
 * Events: `position` {item, ms: of this item heard, playing: whether more waits}; `locked`: there is something to hear,
 * and the browser wants a gesture first.
 */
export class Speaker extends EventTarget {
  #context = null;
  #node = null;
  #analyser = null;
  #cleared = new Map(); // number of a clear → who waits for it
  #opening = null;
  #queued = 0;
  #clears = 0;
  #patience = 0;
  #last = { item: null, ms: 0 };

  /** Samples that wait to sound. */
  get queued() {
    return this.#queued;
  }

  /** False while the browser waits for a gesture. */
  get sounding() {
    return this.#context?.state === "running";
  }

  /** @param {string} item whose sound it is @param {Float32Array} samples at 24 kHz */
  async play(item, samples) {
    this.#queued += samples.length;
    const clears = this.#clears;
    try {
      await this.#open();
    } catch {
      this.#queued = 0;
      this.#expectSound();
      return;
    }
    if (clears !== this.#clears) return; // cut short before it could begin
    this.#node.port.postMessage({ play: samples, item }, [samples.buffer]);
    if (!this.sounding) this.#expectSound();
  }

  #expectSound() {
    clearTimeout(this.#patience); // a context takes a moment to begin
    this.#patience = setTimeout(() => this.sounding || this.dispatchEvent(new Event("locked")), PATIENCE_MS);
  }

  /** Silence now. @returns {Promise<{item: string|null, ms: number, playing: boolean}>} what had been heard of what sounded */
  async clear() {
    const number = ++this.#clears;
    const playing = this.#queued > 0;
    this.#queued = 0;
    const about = { ...this.#last, playing };
    // While the audio thread sleeps nobody answers; it finds the message when it wakes up.
    const answer = this.sounding ? new Promise((resolve) => this.#cleared.set(number, resolve)) : about;
    this.#node?.port.postMessage({ clear: number });
    setTimeout(() => this.#answer(number, about), ANSWER_MS); // some browsers' worklets have been seen to stand still
    return answer;
  }

  /** How loud it is at this moment, root mean square 0..1: what the page draws, and what a test listens to. */
  level() {
    if (!this.#analyser) return 0;
    const samples = new Float32Array(this.#analyser.fftSize);
    this.#analyser.getFloatTimeDomainData(samples);
    return Math.sqrt(samples.reduce((sum, sample) => sum + sample * sample, 0) / samples.length);
  }

  #open() {
    this.#opening ??= (async () => {
      this.#context = await openSound();
      this.#node = this.#context.audioWorklet
        ? new AudioWorkletNode(this.#context, "playback", { numberOfInputs: 0, outputChannelCount: [1] })
        : new PlainPlayback(this.#context);
      this.#node.port.onmessage = ({ data }) => this.#report(data);
      this.#analyser = this.#context.createAnalyser();
      this.#node.connect(this.#analyser).connect(this.#context.destination);
    })().catch((error) => {
      this.#opening = null;
      throw error;
    });
    return this.#opening;
  }

  #answer(number, position) {
    this.#cleared.get(number)?.(position);
    this.#cleared.delete(number);
  }

  #report({ item, heard, queued, cleared }) {
    // What was given to the device sounds a little later; what has ended has been heard, or will be in a moment.
    const late = queued ? RATE * ((this.#context.outputLatency || 0) + (this.#context.baseLatency || 0)) : 0;
    const position = { item, ms: Math.max(0, Math.round(((heard - late) / RATE) * 1000)), playing: queued > 0 };
    this.#last = { item, ms: position.ms };
    if (cleared) {
      this.#answer(cleared, position);
      return;
    }
    if (!this.#cleared.size) this.#queued = queued; // else it was said before what waits was thrown away
    this.dispatchEvent(new CustomEvent("position", { detail: position }));
  }
}
