// The criterion for a latent of three numbers and a head with two outputs. J = (norm / 1.3) JACOBIAN, G = diag(κ, 1, 1); A = (I − J)⁻¹G,
// so that ⟨∇, −p⟩ = g A gᵀ for what arrives, and K = B A Bᵀ. Rows are unit vectors on the half of the sphere that is seen, told
// by two angles: across and up, in [−90, 90], (0, 0) towards the eye.
const SAME = 1e-9, DEGREE = Math.PI / 180, TOWARDS = [-0.1, 1, 0.6];
const JACOBIAN = [[0, 0.5, 0], [1.3, 0, 0], [0, 0, 0.5]];
const dot = (a, b) => a.reduce((sum, value, i) => sum + value * b[i], 0);
const cross = (a, b) => [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]];
const unit = (a) => { const size = Math.hypot(...a); return a.map((value) => value / size); };
const sum = (s, a, t, b) => a.map((value, i) => s * value + t * b[i]);
const clamp = (value, most) => Math.min(Math.max(value, -most), most);
const zero = (value) => (Math.abs(value) < SAME ? 0 : value);

// the frame of the eye: to the right, up, towards it
const eye = unit(TOWARDS), right = unit(cross([0, 0, 1], eye)), FRAME = [right, cross(eye, right), eye];
const seen = (g) => FRAME.map((axis) => dot(axis, g));
const there = ([x, y, z]) => sum(1, sum(x, FRAME[0], y, FRAME[1]), z, FRAME[2]);
const angles = (g) => { const [x, y, z] = seen(g); return [Math.atan2(x, z) / DEGREE, Math.asin(clamp(y, 1)) / DEGREE]; };
const direction = ([across, up]) => {
  const [s, t] = [across * DEGREE, up * DEGREE];
  return there([Math.sin(s) * Math.cos(t), Math.sin(t), Math.cos(s) * Math.cos(t)]);
};

// [[p, q], [q, r]]: its eigenvalues, the smaller first, and a unit vector of each
function eigen(p, q, r) {
  const mean = (p + r) / 2, half = Math.hypot((p - r) / 2, q), turn = Math.atan2(2 * q, p - r) / 2;
  return { values: [mean - half, mean + half], vectors: [[-Math.sin(turn), Math.cos(turn)], [Math.cos(turn), Math.sin(turn)]] };
}

// (I − J)⁻¹G, and what it does in all directions
function instance(norm, kappa) {
  const [[, x], [y], [, , s]] = JACOBIAN.map((row) => row.map((value) => (norm / 1.3) * value));
  const det = 1 - x * y;
  const A = [[kappa / det, x / det, 0], [(kappa * y) / det, 1 / det, 0], [0, 0, 1 / (1 - s)]];
  const rate = (g) => dot(g, A.map((row) => dot(row, g)));
  // the symmetric part has a block of two and a number of its own, and one negative eigenvalue at most
  const { values, vectors } = eigen(A[0][0], (A[0][1] + A[1][0]) / 2, A[1][1]);
  const all = [values[0], values[1], A[2][2]].sort((a, b) => a - b);
  const spot = values[0] < -SAME ? {
    middle: [...vectors[0], 0],
    // its rim, on a plane at the distance 1: an ellipse with these half axes
    axes: [sum(Math.sqrt(-values[0] / values[1]), [...vectors[1], 0], 0, [0, 0, 0]), [0, 0, Math.sqrt(-values[0] / A[2][2])]],
  } : null;
  const half = spot ? spot.axes.map((axis) => Math.hypot(...axis)) : [];
  let share = 0; // of both spots, over the sphere: the mean of 1 − cos θ over the azimuth, θ the angle from the middle to the rim
  for (let i = 0; spot && i < 720; i++) {
    const far = 1 / Math.hypot(Math.cos((i * Math.PI) / 360) / half[0], Math.sin((i * Math.PI) / 360) / half[1]);
    share += (1 - 1 / Math.hypot(1, far)) / 720;
  }
  return { A, rate, all, spot, share };
}

function start(root, { head, norm, kappa, loss }) {
  let rows = head.map((row) => angles(unit(row)));
  const stage = root.querySelector(".jfb-stage"), controls = root.querySelector(".jfb-controls");
  const words = root.querySelector(".jfb-words");
  const square = (name, view) => {
    const plot = axes(html("div", { class: `jfb-${name}` }, stage),
      { x: [-1.2, 1.2], y: [-1.2, 1.2], xticks: [], yticks: [], xlabel: "", ylabel: "", title: " " });
    plot.root.setAttribute("viewBox", view);
    plot.root.querySelector(".jfb-axis").remove();
    const hatch = unique("hatch");
    const pattern = svg("pattern", { id: hatch, width: 6, height: 6, patternUnits: "userSpaceOnUse", patternTransform: "rotate(45)" },
      svg("defs", {}, plot.root));
    svg("rect", { width: 6, height: 6, fill: "var(--jfb-red)", "fill-opacity": 0.16 }, pattern);
    svg("path", { d: "M3,0V6", stroke: "var(--jfb-red)", "stroke-width": 1.8 }, pattern);
    const layer = svg("g", {}, plot.root);
    return { ...plot, hatch: `url(#${hatch})`, drawn: (part, more) => svg("path", { class: `jfb-${part}`, fill: "none", ...more }, layer) };
  };

  // the globe: all directions, the spot, what arrives
  const globe = square("globe", "48 -4 348 342");
  const radius = globe.X(1) - globe.X(0), centre = [globe.X(0), globe.Y(0)];
  const ring = (plot) => plot.line(Array.from({ length: 121 }, (_, i) => [Math.cos(i * 3 * DEGREE), Math.sin(i * 3 * DEGREE)]));
  globe.drawn("ball", { d: ring(globe), fill: "var(--jfb-grey)", "fill-opacity": 0.13, stroke: "var(--jfb-grey)" });
  for (const normal of [[1, 0, 0], [0, 1, 0], [0, 0, 1]]) {
    globe.drawn("grid", { d: globe.line(circle(seen(normal))), stroke: "var(--jfb-grey)", "stroke-opacity": 0.6, "stroke-dasharray": "2 4" });
  }
  for (const [k, axis] of [[1, 0, 0], [0, 1, 0], [0, 0, 1]].entries()) {
    const [x, y] = seen(axis), far = k === 1 ? 0.26 : 0.13 / Math.hypot(x, y);
    label(globe, `g${"₁₂₃"[k]}`)(globe.X(x * (1 + far)), globe.Y(y * (1 + far)) + 5);
  }
  const spots = [1, -1].map(() => globe.drawn("spot", { fill: globe.hatch, stroke: "var(--jfb-red)", "stroke-width": 1.5 }));
  const sent = globe.drawn("sent", { stroke: "var(--jfb-blue)", "stroke-width": 4 });
  const bad = globe.drawn("bad", { stroke: "var(--jfb-red)", "stroke-width": 7, "stroke-linecap": "round" });
  const arrived = globe.drawn("arrived", { fill: "currentColor", stroke: "none" });
  const letter = label(globe, "g");
  const title = (plot, text) => plot.root.querySelectorAll("text").forEach((node) => { if (node.textContent === " ") node.textContent = text; });
  title(globe, "every direction g; blue: what arrives");

  // the dial: all losses a, and those that climb
  const dial = square("dial", "50 -12 344 352");
  title(dial, "losses a; hatched: climb");
  const good = dial.drawn("good", { d: ring(dial), fill: "var(--jfb-fill)", stroke: "var(--jfb-blue)", "stroke-width": 2 });
  const sectors = dial.drawn("climbs", { fill: dial.hatch, stroke: "var(--jfb-red)", "stroke-width": 2 });
  dial.drawn("cross", { d: dial.line([[-1, 0], [1, 0]]) + dial.line([[0, -1], [0, 1]]), stroke: "var(--jfb-grey)" });
  label(dial, "a₁")(dial.X(1.12), dial.Y(0) + 5);
  label(dial, "a₂")(dial.X(0), dial.Y(1.06));
  const hand = dial.drawn("hand", { stroke: "currentColor", "stroke-width": 3 });

  const whole = (degrees) => Math.round(clamp(degrees, 90)), round = (degrees) => ((Math.round(degrees) % 360) + 360) % 360;
  const set = (change) => { change(); draw(); };
  // where the sphere is under the pointer; beside it, the nearest place of its edge
  const under = (x, y) => {
    const far = Math.hypot(x, y), [s, t] = far > 1 ? [x / far, y / far] : [x, y];
    return angles(there([s, t, Math.sqrt(Math.max(1 - s * s - t * t, 0))])).map(whole);
  };
  const colours = ["var(--jfb-blue)", "var(--jfb-green)"];
  const grips = colours.map((colour, i) => grip(globe, colour, (x, y) => set(() => { rows[i] = under(x, y); })));
  const names = colours.map((colour, i) => { const place = label(globe, `b${"₁₂"[i]}`); place(0, 0).style.fill = colour; return place; });
  const turnHand = grip(dial, "currentColor", (x, y) => set(() => { loss = round(Math.atan2(y, x) / DEGREE); }));

  const told = (name, value, digits, mark = "") => {
    const neat = Math.abs(value - value.toFixed(digits)) < SAME ? Number(value).toFixed(digits) : say(value, 4);
    return `${name} = ${neat.replace("-", "−")}${mark}`;
  };
  const shows = rows.flatMap((_, i) => ["across", "up"].map((way, j) => slider(controls, {
    name: `b${i + 1}-${way}`, min: -90, max: 90, step: 1, text: (value) => told(`b${"₁₂"[i]} ${way}`, value, 0, "°"),
    change: (value) => set(() => { rows[i] = rows[i].map((old, k) => (k === j ? value : old)); }),
  })));
  const showNorm = slider(controls, { name: "norm", min: 0, max: 1.5, step: 0.01, text: (value) => told("‖J‖", value, 2),
    change: (value) => set(() => { norm = value; }) });
  const showKappa = slider(controls, { name: "kappa", min: 1, max: 20, step: 0.1, text: (value) => told("κ", value, 1),
    change: (value) => set(() => { kappa = value; }) });
  const showLoss = slider(controls, { name: "loss", min: 0, max: 360, step: 1, text: (value) => told("angle of a", value, 0, "°"),
    change: (value) => set(() => { loss = value; }) });
  const random = () => unit(Array.from({ length: 3 }, () => Math.sqrt(-2 * Math.log(1 - Math.random())) * Math.cos(2 * Math.PI * Math.random())));
  const facing = (g) => (dot(g, eye) < 0 ? g.map((value) => -value) : g);
  buttons(controls, {
    "Worst loss": () => set(() => { loss = worst(); }),
    "This head": () => set(() => { rows = [[0.6, 0.8, 0], [0, 0, 1]].map(angles); }),
    "Another head": () => set(() => { rows = [[-0.6, 0.8, 0], [0, 0, 1]].map(angles); }),
    "Random head": () => set(() => {
      const first = random();
      rows = [first, unit(cross(first, random()))].map((row) => angles(facing(row)));
    }),
  });
  const list = html("ul", { class: "jfb-lamps" });
  stage.after(list);
  const lamps = ["safe for every J of this norm", "safe for this J, in every direction",
    "safe for this J and this head"].map((text) => lamp(list, text));
  const fill = table(root.querySelector(".jfb-more"), "The numbers in a table", ["what", "value"]);

  let found;
  const worst = () => { const [x, y] = found.K.vectors[0]; return ((Math.atan2(y, x) / DEGREE) + 360) % 360; };

  function look() {
    const it = instance(norm, kappa), B = rows.map(direction);
    const image = B.map((row) => it.A.map((line) => dot(line, row))); // A bᵀ
    const K = B.map((row) => image.map((column) => dot(row, column)));
    const symmetric = eigen(K[0][0], (K[0][1] + K[1][0]) / 2, K[1][1]);
    const alike = Math.hypot(...cross(...B)) < 1e-6;
    const a = [Math.cos(loss * DEGREE), Math.sin(loss * DEGREE)], g = sum(a[0], B[0], a[1], B[1]);
    return { ...it, B, K: { ...symmetric, entries: K }, alike, a, g, value: zero(it.rate(g)) };
  }

  function draw() {
    found = look();
    const { B, K, alike, a, g, rate, spot } = found;
    spots.forEach((path, i) => path.setAttribute("d", spot ? outline(spot, 1 - 2 * i) : ""));
    // what arrives: half a great circle from edge to edge, and those parts of it where JFB climbs
    const line = alike ? [] : circle(seen(unit(cross(...B))));
    sent.setAttribute("d", globe.line(line));
    const parts = [];
    for (const point of line) {
      if (rate(there(point)) >= 0) parts.push(null);
      else if (parts.at(-1)) parts.at(-1).push(point);
      else parts.push([point]);
    }
    bad.setAttribute("d", parts.filter(Boolean).map((part) => globe.line(part.length > 1 ? part : [part[0], part[0]])).join(""));
    const at = Math.hypot(...g) > SAME ? seen(unit(g)) : null;
    const mark = at && (at[2] < 0 ? at.map((value) => -value) : at);
    arrived.setAttribute("d", mark ? diamond(globe.X(mark[0]), globe.Y(mark[1])) : "");
    const spread = (point, size) => {
      const [x, y] = [globe.X(point[0]) - centre[0], globe.Y(point[1]) - centre[1]], far = Math.hypot(x, y) || 1;
      return [centre[0] + x + (size * x) / far, centre[1] + y + (size * y) / far + 5];
    };
    letter(...(mark ? [globe.X(mark[0]) + 14, globe.Y(mark[1]) - 8] : [-99, -99])).textContent = at && at[2] < 0 ? "−g" : "g";
    B.forEach((row, i) => {
      const point = seen(row);
      grips[i](point[0], point[1]);
      names[i](...spread(point, -24));
    });

    const [low, high] = K.values, fails = low < -SAME && !alike || alike && rate(B[0]) < -SAME;
    // a = cos t · first eigenvector + sin t · second climbs where tan² t < −low / high
    const half = low < -SAME ? (high > SAME ? Math.atan(Math.sqrt(-low / high)) : Math.PI / 2) : 0;
    const middle = Math.atan2(K.vectors[0][1], K.vectors[0][0]);
    const sector = (from) => [[0, 0], ...Array.from({ length: 61 }, (_, i) => from - half + (half * i) / 30).map((t) => [Math.cos(t), Math.sin(t)])];
    sectors.setAttribute("d", half ? [middle, middle + Math.PI].map((from) => dial.line(sector(from)) + "Z").join("") : "");
    good.setAttribute("stroke", fails ? "var(--jfb-grey)" : "var(--jfb-blue)");
    hand.setAttribute("d", dial.line([[0, 0], a]));
    turnHand(...a);

    rows.flat().forEach((value, i) => shows[i](value));
    showNorm(norm);
    showKappa(kappa);
    showLoss(loss);
    const sharp = (2 * Math.sqrt(kappa)) / (1 + kappa);
    lamps[0](norm < sharp - SAME, `‖J‖ = ${say(norm)}, limit ${say(sharp)}`);
    lamps[1](found.all[0] > SAME, `rates from ${say(zero(found.all[0]))} to ${say(found.all[2])}`);
    lamps[2](holds(), alike ? "the two rows are one direction" : `symmetric part of K from ${say(zero(low))} to ${say(high)}`);
    words.textContent = sentence(half / (Math.PI / 2));
    const list = (vector) => `(${vector.map((value) => say(zero(value), 6)).join(", ")})`;
    fill([
      ["b₁", list(B[0])], ["b₂", list(B[1])],
      ["K, row by row", list(K.entries.flat())],
      ["eigenvalues of its symmetric part", list(K.values)],
      ["smallest over largest", alike ? "rows alike" : say(zero(low / Math.max(Math.abs(low), Math.abs(high))), 6)],
      ["all directions: rates of descent", list(found.all)],
      ["spot, share of all directions", say(found.share, 6)],
      ["climbing losses, share of all", say(half / (Math.PI / 2), 6)],
      ["a", list(a)], ["g = aB", list(g)], ["⟨∇, −p⟩ = aKaᵀ", say(found.value, 6)],
    ]);
  }

  const holds = () => (found.alike ? found.rate(found.B[0]) > SAME : found.K.values[0] > SAME);

  function sentence(climbing) {
    const { K, alike, spot, share, value, a } = found;
    const pair = (vector) => `(${vector.map((each) => say(zero(Number(each.toFixed(3))))).join(", ")})`;
    const percent = (part) => `${say(100 * part, part < 0.1 ? 2 : 3)} %`;
    const silent = Math.hypot(...found.g) < 1e-6;
    const now = silent ? ` This loss, a = ${pair(a)}, sends nothing: it has no gradient.`
      : ` This loss, a = ${pair(a)}, ${value > 0 ? "descends" : value < 0 ? "climbs" : "neither descends nor climbs"}: ⟨∇, −p⟩ = ${say(value)}.`;
    if (alike) {
      return `The two rows point the same way, so a single direction arrives. ${holds() ? "Certified for every loss with a gradient."
        : "It lies in the spot, or on its edge: not certified."}${now}`;
    }
    if (!spot) return `Certified for every loss, with this head and with any other: there is no spot.${now}`;
    const size = `The spot is there, ${percent(share)} of all directions`;
    if (holds()) return `Certified for every loss. ${size}, but nothing that arrives lies in it: the blue line passes it by.${now}`;
    if (K.values[0] > -SAME) return `Not certified. ${size}, and the blue line touches it.${now}`;
    return `Not certified: JFB climbs for a = ${pair(K.vectors[0])}, and for ${percent(climbing)} of all losses. ${size}, and the ` +
      `blue line crosses it.${now}`;
  }

  draw();
}

// The seen half of the great circle at right angles to a normal, from edge to edge, in the frame of the eye.
function circle([x, y, z]) {
  const flat = Math.hypot(x, y), from = flat > 1e-9 ? [-y / flat, x / flat, 0] : [1, 0, 0];
  let over = cross([x, y, z], from);
  if (over[2] < 0) over = over.map((value) => -value);
  const turns = flat > 1e-9 ? 240 : 480; // seen from above, the whole of it is the edge
  return Array.from({ length: turns + 1 }, (_, i) => sum(Math.cos((i * Math.PI) / 240), from, Math.sin((i * Math.PI) / 240), over));
}

// The part of a spot that is seen, as a path; `side` tells the two apart. Where the edge of the ball cuts it, it ends there.
function outline({ middle, axes: [one, two] }, side) {
  const size = 332 / 2.4, [cx, cy] = [56 + 166, 24 + 166];
  const rim = Array.from({ length: 360 }, (_, i) => {
    const t = i * DEGREE;
    return seen(unit(sum(side, middle, 1, sum(Math.cos(t), one, Math.sin(t), two))));
  });
  const path = (points) => `M${points.map(([x, y]) => `${(cx + size * x).toFixed(2)},${(cy - size * y).toFixed(2)}`).join("L")}Z`;
  if (rim.every((point) => point[2] >= 0)) return path(rim);
  const begin = rim.findIndex((point, i) => point[2] >= 0 && rim[(i + 359) % 360][2] < 0);
  if (begin < 0) return "";
  const at = (i) => rim[(begin + i + 360) % 360];
  // the place on the edge between a point that is seen and one that is not
  const edge = (p, q) => unit(sum(q[2] / (q[2] - p[2]), p, -p[2] / (q[2] - p[2]), q));
  const points = [edge(at(0), at(-1))];
  let n = 0;
  while (at(n)[2] >= 0) points.push(at(n++));
  points.push(edge(at(n - 1), at(n)));
  // back along the edge of the ball, the short way: the spot is narrower than half of the sphere
  const last = points.at(-1), first = points[0], from = Math.atan2(last[1], last[0]);
  let turn = Math.atan2(first[1], first[0]) - from;
  turn -= 2 * Math.PI * Math.round(turn / (2 * Math.PI));
  const on = (t) => [Math.cos(t), Math.sin(t), 0];
  for (let i = 1; i < 60; i++) points.push(on(from + (turn * i) / 60));
  return path(points);
}

const diamond = (x, y) => `M${x - 8},${y}L${x},${y - 8}L${x + 8},${y}L${x},${y + 8}Z`;

// A line of the list, told by its sign and its word as well as by its colour.
function lamp(list, text) {
  const line = html("li", {}, list), sign = html("strong", {}, line), rest = html("span", {}, line);
  return (holds, numbers) => {
    sign.textContent = holds ? "✓ yes" : "✗ no";
    sign.style.color = `var(--jfb-${holds ? "green" : "red"})`;
    rest.textContent = ` – ${text}: ${numbers}`;
  };
}
