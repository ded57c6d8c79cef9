// Worklet: the microphone's sound at the machine's own rate in, 24 kHz out; replies at 24 kHz in, the machine's rate out.
// Runs on the audio thread. Knows nothing of sockets or pages. One file without imports: Firefox's worklets take none.

const WIRE_RATE = 24_000;
const PIECE = WIRE_RATE / 50; // 20 ms a message
const FADE = 96; // 4 ms: a reply that is cut short must not click
const REPORT_S = 0.05;

/**
 * Streaming resampler: windowed sinc, one set of taps for each phase that occurs (polyphase; Kaiser window, Smith's
 * "Digital Audio Resampling"). Delays by half its length. `sampleRate` may be anything.
 */
class Resampler {
  constructor(from, to) {
    const divisor = (a, b) => (b ? divisor(b, a % b) : a);
    const common = divisor(from, to);
    this.phases = to / common;
    this.step = from / common;
    const narrow = Math.min(1, to / from);
    this.half = Math.ceil(24 / narrow);
    this.taps = Array.from({ length: this.phases }, (_, phase) => this.#kernel(phase / this.phases, 0.9 * narrow));
    this.input = new Float32Array(this.half - 1); // silence before the first sample
    this.phase = 0;
  }

  #kernel(fraction, width) {
    const taps = new Float32Array(2 * this.half);
    let sum = 0;
    for (let n = 0; n < taps.length; n++) {
      const t = n - (this.half - 1) - fraction;
      const x = Math.PI * width * t;
      taps[n] = (Math.abs(x) < 1e-9 ? 1 : Math.sin(x) / x) * kaiser(t / this.half, 9);
      sum += taps[n];
    }
    return taps.map((tap) => tap / sum); // constants stay what they are
  }

  /** @param {Float32Array} samples @returns {Float32Array} what is certain by now */
  push(samples) {
    const input = new Float32Array(this.input.length + samples.length);
    input.set(this.input);
    input.set(samples, this.input.length);
    const length = 2 * this.half;
    const output = [];
    let start = 0;
    while (start + length <= input.length) {
      const taps = this.taps[this.phase];
      let sum = 0;
      for (let n = 0; n < length; n++) sum += taps[n] * input[start + n];
      output.push(sum);
      this.phase += this.step;
      start += Math.floor(this.phase / this.phases);
      this.phase %= this.phases;
    }
    this.input = input.slice(start);
    return Float32Array.from(output);
  }
}

/** Kaiser's window at −1..1. */
function kaiser(x, beta) {
  return Math.abs(x) > 1 ? 0 : bessel(beta * Math.sqrt(1 - x * x)) / bessel(beta);
}

/** I₀, by its series. */
function bessel(x) {
  let sum = 1;
  let term = 1;
  for (let k = 1; k < 40; k++) sum += term *= (x / (2 * k)) ** 2;
  return sum;
}

/** Posts {audio: ArrayBuffer of 20 ms as s16le, level: root mean square 0..1}; any message to it ends it. */
class Capture extends AudioWorkletProcessor {
  constructor() {
    super();
    this.resampler = new Resampler(sampleRate, WIRE_RATE);
    this.ended = false;
    this.port.onmessage = () => (this.ended = true);
    this.#begin();
  }

  #begin() {
    this.piece = new DataView(new ArrayBuffer(2 * PIECE));
    this.filled = 0;
    this.energy = 0;
  }

  process(inputs) {
    if (this.ended) return false;
    const channels = inputs[0];
    if (!channels.length) return true; // nothing is connected
    for (const sample of this.resampler.push(channels[0])) {
      const limited = Math.max(-1, Math.min(32767 / 32768, sample));
      this.piece.setInt16(2 * this.filled++, Math.round(limited * 32768), true);
      this.energy += limited * limited;
      if (this.filled === PIECE) {
        const audio = this.piece.buffer;
        this.port.postMessage({ audio, level: Math.sqrt(this.energy / PIECE) }, [audio]);
        this.#begin();
      }
    }
    return true;
  }
}

/**
 * Takes {play: Float32Array, item} and {clear: number}; posts {item, heard: samples of the item, queued: samples} 20 times
 * a second while it plays and whenever an item ends, and after {clear} the same with `cleared: number`.
 */
class Playback extends AudioWorkletProcessor {
  constructor() {
    super();
    this.resampler = new Resampler(WIRE_RATE, sampleRate);
    this.queue = [];
    this.ready = new Float32Array(0); // resampled, not given out yet
    this.item = null;
    this.heard = 0;
    this.reportAt = 0;
    this.port.onmessage = ({ data }) => {
      if (data.clear) this.#clear(data.clear);
      else this.queue.push({ samples: data.play, item: data.item });
    };
  }

  #queued() {
    return this.queue.reduce((sum, { samples }) => sum + samples.length, 0);
  }

  #clear(number) {
    const queued = this.#queued();
    const tail = this.#pull(FADE).map((sample, n) => sample * (1 - n / FADE));
    this.#report({ queued, cleared: number });
    this.queue = [{ samples: tail, item: null }];
    this.item = null;
    this.heard = 0;
  }

  /** The next samples at 24 kHz; silence where there are none. */
  #pull(count) {
    const samples = new Float32Array(count);
    let filled = 0;
    while (filled < count && this.queue.length) {
      const [next] = this.queue;
      if (next.item !== this.item) {
        if (this.item !== null) this.#report();
        this.item = next.item;
        this.heard = 0;
      }
      const part = next.samples.subarray(0, count - filled);
      samples.set(part, filled);
      filled += part.length;
      this.heard += part.length;
      next.samples = next.samples.subarray(part.length);
      if (!next.samples.length) this.queue.shift();
      if (!this.queue.length && this.item !== null) this.#report();
    }
    return samples;
  }

  #report(more = {}) {
    this.port.postMessage({ item: this.item, heard: this.heard, queued: this.#queued(), ...more });
    this.reportAt = currentTime + REPORT_S;
  }

  process(_, outputs) {
    const output = outputs[0][0];
    while (this.ready.length < output.length) {
      const more = this.resampler.push(this.#pull(32));
      const ready = new Float32Array(this.ready.length + more.length);
      ready.set(this.ready);
      ready.set(more, this.ready.length);
      this.ready = ready;
    }
    output.set(this.ready.subarray(0, output.length));
    this.ready = this.ready.slice(output.length);
    if (this.queue.length && this.item !== null && currentTime >= this.reportAt) this.#report();
    return true;
  }
}

registerProcessor("capture", Capture);
registerProcessor("playback", Playback);
