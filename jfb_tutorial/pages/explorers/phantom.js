// Phantom gradients of k terms and damping λ against the true gradient. J is normal on R²⁴: twelve blocks [[a, −b], [b, a]]
// with a = γ cos θ and b = γ (1 − symmetry) sin θ, so that its eigenvalues are μ = a ± ib; those of B = λJ + (1 − λ)I are
// β = λμ + 1 − λ. With a diagonal M of κ(MᵀM) = κ and an adjoint w, the true gradient is M w, the phantom one M (w − w Bᵏ).
// MOST: k goes from 1 to MOST, λ from 1/MOST to 1. SAME: numbers closer than this are called equal. REACH: how far from
// the selected cell, in pixels of the screen, a finger still grasps it; elsewhere a stroke scrolls the page, a tap selects.
const BLOCKS = 12, MOST = 20, SAME = 1e-9, REACH = 22, INK = "#111", CHALK = "#fff";

// In w Bᵏ a row vector stands before a matrix: (p, q) [[a, −b], [b, a]] = (pa + qb, qa − pb), so the complex number p + iq is
// multiplied by a − ib. (A column would be multiplied by a + ib.)
const angles = Array.from({ length: BLOCKS }, (_, j) => (Math.PI * (j + 0.5)) / BLOCKS);
const adjoint = Array.from({ length: 2 * BLOCKS }, (_, i) => {
  const hash = Math.sin(12.9898 * (i + 1)) * 43758.5453;
  return hash - Math.floor(hash) - 0.5;
});
const damped = (row) => row / MOST; // λ of a row of the map, counted from 1 at the bottom
const spectrum = (gamma, symmetry) =>
  angles.map((angle) => [gamma * Math.cos(angle), gamma * (1 - symmetry) * Math.sin(angle)]);
const pulled = (mu, lambda) => mu.map(([a, b]) => [lambda * a + 1 - lambda, lambda * b]);

// For each row and each k: the cosine and ‖Bᵏ‖ = max |β|ᵏ.
function measure(gamma, symmetry, kappa) {
  const mu = spectrum(gamma, symmetry);
  const weight = adjoint.map((_, i) => kappa ** ((7 * i) % 24 / 23)); // mᵢ²
  return Array.from({ length: MOST }, (_, row) => {
    const beta = pulled(mu, damped(row + 1)), norm = Math.max(...beta.map(([a, b]) => Math.hypot(a, b)));
    const rest = [...adjoint]; // w Bᵏ
    return Array.from({ length: MOST }, (_, k) => {
      let inner = 0, square = 0, size = 0;
      beta.forEach(([a, b], j) => {
        const p = rest[2 * j], q = rest[2 * j + 1];
        rest[2 * j] = p * a + q * b;
        rest[2 * j + 1] = q * a - p * b;
      });
      adjoint.forEach((w, i) => {
        const phantom = w - rest[i];
        inner += weight[i] * w * phantom;
        square += weight[i] * phantom * phantom;
        size += weight[i] * w * w;
      });
      return { cosine: Math.min(inner / Math.sqrt(square * size), 1), norm: norm ** (k + 1) };
    });
  });
}

// The colour of a cosine: from blue at 1 over near white to vermilion at 0 and below, in even steps of the angle. The same in
// both themes. A dot on it is white where the ground is dark, and black where it is light, and so always in sight.
const SCALE = [[0, 114, 178], [245, 245, 240], [192, 74, 0]];
const along = (cosine) => (Math.acos(Math.min(Math.max(cosine, 0), 1)) / Math.PI) * 4;
function tint(cosine) {
  const at = along(cosine), [from, to] = at < 1 ? [0, 1] : [1, 2];
  const mixed = SCALE[from].map((value, i) => Math.round(value + (SCALE[to][i] - value) * (at - from)));
  return `rgb(${mixed.join(", ")})`;
}
const pen = (cosine) => (Math.abs(along(cosine) - 1) > 0.85 ? CHALK : INK);

function start(root, { k, damping, gamma, symmetry, kappa }) {
  let row = Math.round(damping * MOST), note = "", found = null;
  const stage = root.querySelector(".jfb-stage"), controls = root.querySelector(".jfb-controls");
  const words = root.querySelector(".jfb-words");
  const [left, right] = [0, 1].map(() => html("div", { style: "flex: 1 1 17rem; min-width: 0; max-width: 30rem" }, stage));
  const map = axes(left, { x: [0.5, MOST + 0.5], y: [0.5, MOST + 0.5], xticks: [1, 5, 10, 15, 20],
    yticks: [4, 8, 12, 16, 20].map((at) => [at, say(damped(at))]), xlabel: "k terms", ylabel: "damping λ",
    title: "cosine with the true gradient" });
  const plane = axes(right, { x: [-1.15, 1.15], y: [-1.15, 1.15], xticks: [-1, 0, 1], yticks: [-1, 0, 1],
    xlabel: "Re", ylabel: "Im", title: "how damping moves the spectrum" });

  const wide = map.X(2) - map.X(1), high = map.Y(1) - map.Y(2);
  const corner = (at, line) => ({ x: map.X(at) - wide / 2, y: map.Y(line) - high / 2 });
  const ground = svg("g", { class: "jfb-cells", "shape-rendering": "crispEdges" }, map.root);
  const signs = svg("g", { class: "jfb-signs", "stroke-width": 1.6, visibility: "hidden" }, map.root);
  const lines = Array.from({ length: MOST }, (_, i) => i + 1);
  const cells = lines.map((line) => lines.map((at) => ({
    tile: svg("rect", { ...corner(at, line), width: wide, height: high }, ground),
    sign: svg("circle", { cx: map.X(at), cy: map.Y(line), r: 3.3 }, signs),
  })));
  const edge = { ...corner(1, MOST), width: MOST * wide, height: MOST * high };
  svg("rect", { ...edge, class: "jfb-axis" }, map.root);
  label(map, "JFB")(map.X(1), 14).style.fontWeight = "700";
  svg("path", { d: `M${map.X(1) - 4},17h8l-4,6z`, fill: "currentColor" }, map.root);
  const frame = svg("g", { class: "jfb-frame", fill: "none" }, map.root);
  // around the cell, so that its colour and its dot stay in sight
  for (const [stroke, out, width] of [["#fff", 4.2, 1.6], [INK, 1.8, 3.6]]) {
    const size = { x: -wide / 2 - out, y: -high / 2 - out, width: wide + 2 * out, height: high + 2 * out };
    svg("rect", { ...size, stroke, "stroke-width": width }, frame);
  }
  const focus = svg("rect", { x: edge.x - 4, y: edge.y - 4, width: edge.width + 8, height: edge.height + 8, rx: 3,
    fill: "none", stroke: "var(--jfb-blue)", "stroke-width": 3.5, visibility: "hidden" }, map.root);

  // The legend stands under the map, as wide as it.
  const legend = svg("svg", { viewBox: "0 0 400 36", "aria-hidden": "true", focusable: "false" }, left);
  const bar = svg("g", { class: "jfb-scale", "shape-rendering": "crispEdges" }, legend), parts = 60;
  const place = (cosine) => edge.x + edge.width * (1 - along(cosine) / 2);
  for (let i = 0; i < parts; i++) {
    const fill = tint(Math.sin(((i + 0.5) / parts) * (Math.PI / 2)));
    svg("rect", { x: edge.x + (i * edge.width) / parts, y: 2, width: edge.width / parts + 0.5, height: 11, fill }, bar);
  }
  for (const [cosine, text] of [[0, "≤ 0"], [0.5, "0.5"], [0.8, "0.8"], [0.95, "0.95"], [1, "1"]]) {
    svg("path", { class: "jfb-axis", d: `M${place(cosine)},2v13` }, legend);
    svg("text", { x: place(cosine), y: 32, "text-anchor": "middle" }, legend, text);
  }
  const key = (parent, texts) => {
    const line = html("p", { class: "jfb-key", style: "margin: .2em 0 .4em; font-size: .875em; line-height: 1.45" }, parent);
    for (const text of texts) {
      html("span", { style: "display: inline-block; margin-right: 1em" }, line, text);
      line.append(" ");
    }
    return line;
  };
  const dots = key(left, ["● paper's condition holds", "○ only the sharp one does"]);
  key(right, ["○ eigenvalues of J", "● of B, pulled towards 1", "┄ radius ‖B‖"]);

  const over = plane.layer();
  const disc = (radius) => ({ cx: plane.X(0), cy: plane.Y(0), r: radius * (plane.X(1) - plane.X(0)) });
  const cross = plane.line([[-9, 0], [9, 0]]) + plane.line([[0, -9], [0, 9]]);
  svg("path", { d: cross, class: "jfb-axis", "stroke-opacity": 0.5 }, over);
  svg("circle", { ...disc(1), fill: "var(--jfb-fill)", stroke: "var(--jfb-grey)", "stroke-width": 1.5 }, over);
  const bound = svg("circle", { ...disc(1), class: "jfb-bound", fill: "none", stroke: "var(--jfb-blue)", "stroke-width": 1.6,
    "stroke-dasharray": "6 4" }, over);
  const ways = svg("path", { stroke: "var(--jfb-grey)", "stroke-width": 1 }, over);
  const before = svg("g", { class: "jfb-mu", fill: "none", stroke: "var(--jfb-red)", "stroke-width": 1.6 }, over);
  const after = svg("g", { class: "jfb-beta", fill: "var(--jfb-blue)" }, over);
  svg("path", { d: `M${plane.X(1) - 7},${plane.Y(0)}h14m-7,-7v14`, stroke: "currentColor", "stroke-width": 2 }, over);
  // the drawing shrinks on a phone, its letters less
  const letters = "clamp(15px, 15px + (480px - 100vw) / 40, 18px)";
  for (const text of stage.querySelectorAll("svg text")) text.style.fontSize = letters;

  const near = (value) => Math.min(Math.max(Math.round(value), 1), MOST);
  const select = (at, line, remark = "") => {
    [at, line] = [near(at), near(line)];
    if (at === k && line === row && remark === note) return;
    [k, row, note] = [at, line, remark];
    draw();
  };
  const change = (how) => { how(); note = ""; found = null; draw(); };
  const hit = hold(map, edge, focus, () => [k, row], select);

  const neat = (value, digits) => (Math.abs(value - value.toFixed(digits)) < SAME ? value.toFixed(digits) : say(value, 4));
  const showK = slider(controls, { name: "k", min: 1, max: MOST, step: 1, change: (value) => select(value, row),
    text: (value) => `k = ${value}` });
  const showDamping = slider(controls, { name: "damping", min: damped(1), max: 1, step: damped(1),
    change: (value) => select(k, value * MOST), text: (value) => `λ = ${value.toFixed(2)}` });
  const showSymmetry = slider(controls, { name: "symmetry", min: 0, max: 1, step: 0.05,
    change: (value) => change(() => { symmetry = value; }), text: (value) => `symmetry ${neat(value, 2)}` });
  buttons(controls, {
    "JFB": () => select(1, MOST),
    "best λ for this k": () => select(k, best(k, lines).line),
  });
  // What a first reading does without: the size and the conditioning, and the conditions on them with their dots.
  const more = html("details", { class: "jfb-conditions" }, controls);
  html("summary", {}, more, "More: the conditions, γ and κ");
  more.addEventListener("toggle", () => draw());
  const showGamma = slider(more, { name: "gamma", min: 0, max: 0.99, step: 0.01,
    change: (value) => change(() => { gamma = value; }), text: (value) => `γ = ${neat(value, 2)}` });
  // logarithmic: the slider has log₁₀ κ
  const showKappa = slider(more, { name: "kappa", min: 0, max: 2, step: 0.02,
    change: (value) => change(() => { kappa = Number((10 ** value).toPrecision(3)); }), text: () => `κ = ${say(kappa, 4)}` });
  const sharp = () => (2 * Math.sqrt(kappa)) / (1 + kappa);
  buttons(more, {
    "fewest products with the sharp condition": () => {
      for (const at of lines) {
        const rows = lines.filter((line) => found[line - 1][at - 1].norm < sharp() - SAME);
        if (rows.length) return select(at, best(at, rows).line);
      }
      select(k, row, "No cell up to k = 20 satisfies the sharp condition; the selection stays.\n");
    },
  });
  words.style.whiteSpace = "pre-line";
  words.style.minHeight = "3em";
  const fill = table(root.querySelector(".jfb-more"), "The numbers in a table", ["what", "value"]);

  // The row of the largest cosine; of equal ones the one with the least damping.
  function best(at, rows) {
    const cosines = rows.map((line) => found[line - 1][at - 1].cosine), most = Math.max(...cosines);
    const equal = rows.filter((_, i) => cosines[i] > most - SAME);
    return { line: equal[equal.length - 1], most, all: equal.length === MOST };
  }

  function draw() {
    if (!found) {
      found = measure(gamma, symmetry, kappa);
      cells.forEach((line, i) => line.forEach(({ tile, sign }, j) => {
        const { cosine, norm } = found[i][j], holds = norm < 1 / kappa - SAME;
        tile.setAttribute("fill", tint(cosine));
        sign.setAttribute("fill", holds ? pen(cosine) : "none");
        sign.setAttribute("stroke", pen(cosine));
        sign.setAttribute("visibility", norm < sharp() - SAME ? "inherit" : "hidden");
      }));
    }
    const { cosine, norm } = found[row - 1][k - 1], lambda = damped(row), top = best(k, lines);
    frame.setAttribute("transform", `translate(${map.X(k)} ${map.Y(row)})`);
    signs.setAttribute("visibility", more.open ? "visible" : "hidden");
    dots.hidden = !more.open;

    const mu = spectrum(gamma, symmetry), beta = pulled(mu, lambda);
    const both = (list) => list.flatMap(([a, b]) => [[a, b], [a, -b]]);
    const spots = (list, r) => both(list).map(([a, b]) => svg("circle", { cx: plane.X(a), cy: plane.Y(b), r }));
    before.replaceChildren(...spots(mu, 5));
    after.replaceChildren(...spots(beta, 3.2));
    ways.setAttribute("d", both(mu).map((from, i) => plane.line([from, both(beta)[i]])).join(""));
    bound.setAttribute("r", disc(found[row - 1][0].norm).r);

    showK(k);
    showDamping(lambda);
    showGamma(gamma);
    showSymmetry(symmetry);
    showKappa(Math.log10(kappa));
    hit.setAttribute("aria-valuenow", k);
    hit.setAttribute("aria-valuetext", `k = ${k}, λ = ${lambda.toFixed(2)}, cosine ${close(cosine)}`);

    const power = `‖B${ten(k).slice(2)}‖`, spent = `${k - 1} ${k === 2 ? "product" : "products"}`;
    const bounds = [["Paper's", "1/κ", 1 / kappa], ["Sharp", "2√κ/(1+κ)", sharp()]].map(([name, text, value]) =>
      ({ name, text, value, holds: norm < value - SAME }));
    const verdicts = bounds.map(({ name, text, value, holds }) =>
      `${holds ? "✓" : "✗"} ${name} condition ${holds ? "holds" : "fails"}: ${compare(power, norm, text, value, holds)}.\n`);
    const praise = top.all ? `For k = ${k} every λ has this cosine${k === 1 ? ": damping only scales a single term" : ""}.`
      : top.line === row ? `Of the 20 λ this one is best for k = ${k}.`
        : `Best of the 20 λ for k = ${k}: λ = ${damped(top.line).toFixed(2)}, with the cosine ${close(top.most, cosine)}.`;
    const here = `k = ${k}, λ = ${lambda.toFixed(2)}: the cosine is ${close(cosine, top.most)}, for ${spent}.\n`;
    words.textContent = note + here + (more.open ? verdicts.join("") : "") + praise;
    fill([
      ["cosine", six(cosine)],
      ["products, k − 1", k - 1],
      ["‖Bᵏ‖", six(norm)],
      ...bounds.flatMap(({ name, text, value, holds }) => [
        [`${text}, bound of the ${name.toLowerCase()} condition`, six(value)],
        [`${name} condition`, holds ? "✓ holds" : "✗ fails"],
      ]),
      ["best λ for this k", damped(top.line).toFixed(2)],
      ["cosine with the best λ", six(top.most)],
    ]);
  }

  draw();
}

// Six significant digits, of a small number too.
function six(value) {
  if (value === 0 || Math.abs(value) >= 1e-3) return say(value, 6);
  const [mantissa, exponent] = value.toExponential(5).split("e");
  return `${mantissa.replace("-", "−")}·${ten(Number(exponent))}`;
}

// A cosine, with as many digits as it takes to tell it from 1 and from another one.
function close(cosine, other = cosine) {
  const differ = (a, b, digits) => Math.abs(a - b) < SAME || say(a, digits) !== say(b, digits);
  let digits = 3;
  while (digits < 9 && !(differ(cosine, 1, digits) && differ(cosine, other, digits))) digits++;
  return say(cosine, digits);
}

// A norm and its bound and how they compare, with as many digits as it takes to tell them apart.
function compare(name, norm, text, bound, less) {
  let digits = 3;
  while (digits < 9 && Math.abs(norm - bound) > SAME && say(norm, digits) === say(bound, digits)) digits++;
  const sign = less ? "<" : say(norm, digits) === say(bound, digits) ? "=" : ">";
  // a word joiner: no line ends within a fraction
  return `${name} = ${say(norm, digits)} ${sign} ${text.replace("/", "/\u2060")} = ${say(bound, digits)}`;
}

// Makes the map a slider of two dimensions: the mouse drags anywhere, a finger from the selected cell on, a tap selects,
// and so do the arrow keys. Returns what has the focus.
function hold(map, edge, focus, get, select) {
  const state = { class: "jfb-map", fill: "transparent", tabindex: 0, role: "slider", "aria-roledescription": "map",
    "aria-label": "selected cell of the map: arrow keys change k and λ", "aria-valuemin": 1, "aria-valuemax": MOST,
    style: "cursor: crosshair; outline: none" };
  const hit = svg("rect", { ...edge, ...state }, map.root);
  let dragged = null; // a pointer; every finger is captured, not every finger drags
  // The drawing shows nothing to a screen reader but that.
  map.root.removeAttribute("aria-hidden");
  map.root.setAttribute("role", "group");
  map.root.setAttribute("aria-label", "map of k and λ");
  for (const node of map.root.children) if (node !== hit) node.setAttribute("aria-hidden", "true");
  const show = () => focus.setAttribute("visibility", hit.matches(":focus-visible") ? "visible" : "hidden");
  const reached = ({ clientX, clientY }) => {
    const [k, row] = get();
    const at = new DOMPoint(map.X(k), map.Y(row)).matrixTransform(map.root.getScreenCTM());
    return Math.max(Math.abs(at.x - clientX), Math.abs(at.y - clientY)) <= REACH;
  };
  hit.addEventListener("focus", show);
  hit.addEventListener("blur", show);
  hit.addEventListener("pointerdown", (event) => {
    if (event.button || !(event.pointerType === "mouse" || reached(event))) return;
    event.preventDefault();
    hit.setPointerCapture(event.pointerId);
    dragged = event.pointerId;
    hit.focus({ preventScroll: true });
    select(...map.locate(event));
  });
  hit.addEventListener("pointermove", (event) => {
    if (event.pointerId === dragged) select(...map.locate(event));
  });
  hit.addEventListener("lostpointercapture", () => { dragged = null; });
  hit.addEventListener("click", (event) => {
    hit.focus({ preventScroll: true });
    select(...map.locate(event));
  });
  hit.addEventListener("touchstart", (event) => {
    if (event.touches.length === 1 && reached(event.touches[0])) event.preventDefault();
  }, { passive: false });
  hit.addEventListener("keydown", (event) => {
    const [k, row] = get();
    const cells = { ArrowRight: [k + 1, row], ArrowLeft: [k - 1, row], ArrowUp: [k, row + 1], ArrowDown: [k, row - 1],
      PageUp: [k, row + 5], PageDown: [k, row - 5], Home: [1, row], End: [MOST, row] };
    if (event.altKey || event.ctrlKey || event.metaKey || !(event.key in cells)) return;
    select(...cells[event.key]);
    event.preventDefault();
    show();
  });
  return hit;
}
