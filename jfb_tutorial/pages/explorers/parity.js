// Parity of prefixes: the trained network runs in the page, and its answer travels along a string that the reader may change.
const LONGEST = 200, ODD = "#2b84c0", WRONG = "#d9601f", BETWEEN = "rgba(128, 128, 128, .16)";

// The network: { read(bits) } gives T for these bits, and S of a state. A state has its channels side by side at each position.
function machine({ weights, channels: c }) {
  const all = halves(weights);
  let at = 0;
  const take = (size) => all.subarray(at, (at += size));
  const wide = 2 * c;
  const Q = { weight: take(c), bias: take(c) };
  const one = { weight: take(wide * wide * 3), bias: take(wide) }, two = { weight: take(c * wide * 3), bias: take(c) };
  const S = { weight: take(c), bias: take(1) };

  // Adds a convolution of three positions to `out`: of the inputs from `first` on, `inner` of a layer's `all`.
  function conv(out, outer, x, inner, weight, whole, first) {
    const n = x.length / inner;
    for (let p = 0; p < n; p++) {
      for (let tap = -1; tap <= 1; tap++) {
        if (p + tap < 0 || p + tap >= n) continue;
        const from = (p + tap) * inner;
        for (let o = 0; o < outer; o++) {
          let sum = 0;
          const row = (o * whole + first) * 3 + tap + 1;
          for (let i = 0; i < inner; i++) sum += weight[row + 3 * i] * x[from + i];
          out[p * outer + o] += sum;
        }
      }
    }
    return out;
  }
  const biased = (bias, n) => Float64Array.from({ length: n * bias.length }, (_, i) => bias[i % bias.length]);

  return (bits) => {
    const n = bits.length;
    const q = Float32Array.from({ length: n * c }, (_, i) => Q.weight[i % c] * bits[Math.floor(i / c)] + Q.bias[i % c]);
    // what the input adds is the same at every step
    const entering = conv(biased(one.bias, n), wide, q, c, one.weight, wide, c);
    return {
      T(u) {
        const hidden = conv(entering.slice(), wide, u, c, one.weight, wide, 0);
        const h = Float32Array.from(hidden, (value) => Math.max(value, 0));
        return Float32Array.from(conv(biased(two.bias, n), c, h, wide, two.weight, wide, 0), Math.tanh);
      },
      S(u) {
        return Float64Array.from({ length: n }, (_, p) => {
          let sum = S.bias[0];
          for (let i = 0; i < c; i++) sum += S.weight[i] * u[p * c + i];
          return sum;
        });
      },
      zero: () => new Float32Array(n * c),
    };
  };
}

function start(root, { network, bits: first, tol }) {
  const read = machine(network);
  const stage = root.querySelector(".jfb-stage"), controls = root.querySelector(".jfb-controls");
  const words = root.querySelector(".jfb-words");
  let bits = [...first].map(Number), path = [], steps = 0, turn = 0, place = 1, began = "From zero. ", truth = [], settled = false;

  const box = html("div", { class: "jfb-parity", "aria-hidden": "true" }, stage);
  const strip = (text, tall) => {
    html("small", {}, box, text);
    return html("canvas", { class: tall ? "jfb-tall" : "jfb-strip" }, box);
  };
  const input = strip("the bits (dark is 1; press one to flip it)"), right = strip("odd so far? the truth");
  const now = strip("the network’s answer at this step (orange is wrong)");
  const trace = strip("its answers, step after step, from top to bottom", true);
  input.style.cursor = "pointer";

  const top = () => Math.max(path.length - 1, 0);
  const stepping = stepper(controls, top, () => steps, (value) => { steps = value; draw(); }, () => Math.ceil(top() / 60));
  const stepInput = controls.querySelector('input[name="steps"]');
  const show = (value) => { stepInput.max = top(); stepping.show(value); };

  const id = unique("bits");
  const row = html("div", { class: "jfb-row jfb-typed" }, controls);
  html("label", { for: id }, row, `Bits, up to ${LONGEST}`);
  const typed = html("input", { id, type: "text", inputmode: "numeric", autocomplete: "off", spellcheck: "false", name: "bits" }, row);
  typed.addEventListener("change", () => {
    const found = typed.value.replace(/[^01]/g, "").slice(0, LONGEST);
    if (found) fresh([...found].map(Number));
    else typed.value = bits.join("");
  });
  const position = slider(controls, {
    name: "place", min: 1, max: LONGEST, step: 1, change: (value) => { place = value; draw(); },
    text: (value) => `bit ${value} is ${bits[value - 1]}`,
  });
  const placeInput = controls.querySelector('input[name="place"]');
  const warm = html("input", { id: unique("warm"), type: "checkbox", name: "warm", checked: "" }, html("div", { class: "jfb-check" }, controls));
  html("label", { for: warm.id }, warm.parentNode, " go on from where it was");
  const random = (count) => Array.from({ length: count }, () => (Math.random() < 0.5 ? 0 : 1));
  buttons(controls, {
    "Flip this bit": () => flip(place),
    "Random, 40 bits": () => fresh(random(40)),
    "Random, 200 bits": () => fresh(random(LONGEST)),
  });
  const fill = table(root.querySelector(".jfb-more"), "The steps in a table", ["step", "right up to bit", "wrong bits", "residual"]);

  function fresh(next) {
    bits = next;
    place = Math.min(place, bits.length);
    look(null, "From zero. ");
  }
  function flip(at) {
    place = at;
    const from = warm.checked && path.length ? path[steps].u : null;
    bits = bits.map((bit, i) => (i === at - 1 ? 1 - bit : bit));
    look(from, `Bit ${at} flipped, ${from ? "on from where it was" : "again from zero"}. `);
  }
  input.addEventListener("click", (event) => {
    const frame = input.getBoundingClientRect();
    flip(Math.min(Math.max(Math.ceil(((event.clientX - frame.left) / frame.width) * bits.length), 1), bits.length));
  });

  // Iterate to rest; a newer string ends the work on an older one.
  async function look(from, said) {
    const mine = ++turn;
    stepping.halt();
    began = said;
    typed.value = bits.join("");
    placeInput.max = bits.length;
    let sum = 0;
    truth = bits.map((bit) => (sum = (sum + bit) % 2));
    const { T, S, zero } = read(bits);
    const made = [];
    const keep = (u, residual) => {
      const logits = S(u), wrong = truth.reduce((count, odd, i) => count + (logits[i] > 0 !== (odd === 1)), 0);
      const found = truth.findIndex((odd, i) => logits[i] > 0 !== (odd === 1));
      made.push({ u, residual, logits, wrong, upTo: found < 0 ? bits.length : found });
    };
    settled = false;
    path = [];
    steps = 0;
    draw();
    const rested = await toRest({ T, u: from || zero(), most: 3 * bits.length + 100, tol, keep, stale: () => mine !== turn });
    if (rested === null) return;
    settled = rested;
    path = made;
    steps = top();
    fill(path.map(({ residual, wrong, upTo }, k) => [k, upTo, wrong, residualCell(residual, 4)]));
    paint();
    draw();
  }

  // A line of cells; a number of two digits at most is written into them where there is room.
  function cells(canvas, colours, texts) {
    const n = colours.length, scale = n <= 50 ? 20 : 4, high = 24;
    canvas.width = n * scale;
    canvas.height = high;
    const pen = canvas.getContext("2d");
    colours.forEach((colour, i) => {
      pen.fillStyle = colour;
      pen.fillRect(i * scale + (scale > 4 ? 0.5 : 0), 0, scale - (scale > 4 ? 1 : 0), high);
      if (scale > 4 && texts) {
        pen.fillStyle = colour === BETWEEN ? "#808080" : "#fff";
        pen.font = "15px system-ui, sans-serif";
        pen.textAlign = "center";
        pen.fillText(texts[i], (i + 0.5) * scale, 17);
      }
    });
  }

  // All steps at once: blue where S reads odd, orange where what it reads is wrong.
  function paint() {
    const n = bits.length;
    trace.width = n;
    trace.height = path.length;
    const pen = trace.getContext("2d");
    path.forEach(({ logits }, k) => truth.forEach((odd, i) => {
      const says = logits[i] > 0;
      pen.fillStyle = says !== (odd === 1) ? WRONG : says ? ODD : BETWEEN;
      pen.fillRect(i, k, 1, 1);
    }));
  }

  function draw() {
    root.dataset.busy = path.length ? "no" : "yes";
    show(steps);
    position(place);
    cells(input, bits.map((bit) => (bit ? "#555" : BETWEEN)), bits);
    cells(right, truth.map((odd) => (odd ? ODD : BETWEEN)), truth);
    if (!path.length) {
      words.textContent = `${began}The network is at work on ${bits.length} bits.`;
      return;
    }
    const { logits, wrong, upTo, residual } = path[steps];
    const says = Array.from(logits, (value) => (value > 0 ? 1 : 0));
    cells(now, says.map((odd, i) => (odd !== truth[i] ? WRONG : odd ? ODD : BETWEEN)), says);
    const share = top() ? (100 * (steps + 1)) / path.length : 100;
    trace.style.setProperty("--jfb-shown", `${share}%`);
    const state = wrong
      ? `right up to bit ${upTo} of ${bits.length}, and wrong at ${wrong}`
      : `right in all ${bits.length} bits: the number of ones is ${truth[truth.length - 1] ? "odd" : "even"}`;
    const end = path[top()], last = settled
      ? `It comes to rest after ${top()} steps, with the relative residual below ${say(tol)}`
      : `It has not come to rest in ${top()} steps`;
    words.textContent = `${began}After ${steps} steps the answer is ${state}. `
      + (steps ? `The last step moved u by ${say(100 * residual, 3)} % of its norm. ` : "")
      + `${last}, and is then ${end.wrong ? `wrong at ${end.wrong} bits` : "right in every bit"}.`;
  }

  look(null, "From zero. ");
}
