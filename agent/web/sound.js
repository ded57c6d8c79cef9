// Sound: the page's one audio context, with our worklet in it where the page is on HTTPS or on this machine. Opened late,
// since browsers want a gesture first.

let opening = null;

/** @returns {Promise<AudioContext>} the same one each time */
export function openSound() {
  opening ??= (async () => {
    const context = new AudioContext({ latencyHint: "interactive" }); // at the device's rate: see worklet.js
    await context.audioWorklet?.addModule(new URL("worklet.js", import.meta.url));
    return context;
  })().catch((error) => {
    opening = null; // the next gesture may have more luck
    throw error;
  });
  return opening;
}

/**
 * Each key and touch lets replies sound, if they did not: at first a browser wants one, and a phone call may have taken
 * the sound away.
 * @param {() => void} unlocked
 */
export function unlockSound(unlocked) {
  const unlock = async () => {
    const context = await openSound();
    if (context.state === "running") return;
    await context.resume();
    unlocked();
  };
  for (const gesture of ["pointerdown", "keydown"]) addEventListener(gesture, unlock, true);
}
