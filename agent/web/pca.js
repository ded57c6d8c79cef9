// PCA: concepts of any dimension in, places in the plane out. Pure.

const SWEEPS = 30;

/**
 * The plane in which these vectors differ most, by the eigenvectors of their inner products: there are fewer vectors
 * than dimensions. Lengths are not looked at: what counts between concepts is the angle.
 * @param {Float32Array[]} vectors
 * @returns {{place: (vector: Float32Array) => [number, number], explained: number}} explained: share of the variance
 */
export function plane(vectors) {
  const units = vectors.map(unit);
  const size = units[0].length;
  const mean = new Float64Array(size);
  for (const vector of units) for (let d = 0; d < size; d++) mean[d] += vector[d] / units.length;
  const centred = units.map((vector) => vector.map((value, d) => value - mean[d]));
  const { values, vectors: eigen } = eigenvectors(centred.map((a) => centred.map((b) => dot(a, b))));
  const order = [...values.keys()].sort((a, b) => values[b] - values[a]).slice(0, 2);
  const axes = order.map((k) => {
    const axis = new Float64Array(size);
    if (values[k] < 1e-9) return axis; // they differ in fewer directions than two
    for (let n = 0; n < centred.length; n++) {
      for (let d = 0; d < size; d++) axis[d] += (eigen[n][k] / Math.sqrt(values[k])) * centred[n][d];
    }
    return axis;
  });
  while (axes.length < 2) axes.push(new Float64Array(size));
  const total = values.reduce((sum, value) => sum + value, 0);
  const place = (vector) => {
    const offset = unit(vector).map((value, d) => value - mean[d]);
    return [dot(offset, axes[0]), dot(offset, axes[1])];
  };
  return { place, explained: total > 1e-9 ? order.reduce((sum, k) => sum + values[k], 0) / total : 1 };
}

/**
 * Turns and mirrors places so that they lie as near as can be to where they were: a picture that is computed anew with
 * each sentence must not flip. Orthogonal Procrustes in the plane.
 * @param {[number, number][]} places all of them
 * @param {[number, number][]} before where the first of them were
 */
export function aligned(places, before) {
  let best = { gain: -1, mirror: 1, cos: 1, sin: 0 };
  for (const mirror of [1, -1]) {
    let along = 0;
    let across = 0;
    before.forEach(([x, y], n) => {
      const [u, v] = [places[n][0], mirror * places[n][1]];
      along += u * x + v * y;
      across += u * y - v * x;
    });
    const gain = Math.hypot(along, across);
    if (gain > best.gain + 1e-12) best = { gain, mirror, cos: gain ? along / gain : 1, sin: gain ? across / gain : 0 };
  }
  const { mirror, cos, sin } = best;
  return places.map(([u, v]) => [cos * u - sin * mirror * v, sin * u + cos * mirror * v]);
}

/** Cosine of the angle between two vectors. */
export function cosine(a, b) {
  return dot(unit(a), unit(b));
}

/** @param {Float32Array} vector */
function unit(vector) {
  const values = Float64Array.from(vector);
  const length = Math.sqrt(dot(values, values)) || 1;
  return values.map((value) => value / length);
}

function dot(a, b) {
  let sum = 0;
  for (let d = 0; d < a.length; d++) sum += a[d] * b[d];
  return sum;
}

/** Of a symmetric matrix, by Jacobi's rotations (Golub and Van Loan, 8.5). Eigenvectors stand in columns. */
function eigenvectors(matrix) {
  const a = matrix.map((row) => Float64Array.from(row));
  const size = a.length;
  const v = a.map((_, n) => Float64Array.from({ length: size }, (_, m) => (n === m ? 1 : 0)));
  for (let sweep = 0; sweep < SWEEPS; sweep++) {
    let rest = 0;
    for (let p = 0; p < size; p++) for (let q = p + 1; q < size; q++) rest += a[p][q] ** 2;
    if (rest < 1e-20) break;
    for (let p = 0; p < size; p++) for (let q = p + 1; q < size; q++) rotate(a, v, p, q);
  }
  return { values: a.map((row, n) => row[n]), vectors: v };
}

function rotate(a, v, p, q) {
  if (Math.abs(a[p][q]) < 1e-300) return;
  const theta = (a[q][q] - a[p][p]) / (2 * a[p][q]);
  const t = Math.sign(theta || 1) / (Math.abs(theta) + Math.sqrt(theta * theta + 1));
  const c = 1 / Math.sqrt(t * t + 1);
  const s = t * c;
  for (let k = 0; k < a.length; k++) [a[k][p], a[k][q]] = [c * a[k][p] - s * a[k][q], s * a[k][p] + c * a[k][q]];
  for (let k = 0; k < a.length; k++) [a[p][k], a[q][k]] = [c * a[p][k] - s * a[q][k], s * a[p][k] + c * a[q][k]];
  for (let k = 0; k < a.length; k++) [v[k][p], v[k][q]] = [c * v[k][p] - s * v[k][q], s * v[k][p] + c * v[k][q]];
}
