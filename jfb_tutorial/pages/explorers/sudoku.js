// Sudoku of six by six cells: the reader sets givens, and the trained network's iteration runs in the page until it rests.
const MOST = 300, DIGITS = [1, 2, 3, 4, 5, 6];

// Rows, columns and boxes, two cells high and three wide; and of each cell, in which of them it is.
const box = (cell) => 2 * Math.floor(cell / 12) + Math.floor((cell % 6) / 3);
const OF = [(cell) => Math.floor(cell / 6), (cell) => cell % 6, box];
const UNITS = OF.flatMap((of) => DIGITS.map((k) => Array.from({ length: 36 }, (_, i) => i).filter((cell) => of(cell) === k - 1)));

// The network: read(grid) gives T for this puzzle, S of a state, and the start. A state has its channels side by side, the
// digits one after another and in each the cells.
function machine({ weights, channels: c, damping }) {
  const all = halves(weights);
  let at = 0;
  const take = (size) => all.subarray(at, (at += size));
  const Q = { weight: take(c), bias: take(c) };
  const own = { weight: take(c * c), bias: take(c) };
  const [row, column, boxes, cells] = [0, 0, 0, 0].map(() => take(c * c));
  const S = { weight: take(c), bias: take(1) };

  // Of each group of nodes its mean, times a matrix; a group has six of the 216 nodes.
  function heard(u, weight, group) {
    const sums = new Float64Array(36 * c), out = new Float64Array(36 * c);
    for (let node = 0; node < 216; node++) {
      const to = group(node) * c;
      for (let i = 0; i < c; i++) sums[to + i] += u[node * c + i] / 6;
    }
    for (let g = 0; g < 36; g++) {
      for (let o = 0; o < c; o++) {
        let sum = 0;
        for (let i = 0; i < c; i++) sum += weight[o * c + i] * sums[g * c + i];
        out[g * c + o] = sum;
      }
    }
    return out;
  }
  const groups = [
    ...OF.map((of) => (node) => 6 * Math.floor(node / 36) + of(node % 36)), (node) => node % 36,
  ];

  return (grid) => {
    const given = (node) => (grid[node % 36] === Math.floor(node / 36) + 1 ? 1 : 0);
    return {
      T(u) {
        const parts = [row, column, boxes, cells].map((weight, k) => heard(u, weight, groups[k]));
        const next = new Float64Array(216 * c);
        for (let node = 0; node < 216; node++) {
          const from = node * c, said = groups.map((group) => group(node) * c);
          for (let o = 0; o < c; o++) {
            let sum = own.bias[o] + Q.bias[o] + Q.weight[o] * given(node);
            for (let i = 0; i < c; i++) sum += own.weight[o * c + i] * u[from + i];
            for (let k = 0; k < 4; k++) sum += parts[k][said[k] + o];
            next[from + o] = damping * u[from + o] + (1 - damping) * Math.tanh(sum);
          }
        }
        return next;
      },
      // of each cell the probabilities of the six digits
      S(u) {
        return Array.from({ length: 36 }, (_, cell) => {
          const logits = DIGITS.map((_, v) => {
            let sum = S.bias[0];
            for (let i = 0; i < c; i++) sum += S.weight[i] * u[(36 * v + cell) * c + i];
            return sum;
          });
          const top = Math.max(...logits), powers = logits.map((logit) => Math.exp(logit - top));
          const total = powers.reduce((a, b) => a + b);
          return powers.map((power) => power / total);
        });
      },
      zero: () => new Float64Array(216 * c),
    };
  };
}

// How many solutions a puzzle has, counted to two, and the first of them: by trying, which for 36 cells takes no time.
function solve(grid) {
  const free = new Array(36).fill(63), found = [];
  const put = (masks, cell, bit) => {
    if (!(masks[cell] & bit)) return false;
    masks[cell] = bit;
    for (const unit of UNITS) {
      if (!unit.includes(cell)) continue;
      for (const peer of unit) {
        if (peer === cell || !(masks[peer] & bit)) continue;
        masks[peer] &= ~bit;
        if (!masks[peer]) return false;
        if (!(masks[peer] & (masks[peer] - 1)) && !put(masks, peer, masks[peer])) return false;
      }
    }
    return true;
  };
  const count = (mask) => DIGITS.filter((v) => mask & (1 << (v - 1))).length;
  const search = (masks) => {
    let best = -1;
    masks.forEach((mask, cell) => { if (count(mask) > 1 && (best < 0 || count(mask) < count(masks[best]))) best = cell; });
    if (best < 0) { found.push(masks.map((mask) => Math.log2(mask) + 1)); return; }
    for (const v of DIGITS) {
      const mine = masks.slice();
      if (found.length < 2 && put(mine, best, 1 << (v - 1))) search(mine);
    }
  };
  if (grid.every((v, cell) => !v || put(free, cell, 1 << (v - 1)))) search(free);
  return { count: found.length, first: found[0] };
}

function start(root, { samples, tol, network }) {
  const read = machine(network);
  const stage = root.querySelector(".jfb-stage"), controls = root.querySelector(".jfb-controls");
  const words = root.querySelector(".jfb-words");
  let grid = new Array(36).fill(0), path = [], steps = 0, turn = 0, at = 0, truth, settled = false, began = "";

  const board = html("div", { class: "jfb-board", role: "group", "aria-label": "The puzzle, six by six cells. Arrows move, 1 to 6 set a given, Delete takes it away." }, stage);
  const keys = grid.map((_, cell) => {
    const key = html("button", { type: "button", tabindex: cell ? -1 : 0, class: "jfb-cell" }, board);
    if (cell % 6 === 3) key.classList.add("jfb-left");
    if (cell >= 12 && Math.floor(cell / 6) % 2 === 0) key.classList.add("jfb-top");
    key.addEventListener("click", () => choose(cell, true));
    key.addEventListener("focus", () => choose(cell, false));
    return key;
  });
  const choose = (cell, focus) => {
    keys[at].tabIndex = -1;
    keys[at].classList.remove("jfb-chosen");
    at = cell;
    keys[at].tabIndex = 0;
    keys[at].classList.add("jfb-chosen");
    if (focus) keys[at].focus();
  };
  board.addEventListener("keydown", (event) => {
    const r = Math.floor(at / 6), c = at % 6;
    const to = {
      ArrowLeft: [r, Math.max(c - 1, 0)], ArrowRight: [r, Math.min(c + 1, 5)], ArrowUp: [Math.max(r - 1, 0), c],
      ArrowDown: [Math.min(r + 1, 5), c], Home: [r, 0], End: [r, 5],
    }[event.key];
    if (to) choose(6 * to[0] + to[1], true);
    else if (/^[0-6]$/.test(event.key)) set(Number(event.key));
    else if (["Delete", "Backspace"].includes(event.key)) set(0);
    else return;
    event.preventDefault();
  });

  const top = () => Math.max(path.length - 1, 0);
  const pad = buttons(controls, {
    ...Object.fromEntries(DIGITS.map((v) => [v, () => set(v)])), "Take away": () => set(0),
  });
  pad[0].parentNode.classList.add("jfb-pad");
  pad.slice(0, 6).forEach((button, i) => button.setAttribute("aria-label", `Set ${i + 1} in the chosen cell`));
  const stepping = stepper(controls, top, () => steps, (value) => { steps = value; draw(); }, () => Math.ceil(top() / 60));
  const stepInput = controls.querySelector('input[name="steps"]');
  const show = (value) => { stepInput.max = top(); stepping.show(value); };
  buttons(controls, {
    ...Object.fromEntries(Object.entries(samples).map(([name, text]) => [name, () => fresh([...text].map(Number), `${name}. `)])),
    "Empty": () => fresh(new Array(36).fill(0), "No givens. "),
  });
  const fill = table(root.querySelector(".jfb-more"), "The steps in a table", ["step", "residual", "clashes", "least sure", "digits"]);

  const place = (cell) => `row ${Math.floor(cell / 6) + 1}, column ${(cell % 6) + 1}`;
  function set(digit) {
    const next = grid.slice();
    next[at] = digit;
    fresh(next, digit ? `${digit} is given at ${place(at)}. ` : `No given at ${place(at)}. `);
  }
  function fresh(next, said) {
    grid = next;
    look(said);
  }

  // Cells that hold the same digit as another of their row, column or box.
  function clashing(digits) {
    const found = new Set();
    for (const unit of UNITS) {
      for (const cell of unit) if (unit.some((other) => other !== cell && digits[other] === digits[cell])) found.add(cell);
    }
    return found;
  }

  // Iterate to rest; a newer puzzle ends the work on an older one.
  async function look(said) {
    const mine = ++turn;
    stepping.halt();
    began = said;
    truth = solve(grid);
    const { T, S, zero } = read(grid), made = [];
    const keep = (u, residual) => {
      const odds = S(u), sure = odds.map((each) => Math.max(...each)), digits = odds.map((each, i) => each.indexOf(sure[i]) + 1);
      made.push({ residual, sure, digits, clashes: clashing(digits) });
    };
    settled = false;
    path = [];
    steps = 0;
    draw();
    const rested = await toRest({ T, u: zero(), most: MOST, tol, keep, stale: () => mine !== turn });
    if (rested === null) return;
    settled = rested;
    path = made;
    steps = top();
    fill(path.map(({ residual, clashes, sure, digits }, k) =>
      [k, residualCell(residual, 5), clashes.size, say(Math.min(...sure), 4), digits.join("")]));
    draw();
  }

  // What the network's 36 digits are, in words.
  function judged({ digits, clashes }) {
    const lost = grid.filter((v, cell) => v && digits[cell] !== v).length;
    if (clashes.size) return `${clashes.size} cells clash with another of their row, column or box`;
    return lost ? `no digit clashes, but ${lost} of the givens are not kept` : "every rule is kept: solved";
  }

  function draw() {
    root.dataset.busy = path.length ? "no" : "yes";
    show(steps);
    const now = path[steps];
    keys.forEach((key, cell) => {
      const v = grid[cell], digit = now ? now.digits[cell] : 0, sure = now ? now.sure[cell] : 0;
      const clash = Boolean(now && steps && now.clashes.has(cell));
      key.textContent = v || (steps && digit) || "";
      key.classList.toggle("jfb-given", v > 0);
      key.classList.toggle("jfb-clash", clash);
      // shades from none, where all six digits are as likely, to full, where one is certain
      key.style.setProperty("--jfb-sure", v ? 1 : Math.max(0, (sure - 1 / 6) / (5 / 6)).toFixed(3));
      const says = steps ? `${digit} with probability ${sure.toFixed(2)}` : "nothing yet";
      key.setAttribute("aria-label", `${place(cell)}: ${v ? `given ${v}` : says}${clash ? ", clashes" : ""}`);
    });
    const fact = ["This puzzle has no solution", "This puzzle has one solution", "This puzzle has more than one solution"][truth.count];
    if (!now) {
      words.textContent = `${began}${fact}. The network is at work.`;
      return;
    }
    const said = steps ? `After ${steps} steps ${judged(now)}. The last step moved u by ${say(100 * now.residual, 3)} % of its norm. ` : "";
    const last = settled
      ? `It comes to rest after ${top()} steps, with the relative residual below ${say(tol)}; there `
      : `It has not come to rest in ${top()} steps; there `;
    words.textContent = `${began}${fact}. ${said}${steps === top() ? last.replace("; there ", ".") : `${last}${judged(path[top()])}.`}`;
  }

  choose(0, false);
  fresh([...Object.values(samples)[0]].map(Number), "");
}
