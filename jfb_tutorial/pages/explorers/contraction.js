// The map u ← A u of the plane, A = [[x, b], [−w, x]] with b = y + c and w = y²/b. Its eigenvalues are μ = x ± iy for every
// c; for c = 0 it is normal, and the larger c, the farther from it. SAME: numbers closer than this are called equal.
// WIDE: how far the drawing of the iterates may reach; it takes the least of these with room for path and ellipse.
const MOST = 40, SAME = 1e-9, WIDE = [1.3, 2.6, 4.6, 6.6], DEGREE = Math.PI / 180;

function start(root, { re: x, im: y, c, steps, angle }) {
  const stage = root.querySelector(".jfb-stage"), controls = root.querySelector(".jfb-controls");
  const words = root.querySelector(".jfb-words");
  const plane = axes(stage, { x: [-1.3, 1.3], y: [-1.3, 1.3], xticks: [-1, 0, 1], yticks: [-1, 0, 1],
    xlabel: "x = Re μ", ylabel: "y = Im μ", title: "the eigenvalues μ = x ± iy" });
  const space = axes(stage, { x: [-1, 1], y: [-1, 1], xticks: [0], yticks: [0],
    xlabel: "first component of u", ylabel: "second component of u", title: "the iterates uₖ; dashed: image of the circle" });
  const decades = axes(stage, { x: [0, MOST], y: [-4, 2], xticks: [0, 10, 20, 30, 40],
    yticks: [-4, -3, -2, -1, 0, 1, 2].map((n) => [n, ten(n)]), xlabel: "k", ylabel: "",
    title: "the distances ‖uₖ‖ / ‖u₀‖" });
  stage.append(controls);

  const round = Array.from({ length: 121 }, (_, i) => [Math.cos(3 * i * DEGREE), Math.sin(3 * i * DEGREE)]);
  const drawn = (plot, color, more) => svg("path", { fill: "none", stroke: color, "stroke-width": 2, ...more }, plot.over);
  for (const plot of [plane, space]) {
    plot.over = plot.layer();
    const cross = plot.line([[-9, 0], [9, 0]]) + plot.line([[0, -9], [0, 9]]);
    svg("path", { d: cross, class: "jfb-axis", "stroke-opacity": 0.5 }, plot.over);
    plot.circle = drawn(plot, "var(--jfb-grey)", { fill: "var(--jfb-fill)", "stroke-width": 1.5 });
  }
  plane.circle.setAttribute("d", plane.line(round));
  decades.over = decades.layer();
  svg("path", { d: decades.line([[0, 0], [MOST, 0]]), class: "jfb-axis", "stroke-opacity": 0.5 }, decades.over);
  const radius = drawn(plane, "var(--jfb-blue)", { "stroke-dasharray": "2 4" });
  const mirror = svg("circle", { r: 6, fill: "none", stroke: "var(--jfb-blue)", "stroke-width": 2 }, plane.over);
  const image = drawn(space, "var(--jfb-green)", { "stroke-dasharray": "7 4", "stroke-width": 1.6 });
  const axis = drawn(space, "var(--jfb-green)", { "stroke-width": 2.6 });
  const track = drawn(space, "var(--jfb-red)", { class: "jfb-track", "stroke-width": 1.4 });
  const dots = svg("g", { fill: "var(--jfb-red)" }, space.over);
  const bounds = { γ: drawn(decades, "var(--jfb-green)", { "stroke-dasharray": "7 4" }),
    ρ: drawn(decades, "var(--jfb-blue)", { "stroke-dasharray": "2 4" }) };
  const fall = drawn(decades, "var(--jfb-red)", { class: "jfb-fall", "stroke-width": 1.4 });
  const joints = svg("g", { fill: "var(--jfb-red)" }, decades.over);
  const ones = [-1, 1].map((one) => [one, label(space, say(one)), label(space, say(one))]);
  const names = { μ: label(plane, "μ"), ρ: label(plane, "ρ"), u: label(space, "u₀"), γ: label(space, "γ"),
    above: label(decades, "γᵏ"), below: label(decades, "ρᵏ") };

  const limit = (value, low, high) => Math.min(Math.max(Math.round(value * 100) / 100, low), high);
  const set = (change) => { halt(); change(); draw(); };
  const setX = (value) => { x = limit(value, -1.2, 1.2); }, setY = (value) => { y = limit(value, 0, 1.2); };
  const fixed = (value) => Number(value).toFixed(2).replace("-", "−");
  const placeEigenvalue = grip(plane, "var(--jfb-blue)", (re, im) => set(() => { setX(re); setY(im); }));
  const placeStart = grip(space, "var(--jfb-red)", (p, q) => set(() => {
    angle = (Math.round(Math.atan2(q, p) / DEGREE) + 360) % 360;
  }));
  const showX = slider(controls, { name: "re", min: -1.2, max: 1.2, step: 0.01, change: (value) => set(() => setX(value)),
    text: (value) => `real part x\u00a0=\u00a0${fixed(value)}` });
  const showY = slider(controls, { name: "im", min: 0, max: 1.2, step: 0.01, change: (value) => set(() => setY(value)),
    text: (value) => `imaginary part y\u00a0=\u00a0${fixed(value)}` });
  const showC = slider(controls, { name: "c", min: 0, max: 4, step: 0.05, change: (value) => set(() => { c = value; }),
    text: (value) => `non-normality c\u00a0=\u00a0${fixed(value)}` });
  const showAngle = slider(controls, { name: "start", min: 0, max: 360, step: 1,
    change: (value) => set(() => { angle = value; }), text: (value) => `start u₀ at ${say(value)}°` });
  const { show: showSteps, halt } = stepper(controls, MOST, () => steps, (value) => { steps = value; draw(); });
  const fill = table(root.querySelector(".jfb-more"), "The distances in a table", ["k", "distance ‖uₖ‖", "step ratio"]);

  function draw() {
    const b = y + c, w = c ? (y * y) / b : y;
    const apply = ([p, q]) => [x * p + b * q, x * q - w * p];
    const at = (degrees) => [Math.cos, Math.sin].map((f) => Number(f(degrees * DEGREE).toFixed(15)));
    const rho = Math.hypot(x, y), gamma = Math.hypot(x, (b + w) / 2) + (b - w) / 2;
    const worst = Math.atan2(2 * x * (b - w), (w - b) * (w + b)) / 2 / DEGREE; // where the circle is stretched most
    const path = [at(angle)];
    while (path.length <= MOST) path.push(apply(path[path.length - 1]));
    const u = path.slice(0, steps + 1), far = u.map((point) => Math.hypot(...point));

    radius.setAttribute("d", plane.line([[0, 0], [x, y]]));
    mirror.setAttribute("cx", plane.X(x));
    mirror.setAttribute("cy", plane.Y(-y));
    placeEigenvalue(x, y);
    const steep = y > Math.abs(x);
    names.ρ(plane.X(x / 2) - (steep ? 14 : 0), plane.Y(y / 2) + (steep ? 5 : 19)).textContent = rho ? "ρ" : "";
    names.μ(plane.X(x) + (x > 0 ? 16 : -16), plane.Y(y) - 10);

    // the scale must not depend on the steps: a path that is followed stays where it is
    const reach = 1.12 * Math.max(gamma, ...path.map((point) => Math.hypot(...point)).filter((size) => size < 5.5));
    const wide = WIDE.find((size) => size > reach), scaled = ([p, q]) => [p / wide, q / wide];
    const pixel = (point) => scaled(point).map((value, i) => (i ? space.Y(value) : space.X(value)));
    for (const [one, below, beside] of ones) {
      below(pixel([one, 0])[0], space.Y(-1) + 18);
      beside(space.X(-1) - 7, pixel([0, one])[1] + 5, "end");
    }
    space.circle.setAttribute("d", space.line(round.map(scaled)));
    const stretched = apply(at(worst)), side = stretched[0] * path[0][0] + stretched[1] * path[0][1] > 0 ? -1 : 1;
    const tip = stretched.map((value) => side * value), upright = Math.abs(tip[1]) > Math.abs(tip[0]);
    image.setAttribute("d", space.line(round.map(apply).map(scaled)));
    axis.setAttribute("d", space.line([[0, 0], scaled(tip)]));
    // the tip of the half-axis that points away from the start, so that the letter and the path keep apart
    const [tx, ty] = pixel(tip);
    names.γ(tx + (upright ? 0 : tip[0] < 0 ? -12 : 12), ty + (upright ? (tip[1] < 0 ? 18 : -8) : 5));
    const near = u.filter((_, k) => far[k] < 1e3);
    track.setAttribute("d", space.line(near.map(scaled)));
    dots.replaceChildren(...near.map(pixel).map(([cx, cy]) => svg("circle", { cx, cy, r: 3 })));
    placeStart(...scaled(u[0]));
    const [ux, uy] = pixel(u[0]);
    names.u(ux + 20 * u[0][0], uy - 20 * u[0][1] + 5);

    const height = (value) => Math.max(Math.log10(value), -40);
    const heights = far.map((value, k) => [k, height(value)]);
    fall.setAttribute("d", decades.line(heights));
    joints.replaceChildren(...heights.map(([k, h]) => svg("circle", { cx: decades.X(k), cy: decades.Y(h), r: 2.6 })));
    bounds.γ.setAttribute("d", decades.line([[0, 0], [MOST, MOST * height(gamma)]]));
    bounds.ρ.setAttribute("d", decades.line([[0, 0], [MOST, MOST * height(rho)]]));
    name(names.above, height(gamma), true).textContent = c ? "γᵏ" : "γᵏ = ρᵏ";
    name(names.below, height(rho), false).textContent = c ? "ρᵏ" : "";

    showX(x);
    showY(y);
    showC(c);
    showAngle(angle);
    showSteps(steps);
    words.textContent = sentence(rho, gamma, far, Math.round((worst + 180) % 180));
    fill(far.map((value, k) => [k, say(value, 6), k && far[k - 1] ? say(value / far[k - 1], 4) : ""]));
  }

  // The name of a guide line of this slope, above it or below if there is room, near where it leaves the box.
  function name(place, slope, above) {
    const k = 0.8 * Math.min(MOST, Math.max(2 / slope, -4 / slope));
    const rising = slope > 0, left = rising === above && decades.X(k) > 100;
    return place(decades.X(k) + (left ? -7 : 7), decades.Y(k * slope) + (rising === left ? -7 : 18), left ? "end" : "start");
  }

  function sentence(rho, gamma, far, worst) {
    const last = far[steps], most = Math.max(...far), peak = far.indexOf(most), grown = most > 1 + SAME;
    const near = (value) => say(value, Math.abs(value - 1) < 0.005 ? 5 : 3);
    const times = (value) => (Math.abs(value - 1) < SAME ? "as large as the start's" : `${say(value)} times the start's`);
    const after = `After ${steps} ${steps === 1 ? "step" : "steps"}`;
    const now = !steps ? "No step is taken yet." : last === 0 ? `${after} the fixed point is reached.`
      : `${after} the distance is ${times(last)}.`;
    const trend = "the long run each step multiplies the distance by";
    if (rho === 0) {
      return c === 0 ? `Contraction: γ = ρ = 0, the first step leads from every start to the fixed point. ${now}`
        : `Two steps lead from every start to the fixed point: ρ = 0, and A² = 0. The first can multiply the distance by ` +
          `γ = ${near(gamma)}, so A is ${gamma < 1 - SAME ? "a" : "no"} contraction. ${now}`;
    }
    const level = Math.abs(rho - 1) < SAME;
    if (c === 0) {
      const outcome = level ? "Never comes closer" : rho < 1 ? "Contraction" : "Diverges";
      const effect = level ? "each step keeps every distance" : `each step multiplies every distance by ${near(rho)}`;
      return `${outcome}: γ = ρ = ${near(rho)}, and A is normal (c = 0), so ${effect}. ${now}`;
    }
    if (gamma < 1 - SAME) {
      return `Contraction: γ = ${near(gamma)} < 1, so every step brings every point closer. ${now} ` +
        `In ${trend} ρ = ${near(rho)} on average.`;
    }
    if (level) {
      return `Never settles: ρ = 1, γ = ${near(gamma)}. ` + (y > 0
        ? "Every path goes round on an ellipse: the distance rises and falls, but neither vanishes nor grows without bound. "
        : "From every start but 0° and 180° the distance grows without bound, in the long run in proportion to k. ") + now;
    }
    if (rho > 1) return `Diverges: 1 < ρ = ${near(rho)} ≤ γ = ${near(gamma)}. ${now} In ${trend} ρ on average.`;
    const story = !grown ? `${now} From a start at ${worst}° the first step multiplies the distance by γ.`
      : peak === steps ? `${after} the distance has grown to ${times(most)}.`
        : `The distance grew to ${times(most)} at step ${peak}; after ${steps} steps it is ${times(last)}.`;
    return `No contraction, and yet it converges: ρ = ${near(rho)} < 1 ≤ γ = ${near(gamma)}. ${story} ` +
      `In ${trend} ρ on average.`;
  }

  draw();
}
