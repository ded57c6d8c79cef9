// Microphone: pieces of 20 ms at 24 kHz (s16le) while it is open, and what to do when it cannot be opened.

import { openSound } from "./sound.js";

const SILENT_MS = 3000;

/** Events: `piece` {audio: Uint8Array, level: 0..1}, `lost` (unplugged, or taken away), `silent` (it gives nothing), `sounds` (again). */
export class Microphone extends EventTarget {
  #stream = null;
  #nodes = [];
  #opening = null; // from start to stop
  #watch = 0;
  #silent = false;

  get open() {
    return this.#stream !== null;
  }

  /** @throws {DOMException} as getUserMedia does; `troubleWith` explains it */
  start() {
    this.#opening ??= this.#open();
    return this.#opening;
  }

  async #open() {
    if (!navigator.mediaDevices?.getUserMedia) throw new DOMException("no mediaDevices", "SecurityError");
    const stream = await navigator.mediaDevices.getUserMedia({
      audio: { echoCancellation: true, noiseSuppression: true, autoGainControl: true, channelCount: 1 },
    });
    if (!this.#opening || this.#stream) {
      for (const track of stream.getTracks()) track.stop(); // it comes too late
      return;
    }
    this.#stream = stream;
    const context = await openSound();
    await context.resume();
    if (this.#stream !== stream) return; // closed meanwhile
    const capture = new AudioWorkletNode(context, "capture", { channelCount: 1, channelCountMode: "explicit" });
    capture.port.onmessage = ({ data }) => this.#hear(data);
    const source = context.createMediaStreamSource(stream);
    source.connect(capture).connect(context.destination); // silent; Safari runs only what leads to the loudspeaker
    this.#nodes = [source, capture];
    const [track] = stream.getAudioTracks();
    track.addEventListener("ended", () => {
      this.stop();
      this.dispatchEvent(new Event("lost"));
    });
    track.addEventListener("mute", () => this.#stream === stream && this.#miss());
    this.#watch = setTimeout(() => this.#miss(), SILENT_MS);
  }

  stop() {
    clearTimeout(this.#watch);
    for (const node of this.#nodes) {
      node.port?.postMessage("end"); // else it runs on
      node.disconnect();
    }
    for (const track of this.#stream?.getTracks() ?? []) track.stop();
    this.#nodes = [];
    this.#stream = this.#opening = null;
    this.#silent = false;
  }

  #hear({ audio, level }) {
    if (!this.#stream) return;
    if (level > 0) {
      clearTimeout(this.#watch);
      if (this.#silent) this.dispatchEvent(new Event("sounds"));
      this.#silent = false;
    }
    this.dispatchEvent(new CustomEvent("piece", { detail: { audio: new Uint8Array(audio), level } }));
  }

  #miss() {
    this.#silent = true;
    this.dispatchEvent(new Event("silent"));
  }
}

const TYPING = "Until then, type: everything else works.";

/**
 * What happened, and what to do about it.
 * @param {string} name of the DOMException, or "lost" or "silent"
 * @param {{host: string, port: string}} address of this page
 * @returns {{title: string, steps: string[]}}
 */
export function troubleWith(name, { host, port }) {
  switch (name) {
    case "SecurityError":
      return {
        title: "This page is not on HTTPS, so the browser keeps the microphone from it.",
        steps: [
          "Start the server with “noema serve --tls self-signed” and open the https:// address it prints; " +
            "the browser warns once, since nobody else vouches for the certificate.",
          `Or, on the server's own machine, open http://localhost${port ? `:${port}` : ""}.`,
          TYPING,
        ],
      };
    case "NotAllowedError":
      return {
        title: "The browser was told not to let this page hear you.",
        steps: [
          "Chrome, Edge: press the icon left of the address, switch the microphone on, and press the button again. " +
            "Firefox: press the crossed-out microphone left of the address and clear “Blocked”. " +
            `Safari: Safari menu → Settings for ${host} → Microphone → Allow.`,
          "If it is not listed there, the system forbids it: macOS: System Settings → Privacy & Security → " +
            "Microphone. Android: Settings → Apps → your browser → Permissions. iPhone: Settings → Apps → your browser.",
          TYPING,
        ],
      };
    case "NotFoundError":
      return {
        title: "No microphone was found.",
        steps: ["Plug one in, or switch on the headset, and press the button again.", TYPING],
      };
    case "NotReadableError":
    case "AbortError":
      return {
        title: "The microphone is there but cannot be opened.",
        steps: ["Close other programs that use it (calls, recorders), then press the button again.", TYPING],
      };
    case "lost":
      return {
        title: "The microphone went away.",
        steps: ["Plug it in again, or choose another in the system's settings, and press the button.", TYPING],
      };
    case "silent":
      return {
        title: "The microphone is open, but nothing comes from it.",
        steps: ["See whether it is muted: on the headset, on the keyboard, or in the system's sound settings.", TYPING],
      };
    default:
      return {
        title: `The microphone could not be opened (${name}).`,
        steps: ["Reload the page and try again; if that does not help, try another browser.", TYPING],
      };
  }
}
