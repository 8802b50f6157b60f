// A trained implicit network that runs in the page: the picture's fixed point, step by step, and what S reads from it.
const MOST = 20, SIDE = 32;

const bytes = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
const pause = () => new Promise((resolve) => setTimeout(resolve));

// Layers on planes of numbers: { c, h, w, data }, channel after channel.
function machine({ integers, floats }) {
  const whole = new Int8Array(bytes(integers).buffer), real = new Float32Array(bytes(floats).buffer);
  const cache = new Map();

  // The weights of a layer, as numbers again, and its biases.
  function weights(layer, size) {
    if (!cache.has(layer)) {
      const made = new Float32Array(layer.outer * size);
      for (let o = 0; o < layer.outer; o++) {
        const scale = real[layer.floats + o], at = layer.integers + o * size;
        for (let i = 0; i < size; i++) made[o * size + i] = whole[at + i] * scale;
      }
      cache.set(layer, [made, real.subarray(layer.floats + layer.outer, layer.floats + 2 * layer.outer)]);
    }
    return cache.get(layer);
  }

  // 3×3, with a frame of zeros.
  function conv(x, layer) {
    const { inner, outer, stride } = layer, [weight, bias] = weights(layer, inner * 9);
    const { h, w } = x, W = w + 2, plane = (h + 2) * W;
    const framed = new Float32Array(inner * plane + 2);
    for (let i = 0; i < inner; i++) {
      for (let y = 0; y < h; y++) framed.set(x.data.subarray((i * h + y) * w, (i * h + y + 1) * w), i * plane + (y + 1) * W + 1);
    }
    const high = Math.ceil(h / stride), wide = Math.ceil(w / stride);
    const out = new Float32Array(outer * high * wide), sums = new Float64Array(h * W);
    for (let o = 0; o < outer; o++) {
      sums.fill(bias[o]);
      for (let i = 0; i < inner; i++) {
        const k = (o * inner + i) * 9, a = i * plane, b = a + W, c = b + W;
        const k0 = weight[k], k1 = weight[k + 1], k2 = weight[k + 2], k3 = weight[k + 3], k4 = weight[k + 4];
        const k5 = weight[k + 5], k6 = weight[k + 6], k7 = weight[k + 7], k8 = weight[k + 8];
        for (let y = 0; y < h; y += stride) {
          for (let j = y * W, end = j + w; j < end; j += stride) {
            sums[j] += k0 * framed[a + j] + k1 * framed[a + j + 1] + k2 * framed[a + j + 2]
              + k3 * framed[b + j] + k4 * framed[b + j + 1] + k5 * framed[b + j + 2]
              + k6 * framed[c + j] + k7 * framed[c + j + 1] + k8 * framed[c + j + 2];
          }
        }
      }
      for (let y = 0; y < high; y++) {
        for (let x = 0; x < wide; x++) out[(o * high + y) * wide + x] = sums[(y * W + x) * stride];
      }
    }
    return { c: outer, h: high, w: wide, data: out };
  }

  const each = (x, change) => ({ ...x, data: x.data.map(change) });

  // Null if `stale` says that nobody waits for the result any more.
  async function run(layers, x, stale) {
    for (const layer of layers) {
      if (layer.op === "conv") {
        x = conv(x, layer);
        await pause();
        if (stale()) return null;
      } else if (layer.op === "leaky") x = each(x, (value) => (value < 0 ? layer.slope * value : value));
      else if (layer.op === "affine") {
        const size = x.h * x.w, { floats: at, channels } = layer;
        x = each(x, (value, i) => { const c = Math.floor(i / size); return real[at + c] * value + real[at + channels + c]; });
      } else if (layer.op === "residual") {
        const branch = await run(layer.branch, x, stale);
        if (!branch) return null;
        x = await run(layer.after, each(x, (value, i) => value + branch.data[i]), stale);
        if (!x) return null;
      } else if (layer.op === "mean") {
        const size = x.h * x.w, data = new Float32Array(x.c);
        for (let i = 0; i < x.data.length; i++) data[Math.floor(i / size)] += x.data[i] / size;
        x = { c: x.c, h: 1, w: 1, data };
      } else if (layer.op === "linear") {
        const [weight, bias] = weights(layer, layer.inner), data = new Float32Array(layer.outer);
        for (let o = 0; o < layer.outer; o++) {
          data[o] = bias[o];
          for (let i = 0; i < layer.inner; i++) data[o] += weight[o * layer.inner + i] * x.data[i];
        }
        x = { c: layer.outer, h: 1, w: 1, data };
      }
    }
    return x;
  }
  return run;
}

const norm = (data) => Math.sqrt(data.reduce((sum, value) => sum + value * value, 0));

function softmax(logits) {
  const top = Math.max(...logits), powers = Array.from(logits, (value) => Math.exp(value - top));
  const sum = powers.reduce((a, b) => a + b);
  return powers.map((value) => value / sum);
}

function start(root, { classes, pictures, count, network, tol }) {
  const run = machine(network);
  const own = bytes(pictures);
  const stage = root.querySelector(".jfb-stage"), controls = root.querySelector(".jfb-controls");
  const words = root.querySelector(".jfb-words");
  // The path so far; `whole` once it has come to its end.
  let chosen = 0, steps = 0, path = [], whole = false, turn = 0, asked = 0, name = "";

  const views = html("div", { class: "jfb-views" }, stage);
  const view = (text, size) => {
    const figure = html("div", {}, views);
    const canvas = html("canvas", { width: size, height: size, "aria-hidden": "true" }, figure);
    html("small", {}, figure, text);
    return canvas.getContext("2d");
  };
  const picture = view("the picture", SIDE), map = view("where the last step moved uₖ", 8);
  const plot = axes(stage, {
    x: [0, MOST], y: [-6, 0.3], xticks: [0, 5, 10, 15, 20], yticks: [0, -2, -4, -6],
    xlabel: "step k", ylabel: "log₁₀ of the relative residual",
  });
  const layer = plot.layer();
  svg("path", { d: plot.line([[0, Math.log10(tol)], [MOST, Math.log10(tol)]]), class: "jfb-axis", "stroke-dasharray": "5 4" }, layer);
  const curve = svg("path", { fill: "none", stroke: "var(--jfb-blue)", "stroke-width": 2.5 }, layer);
  const dot = svg("circle", { r: 6, fill: "var(--jfb-red)", visibility: "hidden" }, plot.root);
  const list = html("div", { class: "jfb-bars", "aria-hidden": "true" }, stage);
  const bars = classes.map((name) => {
    const row = html("div", {}, list);
    html("span", {}, row, name);
    const bar = html("i", {}, html("b", {}, row));
    return { bar, number: html("span", {}, row, "") };
  });

  const { show, halt } = stepper(controls, MOST, () => steps, (value) => {
    if (whole) steps = value; // on the way, the work itself steps
    draw();
  });
  const take = (number) => {
    asked++;
    file.value = "";
    chosen = number % count;
    look(own.subarray(chosen * 3 * SIDE * SIDE, (chosen + 1) * 3 * SIDE * SIDE), `Picture ${chosen + 1} of ${count}. `);
  };
  const [next] = buttons(controls, { "Next picture": () => take(chosen + 1) });
  const id = unique("file");
  const file = html("input", { id, type: "file", accept: "image/*", class: "jfb-file" });
  const ask = html("label", { for: id, class: "jfb-ask" }, next.parentNode, "Your own picture: ");
  ask.appendChild(file);
  file.addEventListener("change", () => file.files.length && bring(file.files[0]));
  const fill = table(root.querySelector(".jfb-more"), "The steps in a table", ["k", "answer", "probability", "residual", "distance"]);

  // The middle square of a file, 32 pixels wide. It stays on this device.
  async function bring(blob) {
    const mine = ++asked;
    try {
      const whole = await createImageBitmap(blob), side = Math.min(whole.width, whole.height);
      const small = await createImageBitmap(whole, (whole.width - side) / 2, (whole.height - side) / 2, side, side,
        { resizeWidth: SIDE, resizeHeight: SIDE, resizeQuality: "high" });
      whole.close();
      if (mine !== asked) return;
      picture.fillStyle = "#fff"; // behind what is transparent
      picture.fillRect(0, 0, SIDE, SIDE);
      picture.drawImage(small, 0, 0);
      small.close();
      const pixels = picture.getImageData(0, 0, SIDE, SIDE).data, planes = new Uint8Array(3 * SIDE * SIDE);
      for (let i = 0; i < SIDE * SIDE; i++) for (let c = 0; c < 3; c++) planes[c * SIDE * SIDE + i] = pixels[4 * i + c];
      look(planes, "Your own picture. ");
    } catch {
      if (mine !== asked) return;
      halt();
      words.textContent = "The browser cannot read that file as a picture; choose a JPEG or PNG file.";
    }
  }

  // Iterate on a picture, given as its red, green and blue planes.
  async function look(planes, called) {
    const mine = ++turn, stale = () => mine !== turn;
    halt();
    path = [];
    whole = false;
    steps = 0;
    name = called;
    words.setAttribute("aria-live", "off"); // spoken at the end, not at every step
    draw();
    const data = picture.createImageData(SIDE, SIDE);
    for (let i = 0; i < SIDE * SIDE; i++) {
      for (let c = 0; c < 3; c++) data.data[4 * i + c] = planes[c * SIDE * SIDE + i];
      data.data[4 * i + 3] = 255;
    }
    picture.putImageData(data, 0, 0);
    const q = await run(network.Q, { c: 3, h: SIDE, w: SIDE, data: Float32Array.from(planes) }, stale);
    if (!q) return;
    const made = [];
    let u = { ...q, data: new Float32Array(q.data.length) };
    for (let k = 0; k <= MOST; k++) {
      let residual = NaN;
      if (k) {
        const x = { ...q, data: q.data.map((value, i) => value + network.entering * u.data[i]) };
        const v = await run(network.R, x, stale);
        if (!v) return;
        v.data = v.data.map((value) => network.leaving * value);
        residual = norm(v.data.map((value, i) => value - u.data[i])) / norm(v.data);
        u = v;
      }
      const logits = await run(network.S, u, stale);
      if (!logits) return;
      const chances = softmax(logits.data);
      made.push({ u, residual, chances, answer: chances.indexOf(Math.max(...chances)) });
      path = made;
      steps = k;
      draw();
    }
    whole = true;
    const end = made[MOST].u;
    words.removeAttribute("aria-live");
    fill(made.map(({ u, residual, chances, answer }, k) => [k, classes[answer], percent(chances[answer]),
      k ? say(residual, 2) : "", say(distance(u, end), 2)]));
    draw();
  }

  const percent = (value) => `${(100 * value).toFixed(0)} %`;
  const distance = (u, end) => norm(u.data.map((value, i) => value - end.data[i])) / norm(end.data);

  function draw() {
    show(steps);
    root.dataset.busy = whole ? "no" : "yes";
    curve.setAttribute("d", plot.line(path.slice(1).map((each, i) => [i + 1, Math.log10(each.residual)])));
    dot.setAttribute("visibility", steps ? "visible" : "hidden");
    if (!path.length) {
      words.textContent = `${name}The network is at work on it.`;
      map.clearRect(0, 0, 8, 8);
      bars.forEach(({ bar, number }) => { bar.style.width = 0; number.textContent = ""; });
      fill([]);
      return;
    }
    const { u, chances, answer, residual } = path[steps];
    if (steps) {
      dot.setAttribute("cx", plot.X(steps));
      dot.setAttribute("cy", plot.Y(Math.max(Math.log10(residual), -6)));
    }
    bars.forEach(({ bar, number }, i) => {
      bar.style.width = `${100 * chances[i]}%`;
      bar.className = i === answer ? "jfb-first" : "";
      number.textContent = percent(chances[i]);
    });
    paint(u, path[Math.max(steps - 1, 0)].u);
    const say10 = (k) => `“${classes[path[k].answer]}” (${percent(path[k].chances[path[k].answer])})`;
    if (!whole) {
      words.textContent = `${name}The network is at work on it: step ${steps} of ${MOST}, ${say10(steps)}.`;
      return;
    }
    const met = path.findIndex((each) => each.residual <= tol);
    const now = steps > 1 ? `After ${steps} steps the network says ${say10(steps)}. The last step moved uₖ by `
      + `${say(100 * residual, 2)} % of its norm. ` : "";
    words.textContent = name + (steps ? now : `At u₀ = 0, before the first step, it says ${say10(0)}, as for every picture. `)
      + `After one step, as an explicit network, it says ${say10(1)}; at the end ${say10(MOST)}. `
      + (met > 0 ? `The tolerance of training is met after ${met} steps.` : "The tolerance of training is not met in twenty steps.");
  }

  // How far the last step moved each place of the latent image, in units of the largest length there is; logarithmic.
  function paint(u, before) {
    const size = u.h * u.w, moved = new Float64Array(size), length = new Float64Array(size);
    for (let i = 0; i < u.data.length; i++) {
      moved[i % size] += (u.data[i] - before.data[i]) ** 2;
      length[i % size] += u.data[i] ** 2;
    }
    const top = Math.sqrt(Math.max(...length)) || 1, data = map.createImageData(u.w, u.h);
    for (let p = 0; p < size; p++) {
      const level = Math.min(Math.max(1 + Math.log10(Math.sqrt(moved[p]) / top + 1e-12) / 6, 0), 1);
      data.data.set([255 - 63 * level, 255 - 181 * level, 255 - 255 * level, 255], 4 * p);
    }
    map.putImageData(data, 0, 0);
  }

  // A second of work, left until somebody comes near.
  draw();
  new IntersectionObserver((entries, observer) => {
    if (!entries.some((entry) => entry.isIntersecting)) return;
    observer.disconnect();
    if (!turn) take(0);
  }, { rootMargin: "600px" }).observe(root);
}
