// Base64 and the numbers in it: what the wire carries as text, and back. Pure.

/** @param {Uint8Array} bytes @returns {string} */
export function toBase64(bytes) {
  let characters = "";
  for (let start = 0; start < bytes.length; start += 0x8000) {
    characters += String.fromCharCode(...bytes.subarray(start, start + 0x8000)); // a call takes so many arguments
  }
  return btoa(characters);
}

/** @param {string} text @returns {Uint8Array} */
export function fromBase64(text) {
  return Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
}

/** Samples of 16 bits, little-endian, as −1..1. An odd last byte is left out. @param {Uint8Array} bytes */
export function pcmToFloat(bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const samples = new Float32Array(bytes.byteLength >> 1);
  for (let n = 0; n < samples.length; n++) samples[n] = view.getInt16(2 * n, true) / 32768;
  return samples;
}

/** IEEE 754 halves, little-endian. @param {Uint8Array} bytes @returns {Float32Array} */
export function float16ToFloat(bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const values = new Float32Array(bytes.byteLength >> 1);
  for (let n = 0; n < values.length; n++) {
    const half = view.getUint16(2 * n, true);
    const sign = half & 0x8000 ? -1 : 1;
    const exponent = (half >> 10) & 0x1f;
    const fraction = half & 0x3ff;
    if (exponent === 0) values[n] = sign * fraction * 2 ** -24;
    else if (exponent === 31) values[n] = fraction ? NaN : sign * Infinity;
    else values[n] = sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
  }
  return values;
}
