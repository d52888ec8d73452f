/** Arithmetic as NumPy does it, where the results have to be those of the Python package. */

/** Round to the nearest integer, halves to the even one, as Python's `round`. */
export function roundHalfEven(value) {
  const floor = Math.floor(value);
  if (value - floor === 0.5) {
    return floor % 2 === 0 ? floor : floor + 1;
  }
  return Math.round(value);
}

/** Return the sum of squares. */
export function energy(samples) {
  let sum = 0;
  for (const sample of samples) {
    sum += sample * sample;
  }
  return sum;
}

/** Return the sum of products of two signals of one length. */
export function product(a, b) {
  let sum = 0;
  for (let n = 0; n < a.length; n++) {
    sum += a[n] * b[n];
  }
  return sum;
}

/** True if all samples are equal, as in digital silence: nobody speaks there. */
export function isConstant(samples) {
  for (let n = 1; n < samples.length; n++) {
    if (samples[n] !== samples[0]) {
      return false;
    }
  }
  return true;
}

/** Return the q-quantile, 0 to 1, interpolated linearly between sorted values. */
export function quantile(values, q) {
  const sorted = Float64Array.from(values).sort();
  const position = q * (sorted.length - 1);
  const below = Math.floor(position);
  const above = Math.min(below + 1, sorted.length - 1);
  const fraction = position - below;
  // Two equal values may be −∞, whose difference is no number.
  return fraction === 0 || sorted[below] === sorted[above]
    ? sorted[below]
    : sorted[below] + fraction * (sorted[above] - sorted[below]);
}

/** Return parts of a signal as one. */
export function concatenate(parts) {
  const whole = new Float32Array(parts.reduce((count, part) => count + part.length, 0));
  let position = 0;
  for (const part of parts) {
    whole.set(part, position);
    position += part.length;
  }
  return whole;
}

/** Return the modified Bessel function of the first kind and order 0, by its power series. */
export function besselI0(x) {
  let term = 1;
  let sum = 1;
  for (let k = 1; term > 1e-17 * sum; k++) {
    term *= (x / (2 * k)) ** 2;
    sum += term;
  }
  return sum;
}

/** Return sin(πx) / (πx). */
export function sinc(x) {
  return x === 0 ? 1 : Math.sin(Math.PI * x) / (Math.PI * x);
}

/** Return the greatest common divisor of two positive integers. */
export function gcd(a, b) {
  return b === 0 ? a : gcd(b, a % b);
}
