// Connection: one session over one websocket after another. Knows how a session is begun and resumed (the queue knows
// what to send again), and nothing of what is said.

import { SteadySocket } from "./steady_socket.js";

const BUFFERED = 256 * 1024; // more than this in the socket: sound waits in the queue, which is bounded
const BLOCKED_MS = 100;

/**
 * Events: `message` (detail: what the server said), `state` (as SteadySocket's; open: the session goes on), `fresh` (a
 * new session begins: the first, or the server no longer has the one before).
 */
export class Connection extends EventTarget {
  #socket;
  #live = false; // the session has been begun or resumed on this socket
  #blocked = 0;

  /**
   * @param {object} how
   * @param {string} how.url ws or wss
   * @param {string|null} how.token
   * @param {import("./resume_queue.js").ResumeQueue} how.queue
   * @param {{token: string, after: string|null, seen?: string}|null} how.resume a session to go on with, after an
   *   event; where the server no longer has what follows that one, after the last that was seen
   * @param {() => object} how.opening the session.update that begins a new one
   */
  constructor({ url, token, queue, resume, opening }) {
    super();
    Object.assign(this, { queue, resume, opening });
    this.state = { state: "connecting", reason: null };
    this.#socket = new SteadySocket(() => url, token);
    this.#socket.addEventListener("open", () => this.#begin());
    this.#socket.addEventListener("message", ({ detail }) => this.#receive(detail));
    this.#socket.addEventListener("state", ({ detail }) => {
      this.#live = false;
      if (detail.state !== "open") this.#say(detail);
    });
  }

  connect() {
    this.#socket.connect();
  }

  /** @param {{type: string}} event goes out now, or when the connection is back */
  send(event) {
    this.queue.addEvent(event);
    this.#flush();
  }

  /** @param {Uint8Array} audio 24 kHz, 16 bits */
  sendAudio(audio) {
    this.queue.addAudio(audio);
    this.#flush();
  }

  /** Begins a new session; the old one is to be forgotten: nobody comes back to it. */
  startAnew() {
    if (this.#live) this.#socket.send({ type: "session.update", session: { type: "realtime", noema: { resume: false } } });
    this.resume = null;
    this.connect();
  }

  #say(state) {
    this.state = state;
    this.dispatchEvent(new CustomEvent("state", { detail: state }));
  }

  #begin() {
    if (this.resume) {
      const resume = { token: this.resume.token, after_event: this.resume.after };
      this.#socket.send({ type: "session.update", session: { type: "realtime", noema: { resume } } });
    } else {
      this.dispatchEvent(new Event("fresh"));
      this.queue.begin(this.opening());
      this.#goLive();
    }
  }

  #goLive() {
    this.#live = true;
    this.#say({ state: "open", reason: null });
    this.#flush();
  }

  #flush() {
    if (!this.#live) return;
    if (this.#socket.bufferedAmount > BUFFERED) {
      this.#blocked ||= setTimeout(() => {
        this.#blocked = 0;
        this.#flush();
      }, BLOCKED_MS);
      return;
    }
    for (const message of this.queue.take()) this.#socket.send(message);
  }

  #receive(message) {
    if (!this.#live && !this.#resume(message)) return;
    const token = message.session?.noema?.resume?.token;
    if (token) this.resume = { after: null, ...this.resume, token };
    this.dispatchEvent(new CustomEvent("message", { detail: message }));
    if (this.resume && message.event_id && message.type !== "noema.resumed") this.resume.after = message.event_id;
  }

  /** Before the session goes on, what comes is of one that the server made for this connection and now drops. */
  #resume(message) {
    if (message.type === "noema.resumed") {
      this.queue.resumed(message.input_audio_samples, message.client_events);
      this.#goLive();
      return true;
    }
    if (message.type === "error" && message.error.code === "noema_resume_unknown") {
      const { token, after, seen = after } = this.resume;
      this.resume = seen === after ? null : { token, after: seen };
      this.connect();
    }
    return false;
  }
}
