// Talk keys: the microphone's button, the space bar and Escape. Knows which key means what, not what comes of it.

const OPERABLE = "a, button, input, select, textarea, summary, dialog";

/**
 * @param {HTMLButtonElement} button
 * @param {object} does
 * @param {() => boolean} does.byHand whether the button is one to be held, and the space bar, too: else it switches
 * @param {() => boolean} does.held
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
    if (!does.byHand()) does.toggle();
    else if (detail) return; // a pointer's, which held it
    else if (does.held()) does.release(); // a screen reader's
    else does.hold();
  });
  button.addEventListener("pointerdown", (event) => {
    if (!does.byHand() || event.button !== 0) return;
    button.setPointerCapture(event.pointerId);
    does.hold();
  });
  for (const type of ["pointerup", "pointercancel"]) button.addEventListener(type, end);
  button.addEventListener("contextmenu", (event) => does.byHand() && event.preventDefault()); // a long touch

  addEventListener("keydown", (event) => {
    if (event.key === "Escape" && !document.querySelector("dialog[open]")) does.interrupt();
    if (!isTalkKey(event, button, does)) return;
    event.preventDefault();
    if (event.repeat) return;
    pressed = event.key;
    does.hold();
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
