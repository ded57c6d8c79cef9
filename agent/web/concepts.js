// Concepts: every sentence's concept so far, and its place in the plane. Pure: `concept_path.js` draws it.

import { float16ToFloat, fromBase64 } from "./base64.js";
import { aligned, cosine, plane } from "./pca.js";

const KEPT = 160;
export const PLANE_OF = 64; // the latest ones say which plane is looked at

/**
 * @typedef {object} Point
 * @property {string} key
 * @property {string} item whose sentence it is
 * @property {"user"|"assistant"} role
 * @property {number} index of the sentence within the item
 * @property {string} language
 * @property {Float32Array} vector
 * @property {number} x
 * @property {number} y
 * @property {boolean} placed it has been in the picture before
 * @property {number|null} nearness cosine to the concept before
 */

export class Concepts {
  /** @type {Point[]} */
  points = [];
  explained = 1;
  #events = [];

  /** @param {object} event noema.concepts */
  add(event) {
    this.#take(event);
    this.#bound();
    this.#arrange();
  }

  #take(event) {
    const last = this.#events.at(-1);
    if (last && (last.space_id !== event.space_id || last.dim !== event.dim)) {
      this.points = []; // concepts of another space cannot be compared
      this.#events = [];
    }
    const values = float16ToFloat(fromBase64(event.concepts));
    for (let n = 0; n < event.count; n++) {
      const key = `${event.item_id}:${event.index + n}`;
      if (this.points.some((point) => point.key === key)) continue;
      const vector = values.subarray(n * event.dim, (n + 1) * event.dim);
      const before = this.points.at(-1);
      const nearness = before ? cosine(before.vector, vector) : null;
      const { item_id: item, role, language } = event;
      this.points.push({ key, item, role, index: event.index + n, language, vector, x: 0, y: 0, placed: false, nearness });
    }
    this.#events.push(event);
  }

  /** The items that are no more part of the conversation. */
  remove(item) {
    this.points = this.points.filter((point) => point.item !== item);
    this.#events = this.#events.filter((event) => event.item_id !== item);
    this.#arrange();
  }

  toJSON() {
    return { events: this.#events, places: this.points.map(({ key, x, y }) => [key, x, y]) };
  }

  static fromJSON({ events, places }) {
    const concepts = new Concepts();
    for (const event of events) concepts.#take(event);
    const known = new Map(places.map(([key, x, y]) => [key, { x, y, placed: true }]));
    for (const point of concepts.points) Object.assign(point, known.get(point.key));
    concepts.#arrange();
    return concepts;
  }

  #bound() {
    this.points = this.points.slice(-KEPT);
    const items = new Set(this.points.map((point) => point.item));
    this.#events = this.#events.filter((event) => items.has(event.item_id));
  }

  #arrange() {
    if (!this.points.length) return;
    const { place, explained } = plane(this.points.slice(-PLANE_OF).map((point) => point.vector));
    this.explained = explained;
    const placed = this.points.filter((point) => point.placed);
    const fresh = this.points.filter((point) => !point.placed);
    const order = [...placed, ...fresh];
    const places = aligned(order.map((point) => place(point.vector)), placed.map(({ x, y }) => [x, y]));
    order.forEach((point, n) => Object.assign(point, { x: places[n][0], y: places[n][1], placed: true }));
  }
}
