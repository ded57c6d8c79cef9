// Conversation: what was said, line by line, out of the wire's events. Pure: the page draws it, storage keeps it.

const KEPT_LINES = 200;
const MS_A_BYTE = 1000 / (24_000 * 2);

/**
 * @typedef {object} Line
 * @property {string} id the item's
 * @property {"user"|"assistant"} role
 * @property {string} text
 * @property {boolean} paraphrase it was spoken: the words are the concept's, not the speaker's
 * @property {string|null} language
 * @property {number|null} probability of the language, where it was found out
 * @property {"open"|"done"|"cut"|"failed"} state cut: interrupted, or stopped
 * @property {number[]} starts where in the text each sentence of a reply begins
 * @property {{from: number, ms: number}[]} marks where in the text, and when, sound begins that came after other sound
 * @property {number} soundMs that came, of a reply
 * @property {number|null} heardMs of it; null: nothing of it is spoken, all counts as heard
 * @property {object|null} latency milliseconds by stage
 * @property {boolean} speculated the reply was begun before the speaker's pause was over
 */

export class Conversation {
  /** @type {Line[]} */
  lines = [];

  /** @param {string} id */
  find(id) {
    return this.lines.findLast((line) => line.id === id);
  }

  /** The reply to what the user said. @param {Line|undefined} line */
  replyTo(line) {
    const next = this.lines[this.lines.indexOf(line) + 1];
    return line && next?.role === "assistant" ? next : undefined;
  }

  /** @param {object} event from the server @returns {Line|null} the line that it changed */
  take(event) {
    switch (event.type) {
      case "conversation.item.added":
        return this.#add(event);
      case "conversation.item.deleted":
        this.lines = this.lines.filter((line) => line.id !== event.item_id);
        return null;
      case "response.done":
        return this.#finish(event.response);
      case "noema.latency":
        return this.#measure(event);
      default:
        return this.#change(this.find(event.item_id), event);
    }
  }

  /** So much of a reply has been heard. @returns {Line|null} */
  hear(id, ms) {
    const line = this.find(id);
    if (!line || line.state === "cut") return null;
    line.heardMs = Math.max(line.heardMs ?? 0, ms);
    return line;
  }

  toJSON() {
    return this.lines;
  }

  static fromJSON(lines) {
    const conversation = new Conversation();
    conversation.lines = lines;
    return conversation;
  }

  #add({ item, previous_item_id: previous }) {
    if (item.type !== "message" || this.find(item.id)) return null;
    const content = item.content ?? [];
    const line = {
      id: item.id,
      role: item.role === "assistant" ? "assistant" : "user",
      text: content.map((part) => part.text ?? part.transcript ?? "").join(" ").trim(),
      paraphrase: content.some((part) => part.type === "input_audio"),
      language: null,
      probability: null,
      state: item.role === "assistant" && item.status === "in_progress" ? "open" : "done",
      starts: [],
      marks: [],
      soundMs: 0,
      heardMs: null,
      latency: null,
      speculated: false,
    };
    const before = this.lines.findLastIndex((other) => other.id === previous);
    this.lines.splice(before < 0 ? this.lines.length : before + 1, 0, line);
    if (this.lines.length > KEPT_LINES) this.lines.shift();
    return line;
  }

  #change(line, event) {
    if (!line) return null;
    switch (event.type) {
      case "conversation.item.input_audio_transcription.delta":
        line.text += event.delta;
        return line;
      case "conversation.item.input_audio_transcription.completed":
        line.text = event.transcript.trim();
        return line;
      case "conversation.item.input_audio_transcription.failed":
        line.state = "failed";
        return line;
      case "response.output_audio_transcript.delta":
        line.heardMs ??= 0;
        this.#mark(line);
        return this.#write(line, event.delta);
      case "response.output_text.delta":
        return this.#write(line, event.delta);
      case "response.output_audio.delta":
        line.soundMs += ((event.delta.length * 3) / 4 - padding(event.delta)) * MS_A_BYTE;
        return line;
      case "conversation.item.truncated":
        line.state = "cut";
        line.heardMs = Math.min(line.soundMs, event.audio_end_ms);
        return line;
      case "noema.language":
        Object.assign(line, { language: event.language, probability: event.probability });
        return line;
      case "noema.concepts":
        line.language ??= event.language;
        return line;
      default:
        return null;
    }
  }

  /** One more sentence of a reply. */
  #write(line, sentence) {
    line.starts.push(line.text.length);
    line.text += sentence;
    return line;
  }

  /** A sentence begins in the sound where the sound that came before it ends. */
  #mark(line) {
    const last = line.marks.at(-1);
    if (!last || line.soundMs > last.ms) line.marks.push({ from: line.text.length, ms: line.soundMs });
  }

  #finish(response) {
    const line = response.output?.map((item) => this.find(item.id)).find(Boolean);
    if (!line) return null;
    if (line.state === "open") line.state = { completed: "done", cancelled: "cut" }[response.status] ?? "failed";
    return line;
  }

  #measure(event) {
    const line = this.find(event.item_id);
    if (!line) return null;
    Object.assign(line, { latency: event.ms, speculated: event.speculated });
    return line;
  }
}

/** One sentence of a line, or all of it where they are not told apart. @param {Line|undefined} line */
export function sentence(line, index) {
  const { text = "", starts = [] } = line ?? {};
  return (index in starts ? text.slice(starts[index], starts[index + 1]) : text).trim();
}

/** How many characters of a reply have been heard. @param {Line} line */
export function heardCharacters(line) {
  if (line.heardMs === null) return line.text.length;
  const n = line.marks.findLastIndex((mark) => mark.ms <= line.heardMs);
  if (n < 0) return 0;
  const begin = line.marks[n];
  const end = line.marks[n + 1] ?? { from: line.text.length, ms: line.soundMs };
  const share = end.ms > begin.ms ? Math.min(1, (line.heardMs - begin.ms) / (end.ms - begin.ms)) : 0;
  return Math.round(begin.from + share * (end.from - begin.from));
}

function padding(base64) {
  return base64.endsWith("==") ? 2 : base64.endsWith("=") ? 1 : 0;
}
