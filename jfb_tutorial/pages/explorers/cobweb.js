// The cobweb of y ← d + y⁵. Slope 1 is reached at y = FOLD, where d = LIFT: there the two fixed points meet and vanish.
const FOLD = 5 ** -0.25, LIFT = 0.8 * FOLD, MOST = 60;

// The fixed point of d + y⁵ in [low, high], by bisection of y − y⁵ − d, which is monotone there.
function between(low, high, d) {
  const rising = high <= FOLD;
  for (let i = 0; i < 60; i++) {
    const middle = (low + high) / 2;
    if (middle - middle ** 5 < d === rising) low = middle; else high = middle;
  }
  return (low + high) / 2;
}

function start(root, { d, y0, steps, fold }) {
  const stage = root.querySelector(".jfb-stage");
  const plot = axes(stage, {
    x: [-0.05, 1.1], y: [-0.14, 1.1], xticks: [0, 0.2, 0.4, 0.6, 0.8, 1], yticks: [0, 0.2, 0.4, 0.6, 0.8, 1],
    xlabel: "y", ylabel: "d + y⁵",
  });
  const under = plot.layer(), over = plot.layer();
  svg("path", { d: plot.line([[-1, -1], [2, 2]]), class: "jfb-axis", "stroke-dasharray": "5 4" }, under);
  svg("path", { d: plot.line([[-1, 0], [2, 0]]), class: "jfb-axis", "stroke-opacity": 0.5 }, under);
  const curve = svg("path", { fill: "none", stroke: "var(--jfb-blue)", "stroke-width": 2.5 }, over);
  const web = svg("path", { fill: "none", stroke: "var(--jfb-red)", "stroke-width": 1.6, class: "jfb-web" }, over);
  const points = svg("g", {}, over);
  const follow = fold ? drawFold(stage) : () => {};
  const words = root.querySelector(".jfb-words");
  const controls = root.querySelector(".jfb-controls");

  const clamp = (value, high) => Math.min(Math.max(Math.round(value * 1000) / 1000, 0), high);
  const set = (change) => { halt(); change(); draw(); };
  const setD = (value) => set(() => { d = clamp(value, 0.7); });
  const setStart = (value) => set(() => { y0 = clamp(value, 1); });
  const placeD = grip(plot, "var(--jfb-blue)", (_, y) => setD(y));
  const placeStart = grip(plot, "var(--jfb-red)", (x) => setStart(x));
  const showD = slider(controls, { name: "d", min: 0, max: 0.7, step: 0.001, change: setD,
    text: (value) => `d = ${Number(value).toFixed(3)}` });
  const showStart = slider(controls, { name: "start", min: 0, max: 1, step: 0.001, change: setStart,
    text: (value) => `start y₀ = ${Number(value).toFixed(3)}` });
  const { show: showSteps, halt } = stepper(controls, MOST, () => steps, (value) => { steps = value; draw(); });
  const fill = table(root.querySelector(".jfb-more"), "The iterates in a table", ["k", "yₖ", "step", "step ratio"]);

  function draw() {
    const y = [y0];
    while (y.length <= steps && Math.abs(y[y.length - 1]) < 1e6) y.push(d + y[y.length - 1] ** 5);
    const there = d < LIFT;
    const stable = there ? (d === 0 ? 0 : between(0, FOLD, d)) : null;
    const repelling = there ? between(FOLD, 1.2, d) : null;

    const samples = Array.from({ length: 116 }, (_, i) => -0.05 + i / 100);
    curve.setAttribute("d", plot.line(samples.map((x) => [x, d + x ** 5])));
    const track = [[y0, 0]];
    for (let k = 1; k < y.length; k++) track.push([y[k - 1], Math.min(y[k], 9)], [Math.min(y[k], 9), Math.min(y[k], 9)]);
    web.setAttribute("d", plot.line(track));
    points.replaceChildren();
    if (there) marks(plot, points, [[stable, stable, true], [repelling, repelling, false]]);
    follow(d, stable, repelling);
    placeD(0, d);
    placeStart(y0, -0.09);
    showD(d);
    showStart(y0);
    showSteps(steps);
    words.textContent = sentence(y, stable, repelling);
    fill(y.map((value, k) => {
      const step = k ? value - y[k - 1] : NaN, before = k > 1 ? y[k - 1] - y[k - 2] : NaN;
      return [k, say(value, 6), k ? say(step) : "", k > 1 && Math.abs(before) > 1e-15 ? say(step / before) : ""];
    }));
  }

  function sentence(y, stable, repelling) {
    const last = y[y.length - 1], gone = y.findIndex((value) => value > 1.2), reached = Math.min(steps, y.length - 1);
    const now = gone >= 0
      ? `The iteration has escaped: at step ${gone} it is beyond every fixed point.`
      : `After ${reached} ${reached === 1 ? "step" : "steps"} y = ${say(last, 6)}; the next step moves it by ` +
        `${say(d + last ** 5 - last, 2)}.`;
    if (stable === null) {
      const gap = d - LIFT, narrow = gap < 0.01 && gone < 0 && last < FOLD;
      const passage = Math.round(Math.PI / Math.sqrt(10 * FOLD ** 3 * gap));
      return `d = ${say(d, 4)}: the curve has lifted off the diagonal, no fixed point is left here. ${now}` +
        (narrow ? ` The gap is ${say(gap, 2)} wide; to squeeze through takes about ${passage} steps in all.` : "");
    }
    const slope = 5 * stable ** 4;
    const settles = y0 < repelling - 1e-9, edge = Math.abs(y0 - repelling) <= 1e-9;
    const fate = settles ? "" : edge ? " The start is the repelling fixed point itself, so nothing moves."
      : ` The start lies above the repelling fixed point ${say(repelling)}, so the path runs away from both.`;
    const speed = d === 0 ? "slope 0: near it the error is raised to the fifth power in each step."
      : `slope 5y⁴ = ${say(slope, 2)}${settles ? `: near it each step multiplies the error by ${say(slope, 2)}` : ""}.`;
    const steep = fold ? ` There dy/dd = 1/(1 − 5y⁴) = ${say(1 / (1 - slope), 3)}.` : "";
    return `${now}${fate} d = ${say(d, 4)}: the curve crosses the diagonal at y* = ${say(stable, 6)} with ${speed}${steep}`;
  }

  draw();
}

// A filled mark attracts, an open one repels.
function marks(plot, layer, list) {
  for (const [x, y, attracts] of list) {
    svg("circle", { cx: plot.X(x), cy: plot.Y(y), r: 5.5, stroke: "var(--jfb-green)", "stroke-width": 2.2,
      fill: attracts ? "var(--jfb-green)" : "none" }, layer);
  }
}

// The fixed points against d; returns what moves the marks.
function drawFold(stage) {
  const plot = axes(stage, { x: [0, 0.7], y: [0, 1.1], xticks: [0, 0.2, 0.4, 0.6], yticks: [0, 0.2, 0.4, 0.6, 0.8, 1],
    xlabel: "d", ylabel: "fixed points y" });
  const layer = plot.layer();
  const branch = (low, high, more) => {
    const points = Array.from({ length: 101 }, (_, i) => low + ((high - low) * i) / 100).map((y) => [y - y ** 5, y]);
    svg("path", { d: plot.line(points), fill: "none", "stroke-width": 2.5, ...more }, layer);
  };
  branch(0, FOLD, { stroke: "var(--jfb-blue)" });
  branch(FOLD, 1, { stroke: "var(--jfb-red)", "stroke-dasharray": "7 5" });
  svg("text", { x: plot.X(0.12), y: plot.Y(0.03) }, layer, "attracts, slope < 1");
  svg("text", { x: plot.X(0.12), y: plot.Y(1.03) }, layer, "repels, slope > 1");
  const here = svg("path", { class: "jfb-axis", "stroke-dasharray": "5 4" }, layer);
  const points = svg("g", {}, layer);
  return (d, stable, repelling) => {
    here.setAttribute("d", plot.line([[d, 0], [d, 1.1]]));
    points.replaceChildren();
    if (stable !== null) marks(plot, points, [[d, stable, true], [d, repelling, false]]);
  };
}
