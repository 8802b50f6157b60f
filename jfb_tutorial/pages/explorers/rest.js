// What explorers share whose network runs in the page: its weights, two bytes each, and the iteration to rest.
const halves = (text) => {
  const raw = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0)), view = new DataView(raw.buffer);
  return Float32Array.from({ length: raw.length / 2 }, (_, i) => {
    const half = view.getUint16(2 * i, true), sign = half & 0x8000 ? -1 : 1, exponent = (half >> 10) & 31, part = half & 1023;
    return sign * (exponent ? 2 ** (exponent - 15) * (1 + part / 1024) : 2 ** -14 * (part / 1024));
  });
};

const norm = (x) => Math.sqrt(x.reduce((sum, value) => sum + value * value, 0));

// Iterates from u, a little at a time, so that the page stays awake; `keep(u, residual)` is called with the start and after each
// of at most `most` steps. True if it came to rest, false if it did not, null if `stale()` said that nobody waits for it any more.
async function toRest({ T, u, most, tol, keep, stale }) {
  keep(u, NaN);
  let clock = performance.now();
  for (let step = 0; step < most; step++) {
    const v = T(u), residual = norm(v.map((value, i) => value - u[i])) / norm(v);
    keep(v, residual);
    if (performance.now() - clock > 30) {
      await new Promise((resolve) => setTimeout(resolve));
      if (stale()) return null;
      clock = performance.now();
    }
    if (residual <= tol) return true;
    u = v;
  }
  return false;
}

// A residual as a cell of a table; the start has none.
const residualCell = (residual, digits) => (Number.isNaN(residual) ? "" : say(residual, digits));
