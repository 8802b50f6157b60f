// The cobweb of y ← d + y⁵. Slope 1 is reached at y = FOLD, where d = LIFT: there the two fixed points meet and vanish.
const FOLD = 5 ** -0.25, LIFT = 0.8 * FOLD, ALPHA = 10 ** -0.25, MOST = 60;

// The fixed point of d + y⁵ in [low, high], by bisection of y − y⁵ − d, which is monotone there.
function between(low, high, d) {
  const rising = high <= FOLD;
  for (let i = 0; i < 60; i++) {
    const middle = (low + high) / 2;
    if (middle - middle ** 5 < d === rising) low = middle; else high = middle;
  }
  return (low + high) / 2;
}

function start(root, { d, y0, steps }) {
  const plot = axes(root.querySelector(".jfb-stage"), {
    low: -0.05, high: 1.1, ticks: [0, 0.2, 0.4, 0.6, 0.8, 1], xlabel: "y", ylabel: "d + y⁵",
    id: `jfb-clip-${Date.now().toString(36)}-${serial++}`,
  });
  const under = plot.layer(), over = plot.layer();
  svg("path", { d: plot.line([[0, 0], [ALPHA, 0], [ALPHA, ALPHA], [0, ALPHA]]) + "Z", fill: "var(--jfb-fill)" }, under);
  svg("text", { x: plot.X(ALPHA) - 4, y: plot.Y(0) - 5, "text-anchor": "end" }, plot.root, "[0, α]");
  svg("path", { d: plot.line([[-1, -1], [2, 2]]), class: "jfb-axis", "stroke-dasharray": "5 4" }, under);
  const curve = svg("path", { fill: "none", stroke: "var(--jfb-blue)", "stroke-width": 2.5 }, over);
  const web = svg("path", { fill: "none", stroke: "var(--jfb-red)", "stroke-width": 1.6, class: "jfb-web" }, over);
  const points = svg("g", {}, over);
  const words = root.querySelector(".jfb-words");
  const controls = root.querySelector(".jfb-controls");
  let timer = null;

  const clamp = (value, high) => Math.min(Math.max(value, 0), high);
  const set = (change) => { halt(); change(); draw(); };
  const setD = (value) => set(() => { d = clamp(Math.round(value * 1000) / 1000, 0.7); });
  const setStart = (value) => set(() => { y0 = clamp(Math.round(value * 1000) / 1000, 1); });
  const placeD = grip(plot, "var(--jfb-blue)", (_, y) => setD(y));
  const placeStart = grip(plot, "var(--jfb-red)", (x) => setStart(x));
  const showD = slider(controls, { name: "d", min: 0, max: 0.7, step: 0.005, change: setD,
    text: (value) => `d = ${Number(value).toFixed(3)}` });
  const showStart = slider(controls, { name: "start", min: 0, max: 1, step: 0.01, change: setStart,
    text: (value) => `start y⁰ = ${Number(value).toFixed(2)}` });
  const showSteps = slider(controls, { name: "steps", min: 0, max: MOST, step: 1,
    change: (value) => set(() => { steps = value; }), text: (value) => `steps = ${value}` });
  const [, , run] = buttons(controls, {
    "− Step": () => set(() => { steps = Math.max(steps - 1, 0); }),
    "+ Step": () => set(() => { steps = Math.min(steps + 1, MOST); }),
    "Run": () => {
      if (timer) return halt();
      if (calm.matches) return set(() => { steps = MOST; });
      if (steps >= MOST) steps = 0;
      timer = setInterval(() => { steps += 1; if (steps >= MOST) halt(); draw(); }, 160);
      run.textContent = "Pause";
    },
    "Start over": () => set(() => { steps = 0; }),
  });
  const fill = table(root.querySelector(".jfb-more"), "The iterates in a table", ["k", "yᵏ", "step", "shrinks by"]);

  function halt() {
    clearInterval(timer);
    timer = null;
    if (run) run.textContent = "Run";
  }

  function draw() {
    const y = [y0];
    for (let k = 0; k < steps && Math.abs(y[k]) < 1e6; k++) y.push(d + y[k] ** 5);
    const there = d < LIFT;
    const stable = there ? between(0, FOLD, d) : null, repelling = there ? between(FOLD, 1.2, d) : null;

    const samples = Array.from({ length: 116 }, (_, i) => -0.05 + i / 100);
    curve.setAttribute("d", plot.line(samples.map((x) => [x, d + x ** 5])));
    const track = [[y0, 0]];
    for (let k = 1; k < y.length; k++) track.push([y[k - 1], Math.min(y[k], 9)], [Math.min(y[k], 9), Math.min(y[k], 9)]);
    web.setAttribute("d", plot.line(track));
    points.replaceChildren();
    if (there) {
      svg("circle", { cx: plot.X(stable), cy: plot.Y(stable), r: 5.5, fill: "var(--jfb-green)" }, points);
      svg("circle", { cx: plot.X(repelling), cy: plot.Y(repelling), r: 5.5, fill: "none", stroke: "var(--jfb-green)",
        "stroke-width": 2.2 }, points);
    }
    placeD(0, d);
    placeStart(y0, 0);
    showD(d);
    showStart(y0);
    showSteps(steps);
    words.textContent = sentence(y, stable, repelling);
    fill(y.map((value, k) => {
      const step = k ? value - y[k - 1] : NaN, before = k > 1 ? y[k - 1] - y[k - 2] : NaN;
      return [k, say(value, 6), k ? say(step) : "", k > 1 && before !== 0 ? say(step / before) : ""];
    }));
  }

  function sentence(y, stable, repelling) {
    const last = y[y.length - 1];
    const gone = y.findIndex((value) => value > 1);
    const now = gone >= 0
      ? `The iteration has passed 1 at step ${gone} and escapes.`
      : `After ${steps} ${steps === 1 ? "step" : "steps"} y = ${say(last, 6)}; the next step moves it by ` +
        `${say(d + last ** 5 - last, 2)}.`;
    if (stable === null) {
      return `d = ${say(d)}: the curve has lifted off the diagonal, no fixed point is left here. ${now}` +
        (gone < 0 ? " It squeezes through the gap, slowly, and then escapes: add steps." : "");
    }
    const slope = 5 * stable ** 4;
    const lemma = d <= 0.5 ? "" : " Lemma F.1 is silent beyond ½, yet the fixed point is still there.";
    const basin = y0 > repelling ? ` The start lies above the repelling fixed point ${say(repelling)}.` : "";
    return `d = ${say(d)}: the curve crosses the diagonal at y* = ${say(stable, 6)} with slope 5y*⁴ = ${say(slope, 2)}, ` +
      `so near it each step multiplies the error by ${say(slope, 2)}. ${now}${basin}${lemma}`;
  }

  draw();
}
