// Live: one conversation with the server, without its looks. What the user does goes in; events for the page come out.

import { Concepts } from "./concepts.js";
import { Connection } from "./connection.js";
import { Conversation } from "./conversation.js";
import { Floor } from "./floor.js";
import { Hearing } from "./hearing.js";
import { ResumeQueue } from "./resume_queue.js";
import { sessionOf } from "./settings.js";
import { Talk } from "./talk.js";

const KEPT_AS = 1; // another number when what `keep` gives changes its form
const PLAYBACK_MS = 200;
const PLAIN = /^event_\d+$/; // ids of what is kept; what is said in passing repeats a number, with a suffix
const BUSY = "conversation_already_has_active_response";
const FORGIVEN = ["response_cancel_not_active", "input_audio_buffer_commit_empty", BUSY];
// What to begin with when the first try was refused: without what was chosen, then without a way back, for which it may
// be too late. After that, the user is told.
const RETREATS = [{ resume: true }, {}];

/**
 * Events: `state` (of the connection), `session` (as it holds), `line` (a changed line), `heard` (more of a line's sound),
 * `lines` (all are others now), `concepts`, `floor`, `meter`, `listeners`, `warning` (a sentence), `lost` (what was said
 * is not part of the session any more), `tooShort`.
 */
export class Live extends EventTarget {
  #playbackAt = 0;
  #cancelled = null; // id of the last response that was not wanted any more
  #session = null; // as it holds; null until the server has said so
  #drawn = 0; // number of the last event that an earlier page has dealt with
  #owed = false; // a reply was asked for while another was under way
  #retreats = 0;

  /**
   * @param {object} how
   * @param {string} how.url
   * @param {string|null} how.token
   * @param {import("./settings.js").Settings} how.settings
   * @param {import("./speaker.js").Speaker} how.speaker
   * @param {ReturnType<Live["keep"]>|null} how.kept by an earlier page
   */
  constructor({ url, token, settings, speaker, kept }) {
    super();
    if (kept?.version !== KEPT_AS) kept = null; // by a page of another release
    this.settings = settings;
    this.speaker = speaker;
    this.conversation = Conversation.fromJSON(kept?.lines ?? []);
    this.concepts = kept ? Concepts.fromJSON(kept.concepts) : new Concepts();
    this.hearing = Hearing.goingOn(kept?.unheard ?? null);
    this.floor = Object.assign(new Floor(), kept?.floor);
    this.#drawn = numberOf(kept?.resume?.seen);
    this.connection = new Connection({
      url,
      token,
      queue: kept ? ResumeQueue.fromJSON(kept.queue) : new ResumeQueue(),
      resume: kept?.resume ?? null,
      opening: () => this.#update({ resume: true }),
    });
    this.talk = new Talk({
      audio: (piece) => this.connection.sendAudio(piece),
      event: (event) => this.#send(event),
      tooShort: () => this.#tell("tooShort"),
    });
    this.talk.mode = settings.values.mode;
    this.connection.addEventListener("message", ({ detail }) => this.#receive(detail));
    this.connection.addEventListener("state", ({ detail }) => this.#tell("state", detail));
    this.connection.addEventListener("fresh", () => this.#begin());
    speaker.addEventListener("position", ({ detail }) => this.#heard(detail));
    settings.addEventListener("change", () => this.#settle());
  }

  /** Whether the agent falls silent when it hears speech: interpreters speak on. */
  get interruptible() {
    return this.#session?.audio.input.turn_detection?.interrupt_response ?? false;
  }

  /** A typed sentence: what is being said gives way to it. @param {string} text */
  async say(text) {
    await this.interrupt();
    const content = [{ type: "input_text", text }];
    this.#send({ type: "conversation.item.create", item: { type: "message", role: "user", content } });
    this.#send({ type: "response.create" });
  }

  /** The user wants silence, or the floor. */
  async interrupt() {
    const { response, item, thinking } = this.floor;
    const begins = thinking && this.connection.state.state === "open"; // else nobody has been asked yet
    if (response || begins) this.#send({ type: "response.cancel" });
    if (response) this.#cancelled = response; // more of it may be on its way
    await this.#hush(...(response && item ? [item] : []));
  }

  hold() {
    this.interrupt();
    this.talk.hold();
    this.#tell("floor");
  }

  release() {
    this.talk.release();
    this.#tell("floor");
  }

  /** Everything from the beginning, in a session of its own. */
  async anew() {
    this.hearing.silence();
    await this.speaker.clear();
    this.#forget();
    this.conversation = new Conversation();
    this.concepts = new Concepts();
    this.#tell("lines");
    this.connection.startAnew();
  }

  /** What a page that is loaded again needs, as JSON. */
  keep() {
    const unheard = this.hearing.unheard((item) => this.conversation.find(item)?.heardMs ?? 0);
    const { resume, queue } = this.connection;
    const seen = numberOf(resume?.after) < this.#drawn ? resume.seen : resume?.after;
    return {
      version: KEPT_AS,
      resume: resume && { token: resume.token, after: unheard?.event ?? seen, seen },
      unheard,
      queue,
      lines: this.conversation,
      concepts: this.concepts,
      floor: { response: this.floor.response, item: this.floor.item },
    };
  }

  #receive(event) {
    if (PLAIN.test(event.event_id) && numberOf(event.event_id) <= this.#drawn) {
      // Drawn by an earlier page; only its sound is missing.
      if (event.type === "response.output_audio.delta") this.#sound(event);
      return;
    }
    this.floor.take(event);
    const line = this.conversation.take(event);
    if (line) this.#tell("line", line);
    this.#act(event);
    this.#tell("floor");
  }

  #act(event) {
    switch (event.type) {
      case "session.updated":
      case "noema.resumed":
        this.#session = event.session;
        this.#talk(event.session.audio.input.turn_detection ? "free" : "hold");
        if (event.session.noema) this.#tell("session", event.session);
        break;
      case "input_audio_buffer.speech_started":
        if (this.interruptible) this.#hush();
        break;
      case "response.output_audio.delta":
        this.#sound(event);
        break;
      case "response.done":
        if (this.#owed) this.#send({ type: "response.create" });
        this.#owed = false;
        break;
      case "conversation.item.deleted":
        this.concepts.remove(event.item_id);
        this.#tell("lines");
        break;
      case "noema.concepts":
        this.concepts.add(event);
        this.#tell("concepts");
        break;
      case "noema.meter":
        this.#tell("meter", event);
        break;
      case "noema.listeners":
        this.#tell("listeners", event.count);
        break;
      case "noema.warning":
        this.#tell("warning", event.message);
        break;
      case "error":
        if (event.error.code === BUSY) this.#owed = true;
        if (!FORGIVEN.includes(event.error.code)) this.#refused(event.error);
        break;
    }
  }

  #refused({ message, param }) {
    if (!this.#session && param?.startsWith("session.") && this.#retreats < RETREATS.length) {
      this.settings.forget(); // chosen on another day, of another server
      this.#send(this.#update(RETREATS[this.#retreats++]));
      return;
    }
    if (this.#session?.noema) this.#tell("session", this.#session); // whatever was chosen does not hold
    this.#tell("warning", message);
  }

  #sound(event) {
    if (event.response_id === this.#cancelled) this.hearing.silence(event.item_id);
    const samples = this.hearing.take(event, this.connection.resume?.after ?? null);
    if (samples) this.speaker.play(event.item_id, samples);
  }

  /** Playback falls silent, also of what may still come of these items; the server learns what was heard of what waited. */
  async #hush(...items) {
    const waited = this.hearing.silence(...items);
    const { item: sounding, ms } = await this.speaker.clear();
    const cut = [...waited.keys()];
    for (const item of cut.slice(Math.max(0, cut.indexOf(sounding)))) {
      const heard = item === sounding ? Math.round(this.hearing.heard(item, ms)) : 0;
      if (heard >= Math.floor(waited.get(item))) continue; // it had just ended
      this.conversation.hear(item, heard);
      this.#send({ type: "conversation.item.truncate", item_id: item, content_index: 0, audio_end_ms: heard });
    }
  }

  #heard({ item, ms, playing }) {
    const heard = Math.round(this.hearing.heard(item, ms));
    const line = this.conversation.hear(item, heard);
    if (line) this.#tell("heard", line);
    const now = performance.now();
    if (!playing || now - this.#playbackAt >= PLAYBACK_MS) {
      this.#playbackAt = now;
      this.#send({ type: "noema.playback", item_id: item, audio_ms: heard });
    }
    this.#tell("floor");
  }

  #settle() {
    this.#talk(this.settings.values.mode);
    this.#send(this.#update());
  }

  #talk(mode) {
    if (this.talk.mode !== mode) this.talk.mode = mode;
  }

  #update(more = {}) {
    const session = sessionOf(this.settings.values);
    return { type: "session.update", session: { ...session, noema: { ...session.noema, ...more } } };
  }

  #send(event) {
    this.connection.send(event);
    if (event.type === "response.create") {
      this.floor.thinking = true;
      this.#tell("floor");
    }
  }

  /** Nothing holds any more of a session that was before. */
  #begin() {
    this.#forget();
    if (this.conversation.lines.length) this.#tell("lost");
  }

  #forget() {
    this.#session = null;
    this.#owed = false;
    this.#drawn = this.#retreats = 0;
    this.hearing = new Hearing();
    this.floor = new Floor();
  }

  #tell(type, detail = null) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }
}

/** @param {string|null|undefined} id */
function numberOf(id) {
  return Number(/^event_(\d+)/.exec(id ?? "")?.[1] ?? 0);
}
