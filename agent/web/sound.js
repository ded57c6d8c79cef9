// Sound: the page's one audio context, with our worklet in it where the page is on HTTPS or on this machine. Opened late,
// since browsers want a gesture first.

let opening = null;
let changed = () => {};

/** @returns {Promise<AudioContext>} the same one each time */
export function openSound() {
  opening ??= open().catch((error) => {
    opening = null; // the next gesture may have more luck
    throw error;
  });
  return opening;
}

async function open() {
  const context = new AudioContext({ latencyHint: "interactive" }); // at the device's rate: see worklet.js
  context.addEventListener("statechange", () => changed(context.state === "running"));
  try {
    await context.audioWorklet?.addModule(new URL("worklet.js", import.meta.url));
  } catch (error) {
    context.close(); // there may be only a few
    throw error;
  }
  return context;
}

/**
 * Each key and touch lets replies sound, if they did not: at first a browser wants one, and a phone call may have taken
 * the sound away.
 * @param {(running: boolean) => void} tell that sound can be heard now, or not any more
 */
export function unlockSound(tell) {
  changed = tell;
  const unlock = async () => {
    const context = await openSound().catch(() => null); // the speaker tells
    if (context && context.state !== "running") await context.resume();
  };
  for (const gesture of ["pointerdown", "keydown", "click"]) addEventListener(gesture, unlock, true);
}
