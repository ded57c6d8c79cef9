// Steady socket: one websocket after another to the same place, after a cut by itself, waiting longer each time.
// Knows nothing of what is said on it, but that a keep-alive comes when nothing else does.

const SILENCE_MS = 25_000; // the server sends a keep-alive every 10 s
const WAITS_S = [0.3, 1, 2, 4, 8, 15];
const STEADY_MS = 5000; // a connection that lasted this long begins with short waits again
const POLICY = 1008; // of three kinds; one is that nothing was heard of us for too long
const TAKEN_OVER = 4001;
const AWAY_MS = 10_000; // of our silence before that: nobody is here. Listeners, who say nothing ever, are not meant
const GESTURES = ["pointerdown", "keydown", "visibilitychange"];

/**
 * Events: `open`, `message` (detail: the object that came), `state` (detail: {state, reason}).
 * state: connecting, open, waiting (for the next try), elsewhere (another page took the session over), closed.
 */
export class SteadySocket extends EventTarget {
  #socket = null;
  #openedAt = 0;
  #failures = 0;
  #retry = 0;
  #silence = 0;
  #saidAt = null;

  /** @param {() => string} url asked for at each try @param {string|null} token */
  constructor(url, token) {
    super();
    this.url = url;
    this.protocols = ["realtime", ...(token ? [`openai-insecure-api-key.${token}`] : [])];
    this.state = { state: "connecting", reason: null };
    addEventListener("online", () => this.#retry && this.connect());
    for (const gesture of GESTURES) document.addEventListener(gesture, () => this.#wake());
  }

  /** Somebody is here again. */
  #wake() {
    if (this.state.state === "waiting" && !this.#retry && !document.hidden) this.connect();
  }

  /** Bytes that the network has not taken yet. */
  get bufferedAmount() {
    return this.#socket?.bufferedAmount ?? 0;
  }

  connect() {
    this.#drop();
    this.#say("connecting");
    this.#openedAt = 0;
    let socket;
    try {
      socket = this.#socket = new WebSocket(this.url(), this.protocols);
    } catch {
      this.close("mistyped"); // the token holds what no token can
      return;
    }
    this.#listen(); // some networks swallow even the first word
    const current = (handle) => (event) => this.#socket === socket && handle(event);
    socket.onopen = current(() => {
      this.#openedAt = Date.now();
      this.#listen();
      this.#say("open");
      this.dispatchEvent(new Event("open"));
    });
    socket.onmessage = current(({ data }) => {
      this.#listen();
      this.dispatchEvent(new CustomEvent("message", { detail: JSON.parse(data) }));
    });
    socket.onclose = current((event) => this.#closed(event));
  }

  /** @param {object} message */
  send(message) {
    this.#saidAt = Date.now();
    this.#socket.send(JSON.stringify(message));
  }

  /** For good. @param {string|null} reason */
  close(reason = null) {
    this.#drop();
    this.#say("closed", reason);
  }

  #listen() {
    clearTimeout(this.#silence);
    this.#silence = setTimeout(() => this.#closed({ code: 0, reason: "" }), SILENCE_MS);
  }

  #drop() {
    clearTimeout(this.#retry);
    clearTimeout(this.#silence);
    this.#retry = 0;
    const socket = this.#socket;
    this.#socket = null;
    socket?.close();
  }

  #say(state, reason = null) {
    this.state = { state, reason };
    this.dispatchEvent(new CustomEvent("state", { detail: this.state }));
  }

  async #closed({ code, reason }) {
    const opened = this.#openedAt > 0;
    if (opened && Date.now() - this.#openedAt > STEADY_MS) this.#failures = 0;
    this.#drop();
    if (code === TAKEN_OVER) {
      this.#say("elsewhere");
      return;
    }
    if (code === POLICY && this.#saidAt && Date.now() - this.#saidAt > AWAY_MS) {
      this.#say("waiting", "away"); // a forgotten page must not hold a seat
      return;
    }
    const wait = WAITS_S[Math.min(this.#failures++, WAITS_S.length - 1)] * (0.75 + Math.random() / 2);
    this.#retry = setTimeout(() => this.connect(), wait * 1000);
    this.#say("waiting", opened ? why(code, reason) : "unreachable");
    if (!opened && (await isReady(this.url())) && this.state.state === "waiting") this.#say("waiting", "refused");
  }
}

function why(code, reason) {
  if (code === 1012) return "restart";
  if (code === 1013) return "later";
  return code === 1008 && reason ? reason : "cut";
}

/** Whether the server answers over HTTP: then it is the page that it does not want. A browser is not told why. */
async function isReady(url) {
  try {
    return (await fetch(new URL("/readyz", url.replace(/^ws/, "http")), { cache: "no-store" })).ok;
  } catch {
    return false;
  }
}
