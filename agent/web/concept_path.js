// Concept path: draws the conversation as a path through concept space, one point a sentence, and its list in words.
// Knows points and how to describe them; nothing of the wire.

import { cardOf, inWords } from "./path_card.js";

const SVG = "http://www.w3.org/2000/svg";
const MOVE_MS = 700;
const LABELLED = 4;
const CLEAR = 8; // of the latest segments, labels keep off; those before are faint
const STEPS = 24; // places looked at along a segment
const HEAD = 28; // pixels that the title and the legend take

export class ConceptPath {
  #points = [];
  #at = new Map(); // key → where it is drawn, in pixels
  #marks = new Map(); // key → its element
  #frame = 0;
  #focused = null;

  /**
   * @param {object} elements
   * @param {SVGElement} elements.picture
   * @param {HTMLElement} elements.card beside the point that is looked at
   * @param {HTMLElement} elements.list the same in words
   * @param {(point: import("./concepts.js").Point) => import("./path_card.js").Told} tell
   */
  constructor({ picture, card, list }, tell) {
    Object.assign(this, { picture, card, list, tell });
    this.still = matchMedia("(prefers-reduced-motion: reduce)");
    this.layers = ["trail", "labels", "agent", "user"].map((name) => this.picture.appendChild(svg("g", { class: name })));
    new ResizeObserver(() => this.#move(true)).observe(picture);
    list.closest("details").addEventListener("toggle", () => this.#listed());
    picture.addEventListener("keydown", (event) => this.#walk(event));
    picture.addEventListener("pointerleave", () => this.#look(this.#focused));
  }

  /** @param {import("./concepts.js").Point[]} points the oldest first */
  show(points) {
    this.#points = points;
    this.#mark();
    this.#describe();
    this.#move(this.still.matches);
  }

  /** Words or latencies have come in for points that are there. */
  refresh() {
    for (const point of this.#points) this.#marks.get(point.key)?.setAttribute("aria-label", this.#sentence(point));
    this.#label();
    this.#listed();
    if (!this.card.hidden) this.#look(this.card.dataset.key);
  }

  /** One element a point. */
  #mark() {
    const keys = new Set(this.#points.map((point) => point.key));
    for (const [key, mark] of this.#marks) {
      if (keys.has(key)) continue;
      mark.remove();
      this.#marks.delete(key);
      this.#at.delete(key);
    }
    for (const point of this.#points) if (!this.#marks.has(point.key)) this.#marks.set(point.key, this.#drawn(point));
    const last = this.#points.at(-1)?.key;
    if (!keys.has(this.#focused)) this.#focused = null;
    for (const [key, mark] of this.#marks) {
      mark.setAttribute("tabindex", key === (this.#focused ?? last) ? 0 : -1); // one tab stop; arrows walk the path
      mark.classList.toggle("latest", key === last);
    }
  }

  #drawn(point) {
    const mark = svg("g", { class: `point ${point.role}`, role: "img" });
    mark.append(svg("circle", { class: "reach", r: 15 }), svg("circle", { class: "halo", r: 13 }));
    mark.append(svg("circle", { class: "dot", r: point.role === "user" ? 5 : 8 }));
    mark.addEventListener("pointerenter", () => this.#look(point.key));
    mark.addEventListener("focus", () => {
      this.#focused = point.key;
      this.#look(point.key);
    });
    mark.addEventListener("blur", () => {
      this.#focused = null;
      this.#look(null);
    });
    this.layers[point.role === "user" ? 3 : 2].append(mark); // where both say the same, a dot lies in a ring
    return mark;
  }

  /** Everything glides to its new place. */
  #move(atOnce) {
    const target = this.#fitted();
    const from = new Map(this.#at);
    let last = null;
    for (const { key } of this.#points) {
      if (!from.has(key)) from.set(key, last ? [...from.get(last)] : target.get(key)); // out of the one before
      last = key;
    }
    const begin = performance.now();
    const step = (now) => {
      const share = atOnce ? 1 : Math.min(1, Math.max(0, now - begin) / MOVE_MS);
      const ease = 1 - (1 - share) ** 3;
      for (const [key, [x, y]] of target) {
        const [u, v] = from.get(key);
        this.#at.set(key, [u + ease * (x - u), v + ease * (y - v)]);
      }
      this.#place();
      this.#frame = share < 1 ? requestAnimationFrame(step) : 0;
    };
    cancelAnimationFrame(this.#frame);
    if (atOnce) step(begin);
    else this.#frame = requestAnimationFrame(step);
  }

  /** Places in pixels, one scale for both directions. */
  #fitted() {
    const { clientWidth: width, clientHeight: height } = this.picture;
    const xs = this.#points.map((point) => point.x);
    const ys = this.#points.map((point) => point.y);
    const middle = (values) => (Math.min(...values) + Math.max(...values)) / 2;
    const extent = (values) => Math.max(...values) - Math.min(...values);
    const room = (size) => Math.max(20, size - 2 * Math.min(64, size * 0.14));
    const tall = height - HEAD;
    const scale = Math.min(room(width) / (extent(xs) || 1e-9), room(tall) / (extent(ys) || 1e-9), 1e4);
    const [x0, y0] = [middle(xs), middle(ys)];
    return new Map(
      this.#points.map(({ key, x, y }) => [key, [width / 2 + scale * (x - x0), HEAD + tall / 2 + scale * (y - y0)]]),
    );
  }

  #place() {
    for (const [key, mark] of this.#marks) {
      const [x, y] = this.#at.get(key);
      mark.setAttribute("transform", `translate(${x.toFixed(1)} ${y.toFixed(1)})`);
    }
    this.#trail();
    this.#label();
    if (!this.card.hidden) this.#look(this.card.dataset.key);
  }

  /** A curve through the points, fainter the longer ago. */
  #trail() {
    const places = this.#points.map((point) => this.#at.get(point.key));
    const curves = places.slice(1).flatMap((to, n) => {
      if (distance(places[n], to) < 1) return []; // one says what the other said: nothing lies between
      const age = places.length - 2 - n;
      return svg("path", {
        class: this.#points[n + 1].role,
        d: drawn(this.#segment(places, n)),
        "stroke-opacity": Math.max(0.16, 0.9 * 0.86 ** age).toFixed(2),
      });
    });
    this.layers[0].replaceChildren(...curves);
  }

  #segment(places, n) {
    return curve(places[n - 1] ?? places[n], places[n], places[n + 1], places[n + 2] ?? places[n + 1]);
  }

  /** The latest sentences beside their points, off the line, where there is room. */
  #label() {
    const { clientWidth: width, clientHeight: height } = this.picture;
    const taken = [...this.#at.values()].map(([x, y]) => box(x, y, 16, 16));
    const places = this.#points.map((point) => this.#at.get(point.key)).filter(Boolean);
    for (let n = Math.max(0, places.length - 1 - CLEAR); n < places.length - 1; n++) {
      taken.push(...along(this.#segment(places, n)).map(([x, y]) => box(x, y, 4, 4)));
    }
    const labels = [];
    for (const point of this.#points.slice(-LABELLED).reverse()) {
      const text = shortened(this.tell(point).text, Math.min(34, Math.floor(width / 14)));
      if (!text || !this.#at.has(point.key)) continue;
      const [x, y] = this.#at.get(point.key);
      const long = text.length * 7.2;
      for (const [dx, dy] of [[18, 5], [-18, 5], [12, -16], [12, 26], [-12, -16], [-12, 26]]) {
        const left = dx > 0 ? x + dx : x + dx - long;
        const place = { x0: left, x1: left + long, y0: y + dy - 14, y1: y + dy + 5 };
        if (left < 4 || place.x1 > width - 4 || place.y0 < HEAD || place.y1 > height - 2 || taken.some((other) => overlap(place, other))) continue;
        const label = svg("text", { x: x + dx, y: y + dy, class: point.role });
        if (dx < 0) label.setAttribute("text-anchor", "end");
        label.textContent = text;
        labels.push(label);
        taken.push(place);
        break;
      }
    }
    this.layers[1].replaceChildren(...labels);
  }

  #describe() {
    const count = this.#points.length;
    this.picture.setAttribute(
      "aria-label",
      count ? `Path of ${count} concepts; arrow keys walk along it. The list below says the same in words.` : "No concepts yet",
    );
    this.picture.closest("section").classList.toggle("empty", !count);
    this.refresh();
  }

  #listed() {
    if (!this.list.closest("details").open) return;
    this.list.replaceChildren(
      ...this.#points.map((point) => {
        const row = document.createElement("li");
        row.className = point.role;
        row.textContent = this.#sentence(point);
        return row;
      }),
    );
  }

  #sentence(point) {
    return inWords(point, this.tell(point));
  }

  #walk(event) {
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    const keys = this.#points.map((point) => point.key);
    const here = keys.indexOf(this.#focused);
    const next = { Home: 0, End: keys.length - 1 }[event.key] ?? (step && here + step);
    if (here < 0 || next === undefined || !keys[next]) return;
    event.preventDefault();
    const mark = this.#marks.get(keys[next]);
    for (const other of this.#marks.values()) other.setAttribute("tabindex", other === mark ? 0 : -1);
    mark.focus();
  }

  /** Shows the card of a point, or none. */
  #look(key) {
    const point = this.#points.find((each) => each.key === key);
    this.card.hidden = !point;
    for (const [each, mark] of this.#marks) mark.classList.toggle("looked-at", each === key);
    if (!point) return;
    this.card.dataset.key = key;
    this.card.className = `card ${point.role}`;
    this.card.replaceChildren(...cardOf(point, this.tell(point)));
    const [x, y] = this.#at.get(key);
    const { clientWidth: width, clientHeight: height } = this.picture;
    const { offsetWidth, offsetHeight } = this.card;
    const left = x + 24 + offsetWidth < width ? x + 24 : Math.max(8, x - 24 - offsetWidth);
    this.card.style.left = `${left}px`;
    this.card.style.top = `${Math.max(8, Math.min(height - offsetHeight - 8, y - offsetHeight / 2))}px`;
  }
}

/** From one place to the next, in the direction of those around them (Catmull and Rom), never far astray. */
function curve(before, from, to, after) {
  const most = distance(from, to) / 3;
  const bend = ([x, y], [x0, y0], [x1, y1]) => {
    const scale = Math.min(1 / 6, most / (Math.hypot(x1 - x0, y1 - y0) || 1));
    return [x + scale * (x1 - x0), y + scale * (y1 - y0)];
  };
  return [from, bend(from, before, to), bend(to, after, from), to];
}

function drawn([from, ...way]) {
  return `M${written(from)}C${way.map(written).join(",")}`;
}

/** Places on a curve (Bernstein). */
function along([a, b, c, d]) {
  return Array.from({ length: STEPS + 1 }, (_, n) => {
    const [t, s] = [n / STEPS, 1 - n / STEPS];
    return [0, 1].map((i) => s ** 3 * a[i] + 3 * s * s * t * b[i] + 3 * s * t * t * c[i] + t ** 3 * d[i]);
  });
}

function written(place) {
  return place.map((value) => value.toFixed(1)).join(" ");
}

function distance([x, y], [u, v]) {
  return Math.hypot(x - u, y - v);
}

function shortened(text, length) {
  return text.length <= length ? text : `${text.slice(0, length - 1).trimEnd()}…`;
}

function box(x, y, width, height) {
  return { x0: x - width / 2, x1: x + width / 2, y0: y - height / 2, y1: y + height / 2 };
}

function overlap(a, b) {
  return a.x0 < b.x1 && b.x0 < a.x1 && a.y0 < b.y1 && b.y0 < a.y1;
}

function svg(name, attributes) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  return element;
}
