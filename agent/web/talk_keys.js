// Talk keys: the microphone's button, the space bar and Escape. Knows which key means what, not what comes of it.

const OPERABLE = "a, button, input, select, textarea, summary, dialog";

/**
 * @param {HTMLButtonElement} button
 * @param {object} does
 * @param {() => boolean} does.holding whether the button is one to be held: else it switches
 * @param {() => boolean} does.byHand whether the space bar talks, too
 * @param {() => void} does.toggle
 * @param {() => void} does.hold
 * @param {() => void} does.release
 * @param {() => void} does.interrupt
 */
export function bindTalkKeys(button, does) {
  button.addEventListener("click", () => does.holding() || does.toggle());
  button.addEventListener("pointerdown", (event) => {
    if (!does.holding() || event.button !== 0) return;
    button.setPointerCapture(event.pointerId);
    does.hold();
  });
  for (const end of ["pointerup", "pointercancel"]) button.addEventListener(end, () => does.release());
  button.addEventListener("contextmenu", (event) => does.holding() && event.preventDefault()); // a long touch

  addEventListener("keydown", (event) => {
    if (event.key === "Escape" && !document.querySelector("dialog[open]")) does.interrupt();
    if (!isTalkKey(event, button, does)) return;
    event.preventDefault();
    if (event.repeat) return;
    if (does.holding()) does.hold();
    else does.toggle();
  });
  addEventListener("keyup", (event) => {
    if (!isTalkKey(event, button, does)) return;
    event.preventDefault(); // no click
    does.release();
  });
  addEventListener("blur", () => does.release());
  document.addEventListener("visibilitychange", () => document.hidden && does.release());
}

/** The space bar, where it does not belong to another control; Enter, too, on the button itself. */
function isTalkKey({ key, target }, button, does) {
  if (!does.byHand()) return false;
  return target === button ? key === " " || key === "Enter" : key === " " && !target.closest(OPERABLE);
}
