// Listen: the listeners' page. Somebody's conversation, in the language of one's choice, to read and to hear.

import { fromBase64, pcmToFloat } from "./base64.js";
import { hide } from "./focus.js";
import { languageTag, namedLanguages } from "./languages.js";
import { session as memory, preferences, takeFragment } from "./memory.js";
import { Speaker } from "./speaker.js";
import { unlockSound } from "./sound.js";
import { SteadySocket } from "./steady_socket.js";
import { listeningText } from "./wording.js";

const KEPT_LINES = 60;
const MOST_BEHIND = 30 * 24_000; // samples: whoever is further behind skips ahead
const at = (id) => document.getElementById(id);

const fragment = takeFragment();
const link = fragment.session ? fragment : (memory.get("listen") ?? {});
memory.set("listen", link);
const speaker = new Speaker();
const lines = new Map(); // item's id and speaker → element
let language = link.language ?? preferences.get("listen.language") ?? null;
let sound = false;

const socket = new SteadySocket(address, link.token ?? null);
socket.addEventListener("state", ({ detail }) => {
  at("connection").dataset.state = detail.state;
  tellHearing(true);
  hide(at("retry"), detail.state !== "waiting", at("language"));
});
socket.addEventListener("message", ({ detail }) => receive(detail));
at("retry").addEventListener("click", () => socket.connect());
at("language").addEventListener("change", ({ target }) => choose(target.value));
at("sound").addEventListener("click", switchSound);

speaker.addEventListener("locked", () => tellHearing(false));
unlockSound(tellHearing);

function tellHearing(can) {
  const text = can || !sound ? listeningText(socket.state) : "Tap anywhere to hear";
  at("connection").querySelector("[data-part=text]").textContent = text;
}

function address() {
  const url = new URL("v1/realtime/translations", location.href);
  url.protocol = url.protocol.replace("http", "ws");
  url.search = new URLSearchParams({
    session: link.session ?? "",
    ...(language ? { language } : {}),
    source: link.source ?? "both",
    audio: sound,
  });
  return url.href;
}

function receive(event) {
  switch (event.type) {
    case "session.created":
      offer(event.session.languages);
      break;
    case "session.output_transcript.delta":
      write(event);
      break;
    case "session.output_audio.delta":
      if (speaker.queued > MOST_BEHIND) speaker.clear();
      speaker.play(event.item_id ?? "", pcmToFloat(fromBase64(event.delta)));
      break;
    case "session.closed":
      socket.close("over");
      break;
    case "error":
      socket.close(event.error.message);
      break;
  }
}

/** The languages there are; at first the browser's own, if it is among them. */
function offer(languages) {
  const own = languages.find((code) => navigator.languages.some((tag) => tag.split("-")[0] === languageTag(code)));
  const first = language === null;
  language ??= own ?? languages[0];
  at("language").replaceChildren(...namedLanguages(languages).map(({ code, name }) => new Option(name, code)));
  at("language").value = language;
  if (first) socket.connect();
}

function choose(code) {
  language = code;
  preferences.set("listen.language", code);
  speaker.clear();
  socket.connect();
}

function switchSound() {
  sound = !sound;
  at("sound").setAttribute("aria-pressed", sound);
  at("sound").querySelector("[data-part=name]").textContent = sound ? "Sound off" : "Sound on";
  socket.connect();
  if (!sound) speaker.clear();
}

function write({ item_id: item, speaker: who, delta, language: spoken }) {
  const list = at("captions");
  const atEnd = list.scrollHeight - list.scrollTop - list.clientHeight < 120;
  const key = `${item} ${who}`;
  let line = lines.get(key);
  if (!line) {
    line = list.appendChild(document.createElement("p"));
    line.className = `line ${who}`;
    line.lang = languageTag(spoken ?? language);
    const label = line.appendChild(document.createElement("span"));
    label.className = "who";
    label.lang = "en";
    label.textContent = who === "agent" ? "Noema" : "Speaker";
    line.appendChild(document.createElement("span")).dir = "auto";
    lines.set(key, line);
    if (lines.size > KEPT_LINES) {
      const [oldest] = lines.keys();
      lines.get(oldest).remove();
      lines.delete(oldest);
    }
  }
  line.lastChild.append(delta);
  if (atEnd) list.scrollTop = list.scrollHeight;
}

if (link.session) socket.connect();
else socket.close("nothing");

globalThis.noema = { socket, speaker };
