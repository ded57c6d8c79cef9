// Talk keys: the microphone's button, the space bar and Escape. Knows which key means what, not what comes of it.

const OPERABLE = "a, button, input, select, textarea, summary, dialog";

/**
 * @param {HTMLButtonElement} button
 * @param {object} does
 * @param {() => boolean} does.holding whether the button is one to be held: else it switches
 * @param {() => boolean} does.held
 * @param {() => boolean} does.byHand whether the space bar talks, too
 * @param {() => void} does.toggle
 * @param {() => void} does.hold
 * @param {() => void} does.release
 * @param {() => void} does.interrupt
 */
export function bindTalkKeys(button, does) {
  let pressed = null; // the key that talks
  const end = () => {
    pressed = null;
    does.release();
  };
  button.addEventListener("click", ({ detail }) => {
    if (!does.holding()) does.toggle();
    else if (detail) return; // a pointer's, which held it
    else if (does.held()) does.release(); // a screen reader's
    else does.hold();
  });
  button.addEventListener("pointerdown", (event) => {
    if (!does.holding() || event.button !== 0) return;
    button.setPointerCapture(event.pointerId);
    does.hold();
  });
  for (const type of ["pointerup", "pointercancel"]) button.addEventListener(type, end);
  button.addEventListener("contextmenu", (event) => does.holding() && event.preventDefault()); // a long touch

  addEventListener("keydown", (event) => {
    if (event.key === "Escape" && !document.querySelector("dialog[open]")) does.interrupt();
    if (!isTalkKey(event, button, does)) return;
    event.preventDefault();
    if (event.repeat) return;
    pressed = event.key;
    if (does.holding()) does.hold();
    else does.toggle();
  });
  addEventListener("keyup", (event) => {
    if (event.key !== pressed) return;
    event.preventDefault(); // no click
    end(); // wherever the keyboard is by now
  });
  addEventListener("blur", end);
  document.addEventListener("visibilitychange", () => document.hidden && end());
}

/** The space bar, where it does not belong to another control; Enter, too, on the button itself. */
function isTalkKey({ key, target }, button, does) {
  if (!does.byHand()) return false;
  return target === button ? key === " " || key === "Enter" : key === " " && !target.closest(OPERABLE);
}
