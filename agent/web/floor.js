// Floor: who has it, the user or the agent, out of the wire's events; and how to say so. Pure.

export class Floor {
  userSpeaks = false;
  thinking = false;
  /** Id of the response under way, and of its item. */
  response = null;
  item = null;

  /** @param {object} event from the server */
  take(event) {
    switch (event.type) {
      case "input_audio_buffer.speech_started":
        this.userSpeaks = true;
        break;
      case "input_audio_buffer.speech_stopped":
      case "input_audio_buffer.cleared":
        this.userSpeaks = false;
        break;
      case "input_audio_buffer.committed":
        this.userSpeaks = false;
        this.thinking = true;
        break;
      case "response.created":
        this.response = event.response.id;
        this.item = null;
        this.thinking = true;
        break;
      case "response.output_item.added":
        this.item = event.item.id;
        break;
      case "response.output_audio.delta":
      case "response.output_text.delta":
        this.thinking = false;
        break;
      case "response.done":
        this.response = null;
        this.thinking = false;
        break;
    }
  }
}

/**
 * What is going on, in a few words.
 * @param {object} now
 * @param {string} now.connection
 * @param {"off"|"opening"|"on"} now.microphone
 * @param {"free"|"hold"} now.mode
 * @param {boolean} now.held
 * @param {boolean} now.playing
 * @param {boolean} now.interruptible speech stops Noema
 * @param {boolean} now.touch there are fingers rather than keys
 * @param {Floor} now.floor
 * @returns {{name: string, text: string}}
 */
export function statusOf({ connection, microphone, mode, held, playing, interruptible, touch, floor }) {
  if (held) return { name: "hearing", text: "Hearing you. Let go when you are done" };
  if (microphone === "opening") return { name: "off", text: "Opening the microphone…" };
  if (connection !== "open") return { name: "off", text: "Waiting for the connection" };
  if (floor.userSpeaks) return { name: "hearing", text: "Hearing you" };
  if (playing) {
    const hears = microphone === "on" && interruptible;
    const stop = touch ? "press Stop" : "press Esc";
    const ways = !hears ? stop : touch ? "speak" : `speak or ${stop}`;
    return { name: "speaking", text: `Noema is speaking; ${ways} to interrupt` };
  }
  if (floor.thinking) return { name: "thinking", text: "Thinking…" };
  if (microphone === "off") return { name: "off", text: "Press the microphone to talk, or type" };
  if (mode === "hold") return { name: "listening", text: `Hold the button${touch ? "" : " or the space bar"} while you speak` };
  return { name: "listening", text: "Listening" };
}
