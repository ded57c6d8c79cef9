// Talk: which of the microphone's sound goes out, and what is said about it, hands-free or held. Pure.

const PRE_ROLL = 15; // pieces of 20 ms from before the key went down: the first sound of a word comes early
const TAIL = 6; // and after it came up: the last comes late
const SHORTEST = 10;

export class Talk {
  #mode = "free";
  #state = "idle"; // or "held", or "tail" once released
  #waiting = [];
  #pieces = 0;

  /** @param {{audio: (piece: Uint8Array) => void, event: (event: object) => void, tooShort: () => void}} wire */
  constructor(wire) {
    this.wire = wire;
  }

  /** "free": the server finds out when you speak. "hold": you say so. */
  get mode() {
    return this.#mode;
  }

  set mode(mode) {
    this.drop();
    this.#mode = mode;
  }

  get held() {
    return this.#state === "held";
  }

  /** @param {Uint8Array} piece 20 ms */
  hear(piece) {
    if (this.#mode === "free") {
      this.wire.audio(piece);
    } else if (this.#state === "idle") {
      this.#waiting.push(piece);
      if (this.#waiting.length > PRE_ROLL) this.#waiting.shift();
    } else {
      this.wire.audio(piece);
      this.#pieces++;
      if (this.#state === "tail" && this.#pieces >= TAIL) this.#finish();
    }
  }

  hold() {
    if (this.#mode !== "hold" || this.held) return;
    this.#pieces = this.#state === "tail" ? SHORTEST : 0; // let go and held again at once: the same turn
    this.#state = "held";
    for (const piece of this.#waiting.splice(0)) this.wire.audio(piece);
  }

  release() {
    if (!this.held) return;
    if (this.#pieces < SHORTEST) {
      this.drop();
      this.wire.tooShort();
      return;
    }
    this.#state = "tail";
    this.#pieces = 0;
  }

  /** What was held is not meant any more. */
  drop() {
    if (this.#state !== "idle") this.wire.event({ type: "input_audio_buffer.clear" });
    this.#state = "idle";
    this.#waiting = [];
  }

  #finish() {
    this.#state = "idle";
    this.wire.event({ type: "input_audio_buffer.commit" });
    this.wire.event({ type: "response.create" });
  }
}
