// Where the water reaches: the trained network runs in the page, on a labyrinth whose walls the reader builds and takes away.
const LARGEST = 24, WATER = "#2b84c0", TO_COME = "rgba(43, 132, 192, .3)", WRONG = "#d9601f", WALL = "#707070";
const FLOOR = "rgba(128, 128, 128, .14)";

// A labyrinth: { rows, columns, walls, spring }, its cells in one line, row after row.
const inside = ({ rows, columns }, i) => {
  const column = i % columns;
  return [i, i >= columns ? i - columns : i, i < (rows - 1) * columns ? i + columns : i,
    column ? i - 1 : i, column < columns - 1 ? i + 1 : i];
};

// Exactly: how many moves each cell is from the spring; −1 where no water comes.
function flood(grid) {
  const away = new Int32Array(grid.walls.length).fill(-1);
  away[grid.spring] = 0;
  for (let front = [grid.spring], moves = 1; front.length; moves++) {
    const next = [];
    for (const i of front) {
      for (const j of inside(grid, i)) {
        if (away[j] >= 0 || grid.walls[j]) continue;
        away[j] = moves;
        next.push(j);
      }
    }
    front = next;
  }
  return away;
}

// The picture of a labyrinth in letters, and back: # is a wall, o the spring, ~ water; null where it is no labyrinth.
function written({ columns, walls, spring }, wet) {
  const letters = Array.from(walls, (wall, i) => (i === spring ? "o" : wall ? "#" : wet && wet[i] ? "~" : "."));
  return Array.from({ length: walls.length / columns }, (_, k) => letters.slice(k * columns, (k + 1) * columns).join("")).join("\n");
}
function read(text) {
  const lines = text.trim().split(/\s*\n\s*/), columns = lines[0].length, rows = lines.length;
  const letters = lines.join(""), spring = letters.indexOf("o");
  if (rows < 2 || columns < 2 || rows > LARGEST || columns > LARGEST || letters.length !== rows * columns) return null;
  if (spring < 0 || letters.lastIndexOf("o") !== spring) return null;
  return { rows, columns, spring, walls: Uint8Array.from(letters, (letter) => (letter === "#" ? 1 : 0)) };
}

// The network: of a labyrinth T, and S of a state. A state has its channels side by side at each cell.
function machine({ weights, channels: c }) {
  const all = halves(weights);
  let at = 0;
  const take = (size) => all.subarray(at, (at += size));
  const wide = 2 * c;
  const Q = { weight: take(2 * c), bias: take(c) };
  const one = { weight: take(wide * wide), bias: take(wide) }, two = { weight: take(c * wide), bias: take(c) };
  const S = { weight: take(c), bias: take(1) };

  return (grid) => {
    const n = grid.walls.length, near = Array.from({ length: n }, (_, i) => inside(grid, i));
    // what the input adds is the same at every step
    const entering = new Float64Array(n * wide);
    for (let p = 0; p < n; p++) {
      const d = [grid.walls[p], p === grid.spring ? 1 : 0];
      const q = Float32Array.from(Q.bias, (bias, i) => bias + Q.weight[2 * i] * d[0] + Q.weight[2 * i + 1] * d[1]);
      for (let o = 0; o < wide; o++) {
        let sum = one.bias[o];
        for (let i = 0; i < c; i++) sum += one.weight[o * wide + c + i] * q[i];
        entering[p * wide + o] = sum;
      }
    }
    const most = new Float32Array(c), hidden = new Float32Array(wide);
    return {
      T(u) {
        const next = new Float32Array(n * c);
        for (let p = 0; p < n; p++) {
          const [, up, down, left, right] = near[p];
          for (let i = 0; i < c; i++) {
            most[i] = Math.max(u[p * c + i], u[up * c + i], u[down * c + i], u[left * c + i], u[right * c + i]);
          }
          for (let o = 0; o < wide; o++) {
            let sum = entering[p * wide + o];
            for (let i = 0; i < c; i++) sum += one.weight[o * wide + i] * most[i];
            hidden[o] = Math.max(sum, 0);
          }
          for (let o = 0; o < c; o++) {
            let sum = two.bias[o];
            for (let i = 0; i < wide; i++) sum += two.weight[o * wide + i] * hidden[i];
            next[p * c + o] = Math.tanh(sum);
          }
        }
        return next;
      },
      wet(u) {
        return Uint8Array.from({ length: n }, (_, p) => {
          let sum = S.bias[0];
          for (let i = 0; i < c; i++) sum += S.weight[i] * u[p * c + i];
          return sum > 0 ? 1 : 0;
        });
      },
      zero: () => new Float32Array(n * c),
    };
  };
}

// Labyrinths to begin with, of a given size.
const drawn = {
  Spiral({ rows, columns }) {
    const walls = new Uint8Array(rows * columns).fill(1), open = (y, x) => y >= 0 && x >= 0 && y < rows && x < columns && !walls[y * columns + x];
    const within = (y, x) => y >= 0 && x >= 0 && y < rows && x < columns;
    let y = 0, x = 0, dy = 0, dx = 1;
    walls[0] = 0;
    for (let turns = 0; turns < 2;) {
      if (within(y + dy, x + dx) && !open(y + dy, x + dx) && !open(y + 2 * dy, x + 2 * dx)) {
        [y, x, turns] = [y + dy, x + dx, 0];
        walls[y * columns + x] = 0;
      } else [dy, dx, turns] = [dx, -dy, turns + 1];
    }
    return { rows, columns, walls, spring: 0 };
  },
  Comb({ rows, columns }) {
    const walls = Uint8Array.from({ length: rows * columns }, (_, i) => (i >= columns && (i % columns) % 2 ? 1 : 0));
    return { rows, columns, walls, spring: (rows - 1) * columns };
  },
  Random({ rows, columns }) {
    for (;;) {
      const walls = Uint8Array.from({ length: rows * columns }, () => (Math.random() < 0.4 ? 1 : 0));
      const grid = { rows, columns, walls, spring: Math.floor(Math.random() * walls.length) };
      walls[grid.spring] = 0;
      const wet = flood(grid).filter((away) => away >= 0).length, free = walls.filter((wall) => !wall).length;
      if (wet >= 0.3 * free && wet <= 0.8 * free) return grid;
    }
  },
  "No walls": ({ rows, columns, spring }) => ({ rows, columns, walls: new Uint8Array(rows * columns), spring }),
};

function start(root, { network, grid: first, cell, tol }) {
  const run = machine(network);
  const stage = root.querySelector(".jfb-stage"), controls = root.querySelector(".jfb-controls");
  const words = root.querySelector(".jfb-words"), more = root.querySelector(".jfb-more");
  let grid = read(first), away = flood(grid), path = [], steps = 0, turn = 0, settled = false, began = "From zero. ";
  let cursor = (cell[0] - 1) * grid.columns + cell[1] - 1, hand = null;

  const box = html("div", { class: "jfb-labyrinth", "aria-hidden": "true" }, stage);
  const canvas = html("canvas", {}, box);
  const legend = html("small", {}, box);
  for (const [colour, text] of [[WATER, "water"], [TO_COME, "water still to come"], [WRONG, "wet by mistake"], [FLOOR, "dry"], [WALL, "wall"]]) {
    const entry = html("span", {}, legend);
    html("i", { style: `background: ${colour}` }, entry);
    entry.append(text);
  }

  const top = () => Math.max(path.length - 1, 0);
  const stepping = stepper(controls, top, () => steps, (value) => { steps = value; draw(); }, () => Math.ceil(top() / 40));
  const stepInput = controls.querySelector('input[name="steps"]');
  const play = [...controls.querySelectorAll("button")].find((button) => button.textContent === "Run");
  const show = (value) => { stepInput.max = top(); stepping.show(value); };

  const place = (name, move) => slider(controls, {
    name, min: 1, max: LARGEST, step: 1, text: (value) => `${name} ${value}`, change: (value) => { cursor = move(value - 1); draw(); },
  });
  const showRow = place("row", (value) => value * grid.columns + (cursor % grid.columns));
  const showColumn = place("column", (value) => cursor - (cursor % grid.columns) + value);
  buttons(controls, {
    "Build or take away a wall here": () => change(cursor, () => toggle(cursor, !grid.walls[cursor])),
    "Move the spring here": () => change(cursor, () => move(cursor)),
  });
  const warm = html("input", { id: unique("warm"), type: "checkbox", name: "warm", checked: "" }, html("div", { class: "jfb-check" }, controls));
  html("label", { for: warm.id }, warm.parentNode, " go on from where it was");
  buttons(controls, Object.fromEntries(Object.entries(drawn).map(([name, draws]) => [name, () => fresh(draws(grid))])));
  const fill = table(more, "The steps in a table", ["step", "wet", "still to come", "wet by mistake", "residual"]);
  const details = html("details", { class: "jfb-text" }, more);
  html("summary", {}, details, "The labyrinth in letters");
  const id = unique("letters");
  html("label", { for: id }, details, `# is a wall, o the spring, ~ water, as the network says after this step; up to ${LARGEST} rows and columns`);
  const letters = html("textarea", { id, name: "letters", spellcheck: "false", autocomplete: "off" }, details);
  letters.addEventListener("change", () => {
    const found = read(letters.value);
    if (found) fresh(found);
    else draw();
  });

  const named = (i) => `row ${Math.floor(i / grid.columns) + 1}, column ${(i % grid.columns) + 1}`;

  function fresh(next) {
    grid = next;
    cursor = Math.min(cursor, grid.walls.length - 1);
    look(null, "From zero. ", true);
  }
  function toggle(i, build) {
    if (i === grid.spring || Boolean(grid.walls[i]) === build) return "";
    grid.walls[i] = build ? 1 : 0;
    return `${build ? "A wall built" : "A wall taken away"} at ${named(i)}`;
  }
  function move(i) {
    if (i === grid.spring) return "";
    grid.walls[i] = 0;
    grid.spring = i;
    return `The spring moved to ${named(i)}`;
  }
  // A change is a function that makes it and says so; then the iteration goes on.
  function change(i, make) {
    const from = path.length ? path[steps].u : null;
    const said = make();
    cursor = i;
    if (said) go(from, said);
    else draw();
  }
  function go(from, said) {
    const u = warm.checked ? from : null;
    look(u, `${said}, ${u ? "on from where it was" : "again from zero"}. `, true);
  }

  // Iterate to rest; a newer labyrinth ends the work on an older one.
  async function look(from, said, moving) {
    const mine = ++turn;
    stepping.halt();
    began = said;
    away = flood(grid);
    const { T, wet, zero } = run(grid);
    const made = [];
    const keep = (u, residual) => {
      const says = wet(u), count = (test) => says.reduce((sum, yes, i) => sum + (test(yes, away[i] >= 0) ? 1 : 0), 0);
      made.push({ u, residual, says, wet: count((yes) => yes), dry: count((yes, truth) => !yes && truth), leaks: count((yes, truth) => yes && !truth) });
    };
    settled = false;
    path = [];
    steps = 0;
    draw();
    const rested = await toRest({ T, u: from || zero(), most: grid.walls.length + 100, tol, keep, stale: () => mine !== turn });
    if (rested === null) return;
    settled = rested;
    path = made;
    fill(path.map(({ residual, wet, dry, leaks }, k) => [k, wet, dry, leaks, residualCell(residual, 4)]));
    steps = moving && !calm.matches ? 0 : top();
    draw();
    if (moving && !calm.matches) play.click();
  }

  function draw() {
    root.dataset.busy = path.length ? "no" : "yes";
    show(steps);
    showRow(Math.floor(cursor / grid.columns) + 1).querySelector("input").max = grid.rows;
    showColumn((cursor % grid.columns) + 1).querySelector("input").max = grid.columns;
    const now = path[Math.min(steps, top())];
    paint(now ? now.says : null);
    if (document.activeElement !== letters) letters.value = written(grid, now ? now.says : null);
    if (!now) {
      words.textContent = `${began}The network is at work on ${grid.walls.length} cells.`;
      return;
    }
    const free = grid.walls.reduce((sum, wall) => sum + 1 - wall, 0);
    const faults = ({ dry, leaks }) => {
      const parts = [];
      if (dry) parts.push(`${dry} ${dry === 1 ? "is" : "are"} still to come`);
      if (leaks) parts.push(`${leaks} ${leaks === 1 ? "is" : "are"} wet where no water comes`);
      return parts.length ? parts.join(", and ") : "that is right in every cell";
    };
    const end = path[top()], farthest = away.reduce((most, moves) => Math.max(most, moves), 0);
    const last = settled
      ? `It comes to rest after ${top()} steps, with the relative residual below ${say(tol)}`
      : `It has not come to rest in ${top()} steps`;
    words.textContent = `${began}After ${steps} steps ${now.wet} of ${free} open cells are wet: ${faults(now)}. `
      + (steps ? `The last step moved u by ${say(100 * now.residual, 3)} % of its norm. ` : "")
      + `${last}, and is then ${end.dry + end.leaks ? `wrong at ${end.dry + end.leaks} cells` : "right in every cell"}. `
      + `The farthest cell that the water reaches is ${farthest} moves from the spring.`;
  }

  // While a hand builds, what the network said before is shown without a judgement.
  function paint(says) {
    const size = 22, { rows, columns, walls, spring } = grid;
    canvas.width = columns * size;
    canvas.height = rows * size;
    const pen = canvas.getContext("2d");
    walls.forEach((wall, i) => {
      const x = (i % columns) * size, y = Math.floor(i / columns) * size, wet = says && says[i], truth = away[i] >= 0;
      pen.fillStyle = wet && !truth && !hand ? WRONG : wall ? WALL : wet ? WATER : truth && !hand ? TO_COME : FLOOR;
      pen.fillRect(x + 0.5, y + 0.5, size - 1, size - 1);
      if (i === spring) {
        pen.fillStyle = "#fff";
        pen.strokeStyle = "#222";
        pen.lineWidth = 2;
        pen.beginPath();
        pen.arc(x + size / 2, y + size / 2, size / 4, 0, 7);
        pen.fill();
        pen.stroke();
      }
      if (i === cursor) {
        pen.strokeStyle = getComputedStyle(root).color;
        pen.lineWidth = 2;
        pen.strokeRect(x + 1, y + 1, size - 2, size - 2);
      }
    });
  }

  const under = (event) => {
    const frame = canvas.getBoundingClientRect();
    const at = (value, count) => Math.min(Math.max(Math.floor(value * count), 0), count - 1);
    return [at((event.clientY - frame.top) / frame.height, grid.rows), at((event.clientX - frame.left) / frame.width, grid.columns)];
  };
  // All cells from one to another: a quick hand leaves none out.
  function along([y0, x0], [y1, x1], visit) {
    const count = Math.max(Math.abs(y1 - y0), Math.abs(x1 - x0), 1);
    for (let k = 0; k <= count; k++) {
      visit(Math.round(y0 + ((y1 - y0) * k) / count) * grid.columns + Math.round(x0 + ((x1 - x0) * k) / count));
    }
  }
  canvas.addEventListener("pointerdown", (event) => {
    if (!path.length) return;
    event.preventDefault();
    canvas.setPointerCapture(event.pointerId);
    stepping.halt();
    const place = under(event), i = place[0] * grid.columns + place[1];
    hand = { place, from: path[steps].u, spring: i === grid.spring, build: !grid.walls[i], said: "", cells: 0 };
    stroke(event);
  });
  canvas.addEventListener("pointermove", (event) => {
    if (hand) stroke(event);
  });
  function stroke(event) {
    const place = under(event);
    along(hand.place, place, (i) => {
      // the spring is carried over walls, and leaves them where they are
      const said = !hand.spring ? toggle(i, hand.build) : grid.walls[i] ? "" : move(i);
      if (said) [hand.said, hand.cells] = [said, hand.cells + 1];
      cursor = i;
    });
    hand.place = place;
    away = flood(grid);
    paint(path.length ? path[steps].says : null);
  }
  for (const kind of ["pointerup", "pointercancel"]) {
    canvas.addEventListener(kind, () => {
      if (!hand) return;
      const { from, said, cells, spring, build } = hand;
      hand = null;
      if (!said) draw();
      else go(from, cells > 1 && !spring ? `${cells} cells of wall ${build ? "built" : "taken away"}` : said);
    });
  }

  look(null, "From zero. ", false);
}
