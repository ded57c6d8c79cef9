// Sound: the page's one audio context, with our worklet in it. Opened late, since browsers want a gesture first.

let opening = null;

/** @returns {Promise<AudioContext>} the same one each time */
export function openSound() {
  opening ??= (async () => {
    const context = new AudioContext({ latencyHint: "interactive" }); // at the device's rate: see worklet.js
    await context.audioWorklet.addModule(new URL("worklet.js", import.meta.url));
    return context;
  })().catch((error) => {
    opening = null; // the next gesture may have more luck
    throw error;
  });
  return opening;
}

/** From the first key or touch on, replies may sound. @param {() => void} unlocked */
export function unlockSound(unlocked) {
  const gestures = ["pointerdown", "keydown"];
  const unlock = async () => {
    const context = await openSound();
    await context.resume();
    for (const gesture of gestures) removeEventListener(gesture, unlock, true);
    unlocked();
  };
  for (const gesture of gestures) addEventListener(gesture, unlock, true);
}
