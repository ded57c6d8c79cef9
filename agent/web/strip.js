// Strip: what is heard and what is said, drawn outwards from the microphone's button: the speaker to the left, Noema to
// the right. A column's height is the level, its colour the probability of speech.

const TICK_MS = 50;
const COLUMN = 3;
const GAP = 2;
const SILENCE_DB = -60;
const SPEECH = 0.5;

export class Strip {
  #history = []; // {user: 0..1, sure: 0..1, agent: 0..1}, the newest first
  #level = 0;
  #timer = 0;
  #quiet = 0;

  /**
   * @param {HTMLCanvasElement} canvas
   * @param {HTMLElement} meter the same for those who do not see it
   * @param {() => number} agentLevel root mean square of what sounds
   */
  constructor(canvas, meter, agentLevel) {
    Object.assign(this, { canvas, meter, agentLevel });
    this.probability = 0;
    this.still = matchMedia("(prefers-reduced-motion: reduce)");
    new ResizeObserver(() => this.#draw()).observe(canvas);
  }

  /** How loud the microphone is. @param {number} level root mean square */
  hear(level) {
    this.#level = Math.max(this.#level, level);
    this.run();
  }

  /** How likely it is speech. @param {number|null} probability null: nobody listens */
  judge(probability) {
    this.probability = probability ?? 0;
    this.meter.hidden = probability === null;
    const percent = Math.round(this.probability * 100);
    this.meter.setAttribute("aria-valuenow", percent);
    this.meter.textContent = `speech ${percent} %`;
    this.meter.classList.toggle("speech", this.probability >= SPEECH);
  }

  /** Draws as long as there is something to see. */
  run() {
    if (this.#timer) return;
    this.#quiet = 0;
    this.#timer = setInterval(() => this.#tick(), TICK_MS);
  }

  #tick() {
    const now = { user: height(this.#level), sure: this.probability, agent: height(this.agentLevel()) };
    this.#level = 0;
    this.#history.unshift(now);
    const columns = Math.ceil(this.canvas.clientWidth / 2 / (COLUMN + GAP));
    this.#history.length = Math.min(this.#history.length, columns);
    this.#quiet = now.user || now.agent ? 0 : this.#quiet + 1;
    this.#draw();
    if (this.#quiet > columns) {
      clearInterval(this.#timer);
      this.#timer = 0;
    }
  }

  #draw() {
    const { canvas } = this;
    const scale = devicePixelRatio || 1;
    const [width, tall] = [canvas.clientWidth, canvas.clientHeight];
    if (canvas.width !== Math.round(width * scale) || canvas.height !== Math.round(tall * scale)) {
      canvas.width = Math.round(width * scale);
      canvas.height = Math.round(tall * scale);
    }
    const context = canvas.getContext("2d");
    const { color: user, fill: agent, stroke: faint } = getComputedStyle(canvas); // the style sheet says which
    context.setTransform(scale, 0, 0, scale, 0, 0);
    context.clearRect(0, 0, width, tall);
    const history = this.still.matches ? this.#history.slice(0, 1) : this.#history;
    const column = this.still.matches ? 40 : COLUMN;
    history.forEach((each, n) => {
      const offset = 48 + n * (column + GAP);
      context.globalAlpha = Math.max(0, 1 - offset / (width / 2)) ** 0.6;
      bar(context, width / 2 - offset - column, tall, column, each.user, each.sure >= SPEECH ? user : faint);
      bar(context, width / 2 + offset, tall, column, each.agent, agent);
    });
  }
}

function bar(context, x, tall, width, level, colour) {
  if (!level) return;
  const high = Math.max(2, level * tall * 0.92);
  context.fillStyle = colour;
  context.beginPath();
  context.roundRect(x, (tall - high) / 2, width, high, width / 2);
  context.fill();
}

/** Decibels, as ears have it. */
function height(level) {
  return level > 0 ? Math.min(1, Math.max(0, 1 - (20 * Math.log10(level)) / SILENCE_DB)) ** 1.5 : 0;
}
