// Plain playback: what the worklet's `playback` does, for pages without HTTPS, where browsers have no worklets. Takes and
// gives the same messages. Less exact: where two stretches of sound meet there may be a click.

const RATE = 24_000;
const LEAD_S = 0.05;
const TICK_MS = 50;

export class PlainPlayback {
  #pieces = []; // {item, source, start: context's time, before: samples of the item, length}
  #came = { item: null, samples: 0 };
  #last = { item: null, heard: 0 };
  #timer = 0;

  /** @param {AudioContext} context */
  constructor(context) {
    this.context = context;
    this.gain = context.createGain();
    this.port = { onmessage: null, postMessage: (message) => (message.clear ? this.#clear(message.clear) : this.#play(message)) };
  }

  /** @param {AudioNode} next */
  connect(next) {
    return this.gain.connect(next);
  }

  #play({ play: samples, item }) {
    const buffer = this.context.createBuffer(1, samples.length, RATE);
    buffer.copyToChannel(samples, 0);
    const source = this.context.createBufferSource();
    source.buffer = buffer;
    source.connect(this.gain);
    const last = this.#pieces.at(-1);
    const start = last ? last.start + last.length / RATE : this.context.currentTime + LEAD_S;
    source.start(start);
    if (this.#came.item !== item) this.#came = { item, samples: 0 };
    this.#pieces.push({ item, source, start, before: this.#came.samples, length: samples.length });
    this.#came.samples += samples.length;
    this.#timer ||= setInterval(() => this.#tick(), TICK_MS);
  }

  #tick() {
    while (this.#pieces.length && this.#passed(this.#pieces[0]) >= this.#pieces[0].length) {
      const { item, before, length } = this.#pieces.shift();
      this.#last = { item, heard: before + length };
      if (this.#pieces[0]?.item !== item) this.#say(this.#last);
    }
    if (this.#pieces.length) this.#say(this.#now());
    else this.#rest();
  }

  #clear(number) {
    const now = this.#now();
    const queued = this.#queued();
    for (const { source } of this.#pieces) source.stop();
    this.#pieces = [];
    this.#came = { item: null, samples: 0 };
    this.#rest();
    this.port.onmessage({ data: { ...now, queued, cleared: number } });
  }

  #rest() {
    clearInterval(this.#timer);
    this.#timer = 0;
  }

  #passed({ start }) {
    return Math.max(0, Math.floor((this.context.currentTime - start) * RATE));
  }

  #now() {
    const [first] = this.#pieces;
    return first ? { item: first.item, heard: first.before + Math.min(first.length, this.#passed(first)) } : this.#last;
  }

  #queued() {
    const all = this.#pieces.reduce((sum, { length }) => sum + length, 0);
    return Math.max(0, all - (this.#pieces.length ? this.#passed(this.#pieces[0]) : 0));
  }

  #say(position) {
    this.port.onmessage({ data: { ...position, queued: this.#queued() } });
  }
}
