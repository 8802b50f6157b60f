// The mathematics of the playground, in float64: T(u) = tanh(W u + U d + b) with 10 latents, S(u) = V u + c, and its training.
// Parameters are one array: W row by row, U, b, V, c. A latent is a row of N numbers in an array of all points.
const N = 10, AT = { W: 0, U: N * N, b: N * N + 2 * N, V: N * N + 3 * N, c: N * N + 4 * N }, ALL = AT.c + 1;
const POINTS = 200, RULES = ["exact", "jfb", "neumann", "npg", "upg", "unrolled"];

// Numbers in [0, 1) that a seed decides, the generator mulberry32; and normal ones, by Box and Muller.
function generator(seed) {
  let state = seed >>> 0;
  const uniform = () => {
    state = (state + 1831565813) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), state | 1);
    t = (t + Math.imul(t ^ (t >>> 7), t | 61)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
  return () => Math.sqrt(-2 * Math.log(1 - uniform())) * Math.cos(2 * Math.PI * uniform());
}

// Points of the plane, two coordinates each, and their classes, 0 and 1 in turns.
function sample(name, seed) {
  const normal = generator(seed), points = new Float64Array(2 * POINTS), labels = new Float64Array(POINTS);
  const place = {
    moons: (t, label) => {
      const [x, y] = [Math.cos(Math.PI * t), Math.sin(Math.PI * t)];
      return label ? [0.75 * (0.5 - x), 0.75 * (0.25 - y), 0.08] : [0.75 * (x - 0.5), 0.75 * (y - 0.25), 0.08];
    },
    circles: (t, label) => {
      const r = label ? 0.5 : 1.1;
      return [r * Math.cos(2 * Math.PI * t), r * Math.sin(2 * Math.PI * t), 0.08];
    },
    spirals: (t, label) => {
      const r = 0.15 + 1.05 * t, angle = 2.4 * Math.PI * t + (label ? Math.PI : 0);
      return [r * Math.cos(angle), r * Math.sin(angle), 0.03];
    },
  }[name];
  for (let p = 0; p < POINTS; p++) {
    labels[p] = p % 2;
    const [x, y, noise] = place((p >> 1) / (POINTS / 2 - 1), labels[p]);
    points[2 * p] = x + noise * normal();
    points[2 * p + 1] = y + noise * normal();
  }
  return { points, labels };
}

// Parameters to start from, with ‖W‖ = gamma.
function fresh(seed, gamma) {
  const normal = generator(seed), theta = new Float64Array(ALL);
  for (let i = 0; i < ALL; i++) theta[i] = normal() * (i < AT.b ? 1 : i < AT.V ? 0.5 : i < AT.c ? 0.3 : 0);
  scaleTo(theta, gamma);
  return theta;
}

// The spectral radius of a matrix, from the size of its powers: squared `rounds` times, and kept near 1 on the way.
function radius(matrix, rounds = 40) {
  let power = Float64Array.from(matrix), log = 0;
  for (let r = 0; ; r++) {
    let size = 0;
    for (let i = 0; i < N * N; i++) size += power[i] * power[i];
    size = Math.sqrt(size);
    if (!(size > 0)) return 0;
    log += Math.log(size) / 2 ** r;
    if (r === rounds) return Math.exp(log);
    const square = new Float64Array(N * N), scale = 1 / (size * size);
    for (let i = 0; i < N; i++) {
      for (let k = 0; k < N; k++) {
        const factor = power[i * N + k] * scale;
        for (let j = 0; j < N; j++) square[i * N + j] += factor * power[k * N + j];
      }
    }
    power = square;
  }
}

// The norm of a matrix is √ρ(AᵀA).
function operatorNorm(matrix, rounds = 40) {
  const gram = new Float64Array(N * N);
  for (let k = 0; k < N; k++) {
    for (let i = 0; i < N; i++) for (let j = 0; j < N; j++) gram[i * N + j] += matrix[k * N + i] * matrix[k * N + j];
  }
  return Math.sqrt(radius(gram, rounds));
}

const normOfW = (theta) => operatorNorm(theta.subarray(0, N * N));

function scaleTo(theta, gamma) {
  const factor = gamma / normOfW(theta);
  if (Number.isFinite(factor)) for (let i = 0; i < N * N; i++) theta[i] *= factor;
}

// v = T(u) where the input is q = U d + b; u and v are rows in arrays. Returned is the residual ‖v − u‖.
function step(theta, q, u, from, v, to) {
  let moved = 0;
  for (let i = 0; i < N; i++) {
    let sum = q[i];
    for (let j = 0; j < N; j++) sum += theta[i * N + j] * u[from + j];
    v[to + i] = Math.tanh(sum);
    moved += (v[to + i] - u[from + i]) ** 2;
  }
  return Math.sqrt(moved);
}

function entering(theta, x, y, q) {
  for (let i = 0; i < N; i++) q[i] = theta[AT.U + 2 * i] * x + theta[AT.U + 2 * i + 1] * y + theta[AT.b + i];
}

function readOut(theta, u, at) {
  let sum = theta[AT.c];
  for (let i = 0; i < N; i++) sum += theta[AT.V + i] * u[at + i];
  return sum;
}

// The logit at one place of the plane after `steps` steps from 0, fewer where it has come to rest before (up to `still`).
function reader(theta) {
  const q = new Float64Array(N), both = new Float64Array(2 * N);
  return (x, y, steps, still = 0) => {
    entering(theta, x, y, q);
    both.fill(0);
    let from = 0, residual = Infinity;
    for (let k = 0; k < steps && residual > still; k++) {
      residual = step(theta, q, both, from, both, N - from);
      from = N - from;
    }
    return { logit: readOut(theta, both, from), residual };
  };
}

// u* of all points from 0, as `FixedPointIteration` and `Anderson` of the package find it: steps until every point meets the
// tolerance, and of the last one T(u) is kept; where Anderson misses the tolerance, the best T(u).
function settle(theta, points, { solver, tol, most }) {
  const count = points.length / 2, u = new Float64Array(count * N), v = new Float64Array(count * N);
  const residual = new Float64Array(count), q = new Float64Array(N);
  const memories = solver === "anderson" ? Array.from({ length: count }, anderson) : null;
  const best = memories && { u: new Float64Array(count * N), residual: new Float64Array(count).fill(Infinity) };
  for (let k = 1; ; k++) {
    let worst = 0;
    for (let p = 0; p < count; p++) {
      entering(theta, points[2 * p], points[2 * p + 1], q);
      residual[p] = step(theta, q, u, p * N, v, p * N);
      worst = Math.max(worst, residual[p]);
      if (best && residual[p] < best.residual[p]) {
        best.residual[p] = residual[p];
        best.u.set(v.subarray(p * N, p * N + N), p * N);
      }
    }
    if (worst <= tol || k === most) {
      if (best) {
        for (let p = 0; p < count; p++) {
          if (residual[p] <= tol) continue;
          v.set(best.u.subarray(p * N, p * N + N), p * N);
          residual[p] = best.residual[p];
        }
      }
      return { u: v, residual, steps: k, missed: residual.filter((value) => !(value <= tol)).length };
    }
    if (memories) memories.forEach((next, p) => next(u.subarray(p * N, p * N + N), v.subarray(p * N, p * N + N)));
    else u.set(v);
  }
}

// Anderson acceleration of one point: replaces u by the next point, from the last five differences of f = T(u) − u and of T(u).
function anderson() {
  const memory = 5, F = [], V = [];
  let f = null, v = null, points = 0;
  return (u, image) => {
    const newF = image.map((value, i) => value - u[i]), newV = Float64Array.from(image);
    if (points) {
      F[(points - 1) % memory] = newF.map((value, i) => value - f[i]);
      V[(points - 1) % memory] = newV.map((value, i) => value - v[i]);
    }
    [f, v, points] = [newF, newV, points + 1];
    u.set(v);
    const m = F.length;
    if (!m) return;
    const gram = new Float64Array(m * m), right = new Float64Array(m);
    let trace = 0;
    for (let i = 0; i < m; i++) {
      for (let j = 0; j < m; j++) gram[i * m + j] = dot(F[i], F[j]);
      right[i] = dot(F[i], f);
      trace += gram[i * m + i];
    }
    for (let i = 0; i < m; i++) gram[i * m + i] += (trace / m) * 1e-10 + Number.MIN_VALUE * 2 ** 52;
    eliminate(gram, right, m);
    for (let i = 0; i < m; i++) for (let j = 0; j < N; j++) u[j] -= right[i] * V[i][j];
  };
}

function dot(a, b) {
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += a[i] * b[i];
  return sum;
}

// x with A x = right, put where `right` was: Gauss's elimination with partial pivoting.
function eliminate(A, right, n) {
  for (let k = 0; k < n; k++) {
    let pivot = k;
    for (let i = k + 1; i < n; i++) if (Math.abs(A[i * n + k]) > Math.abs(A[pivot * n + k])) pivot = i;
    if (pivot !== k) {
      for (let j = 0; j < n; j++) [A[k * n + j], A[pivot * n + j]] = [A[pivot * n + j], A[k * n + j]];
      [right[k], right[pivot]] = [right[pivot], right[k]];
    }
    for (let i = k + 1; i < n; i++) {
      const factor = A[i * n + k] / A[k * n + k];
      for (let j = k; j < n; j++) A[i * n + j] -= factor * A[k * n + j];
      right[i] -= factor * right[k];
    }
  }
  for (let k = n - 1; k >= 0; k--) {
    for (let j = k + 1; j < n; j++) right[k] -= A[k * n + j] * right[j];
    right[k] /= A[k * n + k];
  }
}

const sigmoid = (y) => 1 / (1 + Math.exp(-y));
const softplus = (y) => Math.max(y, 0) + Math.log1p(Math.exp(-Math.abs(y)));

// The mean logistic loss over all points and its gradient by the rule, at what the solver found.
function differentiate(theta, { points, labels }, found, { rule, terms, damping }) {
  const count = labels.length, gradient = new Float64Array(ALL), q = new Float64Array(N);
  // the rules that record steps: how many, from where, with what damping
  const recorded = { jfb: [1, 1], upg: [terms, damping], unrolled: [terms, 1] }[rule];
  const [steps, weight] = recorded || [1, 1];
  const path = new Float64Array((steps + 1) * N), image = new Float64Array(steps * N);
  const w = new Float64Array(N), term = new Float64Array(N), next = new Float64Array(N), A = new Float64Array(N * N);
  let loss = 0, right = 0;
  for (let p = 0; p < count; p++) {
    const x = points[2 * p], y = points[2 * p + 1];
    entering(theta, x, y, q);
    path.fill(0);
    if (rule !== "unrolled") path.set(found.u.subarray(p * N, p * N + N));
    for (let k = 0; k < steps; k++) {
      step(theta, q, path, k * N, image, k * N);
      for (let i = 0; i < N; i++) path[(k + 1) * N + i] = (1 - weight) * path[k * N + i] + weight * image[k * N + i];
    }
    const logit = readOut(theta, path, steps * N), error = (sigmoid(logit) - labels[p]) / count;
    loss += softplus(labels[p] ? -logit : logit) / count;
    right += logit > 0 === labels[p] > 0;
    for (let i = 0; i < N; i++) {
      gradient[AT.V + i] += error * path[steps * N + i];
      w[i] = error * theta[AT.V + i];
    }
    gradient[AT.c] += error;

    // w J, with J = diag(1 − T²) W at the point of the first step
    const times = (row, out) => {
      out.fill(0);
      for (let i = 0; i < N; i++) {
        const factor = row[i] * (1 - image[i] ** 2);
        for (let j = 0; j < N; j++) out[j] += factor * theta[i * N + j];
      }
    };
    if (rule === "exact") {
      for (let i = 0; i < N; i++) {
        for (let j = 0; j < N; j++) A[j * N + i] = (i === j) - (1 - image[i] ** 2) * theta[i * N + j];
      }
      eliminate(A, w, N);
    } else if (rule === "neumann" || rule === "npg") {
      const mix = rule === "npg" ? damping : 1;
      term.set(w);
      for (let k = 1; k < terms; k++) {
        times(term, next);
        for (let i = 0; i < N; i++) { term[i] = mix * next[i] + (1 - mix) * term[i]; w[i] += term[i]; }
      }
      for (let i = 0; i < N; i++) w[i] *= mix;
    }
    for (let k = steps - 1; k >= 0; k--) {
      next.fill(0);
      for (let i = 0; i < N; i++) {
        const delta = weight * w[i] * (1 - image[k * N + i] ** 2);
        for (let j = 0; j < N; j++) {
          gradient[i * N + j] += delta * path[k * N + j];
          next[j] += delta * theta[i * N + j];
        }
        gradient[AT.U + 2 * i] += delta * x;
        gradient[AT.U + 2 * i + 1] += delta * y;
        gradient[AT.b + i] += delta;
      }
      for (let i = 0; i < N; i++) w[i] = (1 - weight) * w[i] + next[i];
    }
  }
  return { loss, right: right / count, gradient };
}

// The largest norm and the largest spectral radius of J = ∂T/∂u over the points: all of them roughly, the largest exactly.
function jacobians(theta, points, u) {
  const q = new Float64Array(N), v = new Float64Array(N), J = new Float64Array(N * N);
  const at = (p) => {
    entering(theta, points[2 * p], points[2 * p + 1], q);
    step(theta, q, u, p * N, v, 0);
    for (let i = 0; i < N; i++) for (let j = 0; j < N; j++) J[i * N + j] = (1 - v[i] ** 2) * theta[i * N + j];
    return J;
  };
  const largest = (measure) => {
    let worst = 0, most = -1;
    for (let p = 0; p < points.length / 2; p++) {
      const size = measure(at(p), 12);
      if (size > most) [worst, most] = [p, size];
    }
    return measure(at(worst));
  };
  return { norm: largest(operatorNorm), rho: largest(radius) };
}

const cosine = (a, b) => dot(a, b) / Math.sqrt(dot(a, a) * dot(b, b));

// Adam, with the constants that PyTorch has.
function adam() {
  const m = new Float64Array(ALL), v = new Float64Array(ALL);
  let steps = 0;
  return (theta, gradient, rate) => {
    steps++;
    const first = 1 - 0.9 ** steps, second = Math.sqrt(1 - 0.999 ** steps);
    for (let i = 0; i < ALL; i++) {
      m[i] += 0.1 * (gradient[i] - m[i]);
      v[i] = 0.999 * v[i] + 0.001 * gradient[i] * gradient[i];
      theta[i] -= ((rate / first) * m[i]) / (Math.sqrt(v[i]) / second + 1e-8);
    }
  };
}
