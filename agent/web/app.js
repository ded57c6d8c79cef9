// App: the page's parts, put together. `globalThis.noema` holds them, for tests and for the curious.

import { Captions } from "./captions.js";
import { ConceptPath } from "./concept_path.js";
import { sentence } from "./conversation.js";
import { statusOf } from "./floor.js";
import { hide } from "./focus.js";
import { ListenersPanel } from "./listeners_panel.js";
import { Live } from "./live.js";
import { session as memory, takeFragment } from "./memory.js";
import { Microphone, troubleWith } from "./microphone.js";
import { Notices } from "./notices.js";
import { Settings } from "./settings.js";
import { unlockSound } from "./sound.js";
import { Speaker } from "./speaker.js";
import { Strip } from "./strip.js";
import { bindTalkKeys } from "./talk_keys.js";
import { connectionText, refusal } from "./wording.js";

const KEEP_MS = 1000;
const touch = matchMedia("(pointer: coarse)");
const at = (id) => document.getElementById(id);

const fragment = takeFragment();
const token = fragment.token ?? memory.get("token");
memory.set("token", token);
const url = new URL("v1/realtime", location.href);
url.protocol = url.protocol.replace("http", "ws");

const settings = new Settings(at("settings"), [...document.querySelectorAll("input[name=mode]")]);
const speaker = new Speaker();
const microphone = new Microphone();
const live = new Live({ url: url.href, token, settings, speaker, kept: memory.get("conversation") });
const captions = new Captions(at("captions"));
const notices = new Notices(at("notice"));
const strip = new Strip(at("strip"), at("meter"), () => speaker.level());
const listeners = new ListenersPanel(at("listeners-panel"), at("listeners"), (open) => settings.setListeners(open));
const path = new ConceptPath({ picture: at("picture"), card: at("card"), list: at("path-list") }, tell);
let opening = false;
let pressed = false; // while the microphone opens: the turn begins as soon as it is open
let changed = false;
let refused = false; // and told so: once an outage

/** What is known of a point. @param {import("./concepts.js").Point} point */
function tell(point) {
  const line = live.conversation.find(point.item);
  const reply = point.role === "user" ? live.conversation.replyTo(line) : line;
  const { latency = null, speculated = false } = reply ?? {};
  return { who: point.role === "user" ? "You" : "Noema", text: sentence(line, point.index), latency, speculated };
}

// The session

live.addEventListener("state", ({ detail }) => {
  at("connection").dataset.state = detail.state;
  at("connection").querySelector("[data-part=text]").textContent = connectionText(detail);
  hide(at("retry"), !["waiting", "elsewhere"].includes(detail.state), at("microphone"));
  at("anew").disabled = ["waiting", "connecting"].includes(detail.state); // the old one could not be forgotten
  if (["refused", "mistyped"].includes(detail.reason)) {
    if (!refused) notices.show("connection", ...refusal(detail.reason));
    refused = true;
  }
  if (detail.state === "open") {
    notices.clear("connection");
    refused = false;
  } else strip.judge(null);
  if (detail.state === "elsewhere") closeMicrophone();
  showWaiting();
  show();
});
live.addEventListener("session", ({ detail }) => {
  settings.show(detail);
  at("recording").hidden = !detail.noema.recording;
  listeners.show(detail.noema.listeners);
});
live.addEventListener("lost", () => {
  notices.show("lost", "The server no longer has this conversation: a new one has begun.", [
    "What was said stays here to read, but Noema does not remember it.",
  ]);
});
live.addEventListener("line", ({ detail }) => {
  captions.show(detail, live.conversation.lines);
  showWaiting();
  path.refresh();
  changed = true;
});
live.addEventListener("heard", ({ detail }) => captions.show(detail, live.conversation.lines));
live.addEventListener("lines", () => {
  captions.showAll(live.conversation.lines);
  showWaiting();
  draw();
});
live.addEventListener("concepts", draw);
live.addEventListener("meter", ({ detail }) => strip.judge(microphone.open ? detail.probability : null));
live.addEventListener("listeners", ({ detail }) => listeners.showCounts(detail));
live.addEventListener("warning", ({ detail }) => {
  if (listeners.dialog.open) listeners.tell(detail); // what is beneath a dialog is not seen
  else notices.show("warning", detail);
});
live.addEventListener("tooShort", () => notices.show("short", "Hold it for as long as you speak."));
live.addEventListener("floor", show);

function showWaiting() {
  captions.showWaiting(live.connection.queue.sentences);
}

function draw() {
  path.show(live.concepts.points);
  at("explained").textContent = live.concepts.points.length ? `${Math.round(live.concepts.explained * 100)} %` : "—";
  changed = true;
}

function show() {
  const now = {
    connection: live.connection.state.state,
    microphone: opening ? "opening" : microphone.open ? "on" : "off",
    mode: settings.values.mode,
    held: live.talk.held,
    playing: speaker.queued > 0,
    interruptible: live.interruptible,
    touch: touch.matches,
    floor: live.floor,
  };
  const { name, text } = statusOf(now);
  const status = at("status");
  if (status.textContent !== text) status.textContent = text;
  Object.assign(document.body.dataset, { status: name, microphone: now.microphone });
  at("stop").disabled = !now.playing && !now.floor.response && !now.floor.thinking;
  const button = at("microphone");
  const hold = now.mode === "hold" && now.microphone === "on";
  button.setAttribute("aria-pressed", hold ? now.held : now.microphone === "on");
  button.querySelector("[data-part=name]").textContent = hold ? "Hold to talk" : "Microphone";
  hide(at("off"), !hold, button);
  if (now.playing) strip.run();
}

// The microphone

async function openMicrophone() {
  opening = true;
  show();
  try {
    await microphone.start();
    notices.clear("microphone");
    notices.clear("sound");
    if (pressed) live.hold();
  } catch (error) {
    microphone.stop();
    complain(error.name);
  }
  opening = pressed = false;
  show();
}

function closeMicrophone() {
  live.talk.drop();
  microphone.stop();
  strip.judge(null);
  show();
}

function complain(name) {
  const { title, steps } = troubleWith(name, { host: location.hostname, port: location.port });
  notices.show("microphone", title, steps);
}

microphone.addEventListener("piece", ({ detail }) => {
  strip.hear(detail.level);
  live.talk.hear(detail.audio);
});
microphone.addEventListener("lost", () => {
  closeMicrophone();
  complain("lost");
});
microphone.addEventListener("silent", () => complain("silent"));
microphone.addEventListener("sounds", () => notices.clear("microphone"));

// What the user does

bindTalkKeys(at("microphone"), {
  toggle: () => (microphone.open ? closeMicrophone() : openMicrophone()),
  hold: () => {
    notices.clear("short");
    if (microphone.open && !opening) {
      live.hold();
    } else {
      pressed = true;
      openMicrophone();
    }
  },
  release: () => {
    pressed = false;
    live.release();
  },
  interrupt: () => live.interrupt(),
  held: () => pressed || live.talk.held,
  byHand: () => settings.values.mode === "hold",
});
at("off").addEventListener("click", closeMicrophone);
at("stop").addEventListener("click", () => live.interrupt());
at("retry").addEventListener("click", () => live.connection.connect());
at("anew").addEventListener("click", () => {
  if (!live.conversation.lines.length) return;
  const act = () => {
    live.anew();
    at("microphone").focus();
  };
  notices.show("anew", "A new conversation? What was said in this one will be forgotten.", [], { label: "Begin anew", act });
});
at("typing").addEventListener("submit", (event) => {
  event.preventDefault();
  const text = at("words").value.trim();
  if (!text) return;
  at("words").value = "";
  live.say(text).then(() => {
    changed = true;
    showWaiting();
  });
});
const locked = () => notices.show("sound", "Press any key, or tap anywhere, to hear Noema.");
speaker.addEventListener("locked", locked);
unlockSound((running) => {
  if (running) notices.clear("sound");
  else if (speaker.queued || microphone.open) locked(); // a phone call, say
});

// What outlives the page

function keep() {
  if (changed || live.connection.resume) memory.set("conversation", live.keep());
  changed = false;
}
addEventListener("pagehide", keep);
setInterval(() => changed && keep(), KEEP_MS);

captions.showAll(live.conversation.lines);
showWaiting();
draw();
show();
live.connection.connect();

globalThis.noema = { live, speaker, microphone, settings, path };
