// Settings: what is spoken, what comes back, and how: from the controls, which read as a sentence, to session.update.

import { namedLanguages } from "./languages.js";
import { preferences } from "./memory.js";

const SEVERAL = "several";
const TASKS = { converse: "answers", translate: "interprets", transcribe: "repeats" };
/** Language, task and reply are as the server has them, until the user or the server says. */
export const DEFAULTS = { language: undefined, task: undefined, reply: undefined, aloud: true, mode: "free" };

/** The session object of a `session.update`. @param {typeof DEFAULTS & {listeners: boolean}} settings */
export function sessionOf({ language, task, reply, aloud, mode, listeners }) {
  const pcm = { type: "audio/pcm", rate: 24_000 };
  return {
    type: "realtime",
    output_modalities: [aloud ? "audio" : "text"],
    audio: {
      input: {
        format: pcm,
        transcription: { model: "noema" },
        turn_detection: mode === "free" ? { type: "server_vad" } : null,
      },
      output: { format: pcm },
    },
    noema: {
      concepts: true,
      latency: true,
      meter: true,
      task,
      language,
      reply_language: reply,
      listeners,
    },
  };
}

/** Event `change`: the user chose something else. */
export class Settings extends EventTarget {
  /** @param {HTMLFormElement} form with `language`, `task`, `reply`, `aloud`, a fieldset of `several`, and radios `mode` */
  constructor(form, modes) {
    super();
    this.values = { ...DEFAULTS, ...preferences.get("settings"), listeners: false };
    this.form = form;
    this.modes = modes;
    this.fields = form.elements;
    this.several = form.querySelector("fieldset");
    form.addEventListener("submit", (event) => event.preventDefault());
    form.addEventListener("change", ({ target }) => this.#chosen(target));
    for (const mode of modes) {
      mode.checked = mode.value === this.values.mode;
      mode.addEventListener("change", () => this.#changed({ mode: mode.value }));
    }
    this.fields.aloud.value = this.values.aloud ? "audio" : "text";
    this.#enable(false); // until the server has said what there is to choose from
  }

  #enable(enabled) {
    for (const control of this.form.querySelectorAll("select")) control.disabled = !enabled;
  }

  /** The server's word on what holds. @param {object} session of session.updated */
  show({ noema, output_modalities: modalities, audio }) {
    this.#offer(noema);
    this.#enable(true);
    const { language, task, reply_language: reply, listeners } = noema;
    Object.assign(this.values, { language, task, reply, aloud: modalities.includes("audio"), listeners: listeners !== null });
    this.values.mode = audio.input.turn_detection ? "free" : "hold";
    this.fields.language.value = language.includes(",") ? SEVERAL : language;
    this.fields.task.value = task;
    this.fields.reply.value = reply ?? "";
    this.fields.aloud.value = this.values.aloud ? "audio" : "text";
    for (const mode of this.modes) mode.checked = mode.value === this.values.mode;
    const few = language.split(",");
    for (const box of this.several.querySelectorAll("input")) box.checked = few.includes(box.value);
    this.several.hidden = this.fields.language.value !== SEVERAL;
  }

  /** What was chosen once does not fit this server: as it has it, then. */
  forget() {
    preferences.remove("settings");
    Object.assign(this.values, DEFAULTS);
  }

  /** Lets others listen, or no more: a matter of this session. */
  setListeners(listeners) {
    this.values.listeners = listeners;
    this.dispatchEvent(new Event("change"));
  }

  #offer({ languages: { text, speech }, tasks }) {
    const offered = JSON.stringify([text, speech, tasks]);
    if (offered === this.offered) return;
    this.offered = offered;
    this.text = text;
    const spoken = namedLanguages(speech);
    this.fields.language.replaceChildren(
      option("auto", "any language it knows"),
      ...(speech.length > 2 ? [option(SEVERAL, "one of several…")] : []),
      ...spoken.map(({ code, name }) => option(code, name)),
    );
    this.fields.reply.replaceChildren(
      option("", "the same language"),
      ...namedLanguages(text).map(({ code, name }) => option(code, name)),
    );
    this.fields.task.replaceChildren(...tasks.map((task) => option(task, TASKS[task] ?? task)));
    this.several.replaceChildren(this.several.querySelector("legend"), ...spoken.map(box));
  }

  #chosen(control) {
    const { language, task, reply, aloud } = this.fields;
    if (control === language || control.type === "checkbox") {
      const few = [...this.several.querySelectorAll("input:checked")].map((each) => each.value);
      this.several.hidden = language.value !== SEVERAL;
      if (language.value !== SEVERAL) this.#changed({ language: language.value });
      else if (few.length > 1) this.#changed({ language: few.join(",") });
    } else if (control === task && task.value === "translate" && !reply.value) {
      // An interpreter into the speaker's own language would only repeat.
      this.#changed({ task: task.value, reply: this.text.find((code) => !this.values.language.includes(code)) ?? this.text[0] });
    } else if (control === task) this.#changed({ task: task.value });
    else if (control === reply) this.#changed({ reply: reply.value || null });
    else this.#changed({ aloud: aloud.value === "audio" });
  }

  #changed(some) {
    Object.assign(this.values, some);
    preferences.set("settings", { ...preferences.get("settings"), ...some }); // what was not chosen stays the server's
    this.dispatchEvent(new Event("change"));
  }
}

function option(value, text) {
  const element = document.createElement("option");
  element.value = value;
  element.textContent = text;
  return element;
}

function box({ code, name }) {
  const label = document.createElement("label");
  const input = document.createElement("input");
  input.type = "checkbox";
  input.value = code;
  label.append(input, ` ${name}`);
  return label;
}
