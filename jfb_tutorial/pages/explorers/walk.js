// The walk g, g + gJ, g + gJ + gJ², … to the adjoint w = g (I − J)⁻¹, in the plane, with rows before matrices. J = [[x, b],
// [−s, x]] with b = y + shear and s = y²/b, the matrix of the contraction explorer: its eigenvalues are x ± i y for every
// shear. Damped, v ← (1 − λ) v + λ (g + v J) from 0: the terms are λ g Bⁱ with B = (1 − λ) I + λ J. g has the length 1.
// SAME: numbers closer than this are called equal. WIDE: how far the drawing may reach; it takes the least of these with
// room for g, w and the sums. FAR: a sum or a w beyond is not made room for; nor is, where the walk leads away, one beyond AWAY.
const MOST = 40, SAME = 1e-9, WIDE = [1.25, 1.6, 2.1, 2.8, 3.8, 5.2, 7.2, 10, 14], FAR = 12, AWAY = 3.2, DEGREE = Math.PI / 180;
const long = (v) => Math.hypot(...v), inner = ([a, b], [c, d]) => a * c + b * d;

function start(root, { x, y, shear, terms, damping, angle }) {
  const stage = root.querySelector(".jfb-stage"), controls = root.querySelector(".jfb-controls");
  const words = root.querySelector(".jfb-words");
  const wide = html("div", { style: "flex: 3 1 18rem; min-width: 0; max-width: 30rem" }, stage);
  const side = html("div", { style: "flex: 2 1 15rem; min-width: 0; max-width: 30rem; align-self: center" }, stage);
  const plane = axes(wide, { x: [-1, 1], y: [-1, 1], xticks: [0], yticks: [0], xlabel: "first component",
    ylabel: "second component", title: "the walk from 0 to w; shaded: −v descends" });
  const pad = axes(html("div", { style: "max-width: 14rem; margin: 0 auto" }, side), { x: [-1.3, 1.3], y: [-1.3, 1.3],
    xticks: [-1, 0, 1], yticks: [-1, 0, 1], xlabel: "eigenvalues x ± i y of J", ylabel: "" });
  side.append(controls);
  for (const text of pad.root.querySelectorAll("text")) text.style.fontSize = "20px";
  pad.root.querySelectorAll("text").forEach((text) => { if (/eigen/.test(text.textContent)) text.setAttribute("y", 401); });
  pad.root.setAttribute("viewBox", "0 0 400 408");

  const ground = plane.layer(), drawn = (parent, name, more) => svg(name, { fill: "none", ...more }, parent);
  const shade = drawn(ground, "path", { class: "jfb-half", fill: "var(--jfb-fill)" });
  const cross = (plot) => plot.line([[-9, 0], [9, 0]]) + plot.line([[0, -9], [0, 9]]);
  drawn(ground, "path", { class: "jfb-axis", "stroke-opacity": 0.5, d: cross(plane) });
  const border = drawn(ground, "path", { stroke: "var(--jfb-grey)", "stroke-width": 1.5, "stroke-dasharray": "7 4" });
  const unit = drawn(ground, "circle", { cx: plane.X(0), cy: plane.Y(0), stroke: "var(--jfb-grey)", "stroke-dasharray": "1 5" });
  const aim = drawn(ground, "path", { stroke: "currentColor", "stroke-width": 1.2, "stroke-dasharray": "2 4" });
  const sum = drawn(ground, "path", { "stroke-width": 1.6, "stroke-dasharray": "7 4" });
  const given = drawn(ground, "path", { stroke: "var(--jfb-grey)", "stroke-width": 2 });
  const arrows = svg("g", { class: "jfb-terms", stroke: "var(--jfb-blue)", fill: "var(--jfb-blue)" }, ground);
  const names = { g: label(plane, "g"), w: label(plane, "w"), stop: label(plane, "JFB stops here") };
  const halves = [label(plane, "−v descends"), label(plane, "−v climbs")];
  const ones = [-1, 1].map((sign) => [sign, label(plane, ""), label(plane, "")]);

  const over = pad.layer(), disc = pad.X(1) - pad.X(0);
  drawn(over, "path", { class: "jfb-axis", "stroke-opacity": 0.5, d: cross(pad) });
  drawn(over, "circle", { cx: pad.X(0), cy: pad.Y(0), r: disc, fill: "var(--jfb-fill)", stroke: "var(--jfb-grey)",
    "stroke-width": 1.5 });
  drawn(over, "path", { d: `M${pad.X(1) - 9},${pad.Y(0)}h18m-9,-9v18`, stroke: "currentColor", "stroke-width": 2.5 });
  const pulls = drawn(over, "path", { stroke: "var(--jfb-grey)", "stroke-width": 2 });
  const mirror = drawn(over, "circle", { r: 9, stroke: "var(--jfb-blue)", "stroke-width": 2.5 });
  const pulled = svg("g", { fill: "var(--jfb-green)" }, over);

  const limit = (value, low, high) => Math.min(Math.max(Math.round(value * 100) / 100, low), high);
  const set = (change) => { halt(); change(); draw(); };
  const setX = (value) => { x = limit(value, -1.2, 1.2); }, setY = (value) => { y = limit(value, 0, 1.2); };
  const placeJ = grip(pad, "var(--jfb-blue)", (re, im) => set(() => { setX(re); setY(im); }));
  const placeG = grip(plane, "var(--jfb-blue)", (p, q) => set(() => {
    angle = (Math.round(Math.atan2(q, p) / DEGREE) + 360) % 360;
  }));
  const star = svg("path", { class: "jfb-star", fill: "currentColor", "pointer-events": "none" }, plane.root);
  const tip = svg("circle", { class: "jfb-tip", "stroke-width": 2.5, "pointer-events": "none" }, plane.root);

  // The number of terms: a slider and buttons. Play adds one after another, or all at once where motion is unwelcome.
  let timer = null, last = MOST; // last: the term with which Play ends, the first one too short to see or out of the drawing
  const halt = () => {
    clearInterval(timer);
    timer = null;
    play.textContent = "Play";
    words.removeAttribute("aria-live");
  };
  const go = (k) => set(() => { terms = Math.min(Math.max(k, 1), MOST); });
  const fixed = (value) => value.toFixed(2).replace("-", "−");
  const dial = (name, min, max, step, text, change) => slider(controls, { name, min, max, step, text, change });
  const showTerms = dial("terms", 1, MOST, 1, (value) => `terms k = ${value}`, go);
  const [back, on, play] = buttons(controls, {
    "‹": () => go(terms - 1),
    "›": () => go(terms + 1),
    "Play": () => {
      if (timer) return halt();
      if (calm.matches) return go(last);
      if (terms >= last) go(1);
      timer = setInterval(() => { if (terms + 1 >= last) halt(); terms = Math.min(terms + 1, MOST); draw(); }, 450);
      play.textContent = "Pause";
      words.setAttribute("aria-live", "off"); // spoken at the end, not at every step
    },
    "JFB": () => go(1),
  });
  back.setAttribute("aria-label", "one term fewer");
  on.setAttribute("aria-label", "one term more");
  const showX = dial("x", -1.2, 1.2, 0.01, (value) => `x = ${fixed(value)}`, (value) => set(() => setX(value)));
  const showY = dial("y", 0, 1.2, 0.01, (value) => `y = ${fixed(value)}`, (value) => set(() => setY(value)));
  const showShear = dial("shear", 0, 4, 0.05, (value) => `shear = ${fixed(value)}`, (value) => set(() => { shear = value; }));
  const showDamping = dial("damping", 0.05, 1, 0.01, (value) => `damping λ = ${fixed(value)}`,
    (value) => set(() => { damping = value; }));
  const showAngle = dial("angle", 0, 360, 1, (value) => `g at ${say(value)}°`, (value) => set(() => { angle = value; }));
  words.style.whiteSpace = "pre-line";
  const fill = table(root.querySelector(".jfb-more"), "The sums in a table",
    ["k", "term’s length", "v, first", "v, second", "cosine with w", "‖v‖ / ‖w‖"]);

  // All that is shown, from the six numbers.
  function measure() {
    const b = y + shear, s = shear ? (y * y) / b : y, det = (1 - x) ** 2 + y * y;
    const times = ([p, q]) => [x * p - s * q, b * p + x * q];
    const g = [Math.cos, Math.sin].map((f) => Number(f(angle * DEGREE).toFixed(15)));
    const w = det < SAME * SAME ? null : [((1 - x) * g[0] - s * g[1]) / det, (b * g[0] + (1 - x) * g[1]) / det];
    let term = g.map((value) => damping * value), v = [0, 0];
    const sums = [];
    for (let k = 1; k <= MOST; k++) {
      v = v.map((value, i) => value + term[i]);
      const size = long(v), cosine = w && size > SAME ? Math.max(-1, Math.min(1, inner(v, w) / size / long(w))) : NaN;
      sums.push({ v, size, cosine, term: long(term), ratio: w ? size / long(w) : NaN });
      term = times(term).map((value, i) => (1 - damping) * term[i] + damping * value);
    }
    return { g, w, sums, rho: Math.hypot(x, y), norm: Math.hypot(x, (b + s) / 2) + (b - s) / 2,
      radius: Math.hypot(1 - damping + damping * x, damping * y) };
  }

  function draw() {
    const { g, w, sums, rho, norm, radius } = measure(), now = sums[terms - 1];
    const settles = radius < 1 - SAME, near = w && long(w) < FAR;
    // the scale must not depend on k: a walk that is followed stays where it is
    const room = sums.map(({ size }) => size).filter((size) => size < (settles ? FAR : AWAY));
    const reach = 1.1 * Math.max(1, near ? long(w) : 0, ...room), scale = WIDE.find((size) => size > reach) || 14;
    const pixel = ([p, q]) => [plane.X(p / scale), plane.Y(q / scale)];
    const gone = sums.findIndex(({ v, term }) => Math.max(...v.map(Math.abs)) > scale || term < scale / 300);
    last = gone < 0 ? MOST : gone + 1;
    for (const [sign, below, beside] of ones) {
      const one = scale > 6 ? 5 * sign : sign;
      below(pixel([one, 0])[0], plane.Y(-1) + 18).textContent = say(one);
      beside(plane.X(-1) - 7, pixel([0, one])[1] + 5, "end").textContent = say(one);
    }
    unit.setAttribute("r", plane.X(1 / scale) - plane.X(0));

    const d = w ? w.map((value) => value / long(w)) : [0, 0], [ux, uy] = [-d[1], d[0]];
    shade.setAttribute("d", w ? `${plane.line([[3 * ux, 3 * uy], [3 * (ux + d[0]), 3 * (uy + d[1])],
      [3 * (d[0] - ux), 3 * (d[1] - uy)], [-3 * ux, -3 * uy]])}Z` : "");
    border.setAttribute("d", w ? plane.line([[3 * ux, 3 * uy], [-3 * ux, -3 * uy]]) : "");
    aim.setAttribute("d", w ? plane.line([[0, 0], w.map((value) => value / scale)]) : "");
    const at = near ? pixel(w) : pixel(d.map((value) => 0.93 * scale * value / Math.max(...d.map(Math.abs))));
    star.setAttribute("d", !w ? "" : near ? starAt(at) : headAt(pixel([0, 0]), at, 15));
    halves.forEach((place, i) => {
      const [right, up] = d.map((value) => (value >= 0) === (i === 0));
      place(plane.X(right ? 1 : -1) + (right ? -5 : 5), up ? plane.Y(1) + 16 : plane.Y(-1) - 7, right ? "end" : "start")
        .style.display = w ? "" : "none";
    });

    const path = [[0, 0], ...sums.slice(0, terms).map(({ v }) => v)].filter((v) => long(v) < 60 * scale).map(pixel);
    arrows.replaceChildren(...path.slice(1).flatMap((to, i) => arrow(path[i], to, i ? 2.2 : 4.5)));
    given.setAttribute("d", damping < 1 ? plane.line([[0, 0], g.map((value) => value / scale)]) : "");
    placeG(...g.map((value) => value / scale));
    const color = Number.isNaN(now.cosine) ? "var(--jfb-grey)" : now.cosine > SAME ? "var(--jfb-green)" : "var(--jfb-red)";
    sum.setAttribute("stroke", color);
    sum.setAttribute("d", terms > 1 ? plane.line([[0, 0], now.v.map((value) => value / scale)]) : "");
    const [tx, ty] = pixel(now.v), inside = Math.max(...now.v.map(Math.abs)) < scale;
    for (const [key, value] of Object.entries({ cx: tx, cy: ty, r: 5, fill: now.cosine > SAME ? color : "none", stroke: color,
      visibility: inside ? "visible" : "hidden", "data-good": String(now.cosine > SAME) })) tip.setAttribute(key, value);

    // no label on the walk, on w, or on another label
    const taken = sums.slice(0, last).map(({ v }) => pixel(v)).concat([pixel([0, 0]), pixel(g)], w ? [pixel([0, 0]), at] : []);
    const between = ([a, c], [e, f]) => [1, 2, 3, 4, 5, 6, 7].map((i) => [a + ((e - a) * i) / 8, c + ((f - c) * i) / 8]);
    const crowd = [pixel([0, 0]), ...taken].flatMap((point, i, all) => [point, ...between(point, all[i + 1] || point)]);
    put(names.w, w ? at : [-999, 0], 12, crowd).style.display = w ? "" : "none";
    put(names.g, pixel(g.map((value) => 0.55 * value)), 10, crowd);
    put(names.stop, pixel(sums[0].v), 108, crowd);

    placeJ(x, y);
    for (const [key, value] of [["cx", pad.X(x)], ["cy", pad.Y(-y)]]) mirror.setAttribute(key, value);
    const mu = [[x, y], [x, -y]], beta = mu.map(([re, im]) => [1 - damping + damping * re, damping * im]);
    pulls.setAttribute("d", damping < 1 ? mu.map((from, i) => pad.line([from, beta[i]])).join("") : "");
    pulled.replaceChildren(...(damping < 1 ? beta : []).map(([re, im]) => svg("circle", { cx: pad.X(re), cy: pad.Y(im), r: 7 })));

    showTerms(terms);
    showX(x);
    showY(y);
    showShear(shear);
    showDamping(damping);
    showAngle(angle);
    words.textContent = sentence({ w, now, rho, norm, radius, settles, near, inside });
    const neat = (value) => (Number.isNaN(value) ? "undefined"
      : (Math.abs(value) < 1e5 ? value.toFixed(7) : String(Number(value.toPrecision(9)))).replace("-", "−"));
    fill([...sums.slice(0, terms).map(({ v, term, cosine, ratio }, i) => [i + 1, ...[term, ...v, cosine, ratio].map(neat)]),
      ["w", "", ...(w ? [...w, 1, 1] : [NaN, NaN, NaN, NaN]).map(neat)]]);
  }


  function sentence({ w, now, rho, norm, radius, settles, near, inside }) {
    const tell = (value) => say(value, Math.abs(value - 1) < 0.005 ? 5 : 3);
    const who = terms === 1 ? `k = 1, JFB: v is ${damping < 1 ? "λg, on the way of g itself" : "g itself"}`
      : `k = ${terms}: v is the sum of ${terms} terms`;
    const verdict = now.cosine > SAME ? "✓ −v descends." : now.cosine < -SAME ? "✗ −v climbs."
      : "✗ v and w are at right angles: −v neither descends nor climbs.";
    const first = !w ? `${who}.` : now.size <= SAME ? `${who}, and the terms cancel: v = 0 points nowhere.`
      : `${who}. Its cosine with w is ${tell(now.cosine)}, its length ${tell(now.ratio)} of w’s.\n${verdict}`;
    const sizes = `ρ(J) = ${tell(rho)}, ‖J‖ = ${tell(norm)}`, B = damping < 1 ? `, and damped ρ(B) = ${tell(radius)}` : "";
    const level = Math.abs(radius - 1) < SAME;
    const story = !w ? "J has the eigenvalue 1, so I − J is singular: no w is there to walk to, and no half-plane of descent."
      : !settles ? (level ? "The terms do not die out; w still exists, but the sums never settle there."
        : "The terms grow; w still exists, but no sum reaches it.")
        : rho >= 1 - SAME ? "Undamped no sum would reach w; damped the walk ends there."
          : norm === 0 ? "J = 0, so w is g itself."
            : norm < 1 - SAME ? "Each term is shorter than the one before it, and the walk ends at w."
              : "A term may be longer than the one before it (‖J‖ ≥ 1), and yet the walk ends at w (ρ(J) < 1).";
    const off = [!inside && "The sum has left the picture.", w && !near && `w, of length ${tell(long(w))}, lies outside of the picture.`];
    return [first, `${sizes}${B}. ${story}`, ...off.filter(Boolean)].join("\n");
  }

  draw();
}

// The outline of a star around a point, of an arrow's head at one.
function starAt([x, y]) {
  const corner = (_, i) => [i % 2 ? 4.5 : 11, (Math.PI * i) / 5];
  const points = Array.from({ length: 10 }, corner).map(([r, turn]) => `${x + r * Math.sin(turn)},${y - r * Math.cos(turn)}`);
  return `M${points.join("L")}Z`;
}
function headAt([ax, ay], [bx, by], size) {
  const far = Math.hypot(bx - ax, by - ay) || 1, dx = ((bx - ax) / far) * size, dy = ((by - ay) / far) * size;
  return `M${bx},${by}L${bx - dx - 0.42 * dy},${by - dy + 0.42 * dx}L${bx - dx + 0.42 * dy},${by - dy - 0.42 * dx}Z`;
}

// An arrow: its line ends within its head.
function arrow(from, to, width) {
  const far = Math.hypot(to[0] - from[0], to[1] - from[1]), size = Math.min(7 + 2 * width, 0.6 * far);
  if (far < 0.3) return [];
  const neck = from.map((value, i) => to[i] - (to[i] - value) * (0.7 * size / far));
  return [svg("path", { "stroke-width": width, d: `M${from}L${neck}` }), svg("path", { stroke: "none", d: headAt(from, to, size) })];
}

// Puts a label beside a point, where room is between its box and the crowd, which it joins; the nearer the better.
function put(place, [x, y], width, crowd) {
  const room = ([cx, cy]) => Math.min(12, ...crowd.map(([px, py]) =>
    Math.hypot(Math.max(Math.abs(px - cx) - width / 2, 0), Math.max(Math.abs(py - cy) - 7, 0))));
  const within = (value, low, high) => Math.min(Math.max(value, low), high);
  const spots = [15, 24, 36, 50].flatMap((gap) => Array.from({ length: 24 }, (_, i) => {
    const dx = Math.cos(15 * i * DEGREE), dy = Math.sin(15 * i * DEGREE);
    return [within(x + dx * (width / 2 + gap), 59 + width / 2, 386 - width / 2), within(y + dy * (gap + 5), 50, 330), gap];
  }));
  const worth = (spot) => room(spot) - spot[2] / 6;
  const best = spots.reduce((one, other) => (worth(other) > worth(one) + SAME ? other : one));
  for (const part of [-0.5, -0.25, 0, 0.25, 0.5]) crowd.push([best[0] + part * width, best[1]]);
  return place(best[0], best[1] + 5);
}
