// JFB's direction p in a plane of parameters. B = diag(√κ, 1); the gradient is ∇ = B w for a unit vector w, and
// p = −∇ + γ B e, where γ e = wJ is all that matters of the Jacobian J. SAME: numbers closer than this are called equal.
// ROOM: half the width of the drawing over what the ellipse needs.
// DOT: the radius of a grip's dot, smaller than elsewhere: what lies beyond the line can be narrow.
const SAME = 1e-9, ROOM = 1.1, DOT = 6.5, DEGREE = Math.PI / 180;

function start(root, { angle, turn, gamma, kappa }) {
  const stage = root.querySelector(".jfb-stage"), controls = root.querySelector(".jfb-controls");
  const words = root.querySelector(".jfb-words");
  const plot = axes(stage, { x: [-1, 1], y: [-1, 1], xticks: [0], yticks: [0], xlabel: "θ₁", ylabel: "θ₂",
    title: "shaded: descent; ellipse: every p" });
  const ends = [-1, 1].map((sign) => [sign, label(plot, ""), label(plot, "")]);

  const hatch = unique("hatch");
  const pattern = svg("pattern", { id: hatch, width: 6, height: 6, patternUnits: "userSpaceOnUse",
    patternTransform: "rotate(45)" }, svg("defs", {}, plot.root));
  svg("rect", { width: 6, height: 6, fill: "var(--jfb-red)", "fill-opacity": 0.16 }, pattern);
  svg("path", { d: "M3,0V6", stroke: "var(--jfb-red)", "stroke-width": 1.8 }, pattern);
  const over = plot.layer();
  const drawn = (name, more) => svg("path", { class: `jfb-${name}`, fill: "none", ...more }, over);
  const side = drawn("side", { fill: "var(--jfb-fill)" });
  drawn("axis", { d: plot.line([[-1, 0], [1, 0]]) + plot.line([[0, -1], [0, 1]]), "stroke-opacity": 0.5 });
  const ellipse = drawn("ellipse", { stroke: "var(--jfb-grey)", "stroke-width": 2, fill: "var(--jfb-grey)", "fill-opacity": 0.16 });
  const beyond = drawn("beyond", { stroke: "var(--jfb-red)", "stroke-width": 2, fill: `url(#${hatch})` });
  const edge = drawn("edge", { stroke: "currentColor", "stroke-width": 1.6, "stroke-dasharray": "2 4" });
  const arrows = ["var(--jfb-blue)", "var(--jfb-p)"].map((color, i) => ({
    shaft: drawn(i ? "p" : "gradient", { stroke: color, "stroke-width": 3.6 }), head: drawn("head", { fill: color }) }));
  const names = { edge: label(plot, "no change"), gradient: label(plot, "−gradient"), p: label(plot, "p") };
  names.gradient(0, 0).style.fill = "var(--jfb-blue)";
  names.p(0, 0).style.fill = "var(--jfb-p)";
  // the drawing shrinks on a phone, its letters less
  for (const text of plot.root.querySelectorAll("text")) text.style.fontSize = "clamp(15px, 15px + (480px - 100vw) / 40, 18px)";

  // Whole degrees, as the sliders have them; a grip may go round and round.
  const whole = (degrees) => ((Math.round(degrees) % 360) + 360) % 360;
  const set = (change) => { change(); draw(); };
  const setAngle = (degrees) => set(() => { angle = degrees; }), setTurn = (degrees) => set(() => { turn = degrees; });
  // half the width: the drawing holds the ellipse and no more, so that a narrow one is not drawn small in a wide room
  const wide = () => {
    const [x, y] = image(angle).map(Math.abs);
    return ROOM * Math.max(x + gamma * Math.sqrt(kappa), y + gamma, 1);
  };
  // where B sends the unit vector of a direction, and the direction that it sends to (x, y)
  const image = (degrees) => {
    const [cosine, sine] = [Math.cos, Math.sin].map((f) => Number(f(degrees * DEGREE).toFixed(15)));
    return [Math.sqrt(kappa) * cosine, sine];
  };
  const source = (x, y) => Math.atan2(y, x / Math.sqrt(kappa)) / DEGREE;
  const placeGradient = grip(plot, "var(--jfb-blue)", (x, y) => setAngle(whole(source(-x, -y))));
  const placeP = grip(plot, "var(--jfb-p)", (x, y) => {
    const [gx, gy] = image(angle);
    setTurn(whole(source(x * wide() + gx, y * wide() + gy)));
  });

  // The drawing shows nothing to a screen reader but its two grips, which are sliders too.
  plot.root.removeAttribute("aria-hidden");
  plot.root.setAttribute("role", "group");
  plot.root.setAttribute("aria-label", "two grips in the drawing");
  const [holdGradient, holdP] = plot.root.querySelectorAll(".jfb-handle");
  for (const node of plot.root.children) if (node !== holdGradient && node !== holdP) node.setAttribute("aria-hidden", "true");
  for (const hold of [holdGradient, holdP]) hold.lastChild.setAttribute("r", DOT);
  keys(holdGradient, "tip of −gradient", () => angle, (degrees) => setAngle(whole(degrees)));
  keys(holdP, "tip of p", () => turn, (degrees) => setTurn(whole(degrees)));

  const neat = (value, digits) => (Math.abs(value - value.toFixed(digits)) < SAME ? value.toFixed(digits) : say(value, 4));
  const told = (name, value, digits, unit = "") => `${name} = ${neat(Number(value), digits)}${unit}`;
  const sayAngle = (value) => told("angle of w", value, 0, "°"), sayTurn = (value) => told("turn of wJ", value, 0, "°");
  const showGamma = slider(controls, { name: "gamma", min: 0, max: 0.99, step: 0.01,
    change: (value) => set(() => { gamma = value; }), text: (value) => told("γ", value, 2) });
  const showKappa = slider(controls, { name: "kappa", min: 1, max: 20, step: 0.1,
    change: (value) => set(() => { kappa = value; }), text: (value) => told("κ", value, 1) });
  const showAngle = slider(controls, { name: "angle", min: 0, max: 360, step: 1, change: setAngle, text: sayAngle });
  const showTurn = slider(controls, { name: "turn", min: 0, max: 360, step: 1, change: setTurn, text: sayTurn });
  for (const text of controls.querySelectorAll("label")) text.style.flexBasis = "11em";
  words.style.minHeight = "5.5em";
  // The worst wJ points along wG = B ∇.
  const worstTurn = () => { const [x, y] = image(angle); return (Math.atan2(y, Math.sqrt(kappa) * x) / DEGREE + 360) % 360; };
  buttons(controls, {
    "worst gradient": () => setAngle(Math.atan(Math.sqrt(kappa)) / DEGREE),
    "worst Jacobian": () => setTurn(worstTurn()),
  });
  const list = html("ul", { class: "jfb-lamps", style: "list-style: none; margin: .5em 0; padding: 0" });
  stage.after(list);
  const lamps = ["Assumption 3.3: κ < 1/γ", "sharp: γ < 2√κ/(1+κ)",
    "every Jacobian of norm ≤ γ descends for this gradient"].map((text) => lamp(list, text));
  const fill = table(root.querySelector(".jfb-more"), "The numbers in a table", ["what", "value"]);

  function draw() {
    const gradient = image(angle), reach = image(turn).map((value) => gamma * value);
    const down = gradient.map((value) => -value), p = down.map((value, i) => value + reach[i]);
    const slope = zero(gradient[0] * p[0] + gradient[1] * p[1]), steep = Math.hypot(...gradient);
    // ⟨w, wG⟩ = ‖∇‖² and wG = B∇
    const every = steep ** 2 / Math.hypot(Math.sqrt(kappa) * gradient[0], gradient[1]);
    const sharp = (2 * Math.sqrt(kappa)) / (1 + kappa);

    const scaled = (point) => point.map((value) => value / wide());
    const pixel = (point) => scaled(point).map((value, i) => (i ? plot.Y(value) : plot.X(value)));
    const unit = wide() < 3 ? 1 : wide() < 6 ? 2 : 4;
    for (const [sign, below, beside] of ends) {
      below(pixel([sign * unit, 0])[0], plot.Y(-1) + 18).textContent = say(sign * unit);
      beside(plot.X(-1) - 7, pixel([0, sign * unit])[1] + 5, "end").textContent = say(sign * unit);
    }
    const [nx, ny] = gradient.map((value) => value / steep);
    const far = [[-9 * ny, 9 * nx], [9 * ny, -9 * nx]];
    edge.setAttribute("d", plot.line(far));
    side.setAttribute("d", plot.line([...far, [9 * (ny - nx), -9 * (nx + ny)], [-9 * (ny + nx), 9 * (nx - ny)]]) + "Z");
    const rim = (degrees) => image(degrees).map((value, i) => down[i] + gamma * value);
    const arc = (low, high) => Array.from({ length: 181 }, (_, i) => rim(low + ((high - low) * i) / 180));
    const round = gamma ? arc(0, 360) : [];
    ellipse.setAttribute("d", plot.line(round.map(scaled)));
    // beyond the line lie the directions within `half` of the worst one
    const half = every < gamma - SAME ? Math.acos(every / gamma) / DEGREE : 0, worst = worstTurn();
    beyond.setAttribute("d", half ? plot.line(arc(worst - half, worst + half).map(scaled)) + "Z" : "");
    plot.root.style.setProperty("--jfb-p", slope < 0 ? "var(--jfb-green)" : "var(--jfb-red)");
    arrows[1].shaft.setAttribute("stroke-dasharray", slope < 0 ? "none" : "5 3");
    const zeroAt = pixel([0, 0]), downAt = pixel(down), pAt = pixel(p);
    arrow(arrows[0], zeroAt, downAt);
    arrow(arrows[1], zeroAt, pAt);
    placeGradient(...scaled(down));
    placeP(...scaled(p));
    // grips that come close share the room between them; where one covers the other, the pointer has the gradient's
    const apart = Math.hypot(downAt[0] - pAt[0], downAt[1] - pAt[1]);
    for (const hold of [holdGradient, holdP]) hold.firstChild.setAttribute("r", Math.min(22, Math.max(DOT, apart / 2)));
    holdP.style.pointerEvents = apart < DOT ? "none" : "";
    holdGradient.setAttribute("aria-valuenow", Math.round(angle));
    holdGradient.setAttribute("aria-valuetext", sayAngle(angle));
    holdP.setAttribute("aria-valuenow", Math.round(turn));
    holdP.setAttribute("aria-valuetext", sayTurn(turn));
    nameAll(zeroAt, downAt, pAt, round.map(pixel), nx, ny);

    showGamma(gamma);
    showKappa(kappa);
    showAngle(angle);
    showTurn(turn);
    const holds = [kappa * gamma < 1 - SAME, gamma < sharp - SAME, gamma < every - SAME];
    lamps[0](holds[0], compare("", kappa, 1 / gamma, holds[0]));
    lamps[1](holds[1], compare("", gamma, sharp, holds[1]));
    lamps[2](holds[2], compare("γ", gamma, every, holds[2], "c(w)"));
    words.textContent = sentence(slope, Math.abs(gamma - every) < SAME, holds);
    const pair = (vector) => `(${vector.map((value) => say(zero(value), 6)).join(", ")})`;
    const length = Math.hypot(...p);
    fill([
      ["gradient ∇", pair(gradient)],
      ["JFB's direction p", pair(p)],
      ["⟨∇, p⟩", say(slope, 6)],
      ["cosine between −∇ and p", length > SAME ? say(zero(-slope / steep / length), 6) : "none, p is 0"],
      ["c(w), the cosine between w and wG", say(every, 6)],
      ["least c(w) of all w, 2√κ/(1+κ)", say(sharp, 6)],
      ["1/γ", say(1 / gamma, 6)],
    ]);
  }

  // The name of the line runs along it, beyond the ellipse; the arrows' names are where there is room, all in pixels.
  function nameAll(zeroAt, downAt, pAt, round, nx, ny) {
    const up = nx < 0 || (nx === 0 && ny > 0) ? [ny, nx] : [-ny, -nx], half = plot.X(1) - zeroAt[0];
    const letter = parseFloat(getComputedStyle(names.p(0, 0)).fontSize) / 15 || 1;
    const [across, upward] = up.map(Math.abs), margin = 20 * letter;
    const out = Math.min((half - margin * upward) / across, (half - margin * across) / upward) - 38 * letter;
    const [x, y] = [zeroAt[0] + out * up[0] + 12 * nx, zeroAt[1] + out * up[1] - 12 * ny];
    const tilt = Math.atan2(up[1], up[0]) / DEGREE;
    names.edge(0, 5).setAttribute("transform", `translate(${x} ${y}) rotate(${up[0] < 0 ? tilt + 180 : tilt})`);
    const between = (a, b, n) =>
      Array.from({ length: n + 1 }, (_, i) => a.map((value, j) => value + ((b[j] - value) * i) / n));
    const ring = ([cx, cy]) => Array.from({ length: 8 }, (_, i) => [cx + DOT * Math.cos(i), cy + DOT * Math.sin(i)]);
    const along = [-34, -17, 0, 17, 34].map((s) => [x + s * up[0], y + s * up[1]]);
    const things = [
      [3, [...between(zeroAt, downAt, 24), ...between(zeroAt, pAt, 24), ...ring(downAt), ...ring(pAt), ...along]],
      [0.8, round],
      [0.4, between(...[-300, 300].map((s) => zeroAt.map((value, i) => value + s * up[i])), 100)],
    ];
    const free = (place, at, width) => {
      const first = Math.atan2(at[1] - zeroAt[1], at[0] - zeroAt[0]);
      let best = null;
      for (let k = 0; k < 48; k++) {
        const turns = k % 16, more = 12 * Math.floor(k / 16);
        const way = first + (turns % 2 ? 1 : -1) * Math.ceil(turns / 2) * (Math.PI / 8);
        const cx = at[0] + Math.cos(way) * (13 + more + width / 2), cy = at[1] + Math.sin(way) * (20 * letter + more);
        const inside = ([a, b]) => Math.abs(a - cx) < width / 2 + 4 && Math.abs(b - cy) < 10 * letter;
        const outside = Math.max(0, Math.abs(cx - zeroAt[0]) + width / 2 - half, Math.abs(cy - zeroAt[1]) + 9 - half);
        let cost = outside + 0.1 * turns + 0.15 * more;
        for (const [weight, points] of things) cost += weight * points.filter(inside).length;
        if (best === null || cost < best.cost) best = { cost, cx, cy };
      }
      place(best.cx, best.cy + 5);
      for (const row of [-7, 0, 7].map((shift) => best.cy + shift * letter)) {
        things[0][1].push(...between([best.cx - width / 2, row], [best.cx + width / 2, row], 8));
      }
    };
    free(names.gradient, downAt, 68 * letter);
    free(names.p, pAt, 10 * letter);
  }

  function sentence(slope, touches, [assumed, sharp, every]) {
    const verdict = `⟨∇, p⟩ = ${say(slope)}: ${slope < 0 ? "descends" : slope > 0 ? "ascends" : "neither descends nor ascends"}. `;
    const whole = "the whole ellipse lies on the side of descent";
    if (gamma === 0) return `${verdict}With γ = 0 the ellipse is a point: p is −gradient itself.`;
    if (assumed) return `${verdict}Assumption 3.3 holds: for every gradient ${whole}.`;
    if (sharp) return `${verdict}Assumption 3.3 fails, but the sharp condition holds: for every gradient ${whole}.`;
    if (every) {
      return `${verdict}The sharp condition fails: for the worst gradient not every p descends. But for this one ${whole}.`;
    }
    if (touches) return `${verdict}The ellipse touches the line: every p descends but one, which neither descends nor ascends.`;
    return `${verdict}Part of the ellipse lies beyond the line: for this gradient some Jacobians of norm ≤ γ turn p uphill` +
      `${slope > 0 ? ", and this is one of them" : slope < 0 ? ", but not this one" : "; here p lies on the line itself"}.`;
  }

  draw();
}

const zero = (value) => (Math.abs(value) < SAME ? 0 : value);

// Two numbers and how they compare, with as many digits as it takes to tell them apart.
function compare(left, a, b, less, right = "") {
  let digits = 3;
  while (digits < 9 && Math.abs(a - b) > SAME && say(a, digits) === say(b, digits)) digits++;
  const name = (text, value) => `${text && `${text} = `}${say(value, digits)}`;
  return `${name(left, a)} ${less ? "<" : say(a, digits) === say(b, digits) ? "=" : ">"} ${name(right, b)}`;
}

// A line of the list, told by its sign and its word as well as by its colour.
function lamp(list, text) {
  const line = html("li", { style: "margin: .15em 0; padding-left: 1.5em; text-indent: -1.5em" }, list);
  const sign = html("strong", {}, line), rest = html("span", {}, line);
  return (holds, numbers) => {
    sign.textContent = holds ? "✓ yes" : "✗ no";
    sign.setAttribute("style", `color: var(--jfb-${holds ? "green" : "red"})`);
    rest.textContent = ` – ${text} (${numbers})`;
  };
}

// An arrow up to the grip at its tip, in units of the square.
function arrow({ shaft, head }, [x, y], [tx, ty]) {
  const length = Math.hypot(tx - x, ty - y), [ux, uy] = length ? [(tx - x) / length, (ty - y) / length] : [0, 0];
  const tip = Math.max(length - DOT, 0), neck = Math.max(tip - 12, 0), wing = (tip - neck) / 2;
  const at = (along, across) => `${(x + along * ux - across * uy).toFixed(2)},${(y + along * uy + across * ux).toFixed(2)}`;
  shaft.setAttribute("d", `M${at(0, 0)}L${at(neck, 0)}`);
  head.setAttribute("d", `M${at(tip, 0)}L${at(neck, wing)}L${at(neck, -wing)}Z`);
}

// Makes a grip a slider of an angle in whole degrees, with a ring that shows the focus of the keyboard.
function keys(hold, name, get, put) {
  const state = { tabindex: 0, role: "slider", "aria-label": name, "aria-valuemin": 0, "aria-valuemax": 360 };
  for (const [key, value] of Object.entries(state)) hold.setAttribute(key, value);
  hold.style.outline = "none";
  const ring = svg("circle", { r: 12, fill: "none", stroke: "var(--jfb-blue)", "stroke-width": 3, visibility: "hidden" }, hold);
  const show = () => ring.setAttribute("visibility", hold.matches(":focus-visible") ? "visible" : "hidden");
  hold.addEventListener("focus", show);
  hold.addEventListener("blur", show);
  hold.addEventListener("pointerdown", () => hold.focus({ preventScroll: true }));
  // Chromium overlooks `touch-action` in an SVG: without this a wide stroke to the right leads back in the history
  hold.addEventListener("touchstart", (event) => event.preventDefault(), { passive: false });
  hold.addEventListener("keydown", (event) => {
    const steps = { ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1, PageUp: 10, PageDown: -10 };
    if (event.altKey || event.ctrlKey || event.metaKey) return;
    if (event.key in steps) put(Math.round(get()) + steps[event.key]);
    else if (event.key === "Home") put(0);
    else if (event.key === "End") put(359);
    else return;
    event.preventDefault();
    show();
  });
}
