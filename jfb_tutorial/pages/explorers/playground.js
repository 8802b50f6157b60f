// A small implicit classifier that the reader trains, breaks and repairs; its mathematics is in classifier.js.
// END: the place of the view's slider beyond its steps, "settled". There it iterates until a step moves by no more than STILL,
// or FAR times. BUDGET: milliseconds of work in one frame. SIZES: pixels of the picture's side, in motion and at rest.
const END = 21, FAR = 200, STILL = 1e-4, BUDGET = 10, SIZES = [40, 80], HALF = 1.4, BURST = 50;
const REPAIRED = { gamma: 0.9, hold: true, tol: 1e-3, most: 50, solver: "plain" };
const NAMES = { exact: "exact", jfb: "JFB", neumann: "Neumann, k terms", npg: "phantom, NPG", upg: "phantom, UPG",
  unrolled: "unrolled, k steps" };
const SPOKEN = { exact: "the exact rule", jfb: "JFB", neumann: "a Neumann series", npg: "the phantom gradient NPG",
  upg: "the phantom gradient UPG", unrolled: "unrolling" };

function start(root, given) {
  const settings = { ...given };
  const stage = root.querySelector(".jfb-stage"), controls = root.querySelector(".jfb-controls");
  const words = root.querySelector(".jfb-words");
  let data, theta, optimise, now, numbers, history, view = END, running = 0, watching = false, stopped = false, job = null;
  let framed = false, told = 0, moved = 0;

  const left = html("div", { class: "jfb-left" }, stage), side = html("div", { class: "jfb-side" }, stage);
  const plane = html("div", { class: "jfb-plane" }, left);
  const canvas = html("canvas", { width: 1, height: 1, role: "img", "aria-label": "decision regions; the sentence and the table "
    + "below say what they show" }, plane);
  const paper = canvas.getContext("2d");
  const dots = svg("svg", { viewBox: "0 0 300 300", "aria-hidden": "true", focusable: "false" }, plane);

  const showView = slider(left, { name: "view", min: 0, max: END, step: 1, change: (value) => { watching = false; look(value); },
    text: (value) => (value === END ? "read: settled" : `read: ${plural(value, "step")}`) });
  const [run, one, reset, watch] = buttons(left, {
    "Run": () => (running ? halt() : go(calm.matches ? BURST : Infinity)),
    "Step": () => { halt(); train(); refresh(); },
    "Reset": () => begin(),
    "Watch the answer form": () => {
      // where motion is unwelcome, one step at a time
      if (calm.matches) return look(view >= END ? 0 : view + 1);
      halt();
      watching = true;
      look(0);
    },
  });
  run.classList.add("jfb-main");

  const list = html("div", { class: "jfb-gauges" }, side);
  const gauges = Object.fromEntries(["training steps", "loss", "points right", "iteration steps", "residual", "‖J‖, largest", "ρ(J), largest",
    "cosine with exact"].map((name) => {
    const box = html("div", {}, list);
    html("small", {}, box, name);
    const value = html("b", {}, box);
    return [name, (text, bad) => {
      value.textContent = (bad ? "✗ " : "") + text;
      value.className = bad ? "jfb-bad" : "";
    }];
  }));
  const chart = svg("svg", { viewBox: "0 0 300 130", class: "jfb-chart", "aria-hidden": "true", focusable: "false" }, side);
  svg("path", { class: "jfb-axis", d: "M40,8V106H296" }, chart);
  const curve = svg("path", { fill: "none", stroke: "var(--jfb-blue)", "stroke-width": 2 }, chart);
  const ticks = [0, 1, 2, 3].map(() => svg("text", { x: 36, "text-anchor": "end" }, chart));
  svg("text", { x: 40, y: 124 }, chart, "0");
  svg("text", { x: 168, y: 124, "text-anchor": "middle" }, chart, "loss by training step");
  const last = svg("text", { x: 296, y: 124, "text-anchor": "end" }, chart);

  side.append(words); // beside the picture, above the dials

  // the dials
  const group = (title) => {
    const box = html("fieldset", {}, controls);
    html("legend", {}, box, title);
    return box;
  };
  const set = (change) => { Object.assign(settings, change); evaluate(); refresh(); };
  const training = group("Train it");
  const choices = html("div", { class: "jfb-buttons", role: "group", "aria-label": "data" }, training);
  const datasets = ["moons", "circles", "spirals"].map((name) => {
    const button = html("button", { type: "button" }, choices, name);
    button.addEventListener("click", () => { settings.data = name; begin(); });
    return button;
  });
  const showRule = choice(training, "rule", "gradient", NAMES, (rule) => set({ rule }));
  const showTerms = slider(training, { name: "terms", min: 1, max: 30, step: 1, change: (terms) => set({ terms }),
    text: (value) => `k = ${value}` });
  const showDamping = slider(training, { name: "damping", min: 0.05, max: 1, step: 0.05, change: (damping) => set({ damping }),
    text: (value) => `λ = ${value.toFixed(2)}` });
  const logarithm = (parent, name, low, high, pace, text) => {
    const show = slider(parent, { name, min: low, max: high, step: pace, text: (at) => text(settings[name], at),
      change: (at) => set({ [name]: Number((10 ** at).toPrecision(2)) }) });
    return () => show(Math.log10(settings[name]));
  };
  const showRate = logarithm(training, "lr", -3, -1, 0.1, (value) => `learning rate ${say(value, 2)}`);
  const breaking = group("Break it, then repair it");
  buttons(breaking, {
    "γ = 3, let go": () => { scaleTo(theta, 3); set({ gamma: 3, hold: false }); },
    "tolerance 1, let go": () => set({ tol: 1, hold: false }),
    "Repair": () => { Object.assign(settings, REPAIRED); project(); set({}); },
  });
  const showGamma = slider(breaking, { name: "gamma", min: 0.5, max: 3, step: 0.1, text: (value) => `γ = ${say(value)}`,
    change: (gamma) => { scaleTo(theta, gamma); set({ gamma }); } });
  const id = unique("hold");
  const hold = html("input", { id, type: "checkbox", name: "hold" }, html("div", { class: "jfb-row" }, breaking));
  html("label", { for: id }, hold.parentNode, "hold ‖W‖ ≤ γ while training");
  hold.addEventListener("change", () => { settings.hold = hold.checked; project(); set({}); });
  const showTol = logarithm(breaking, "tol", -6, 0, 0.5, (value) => `tolerance ${say(value, 2)}`);
  const showMost = slider(breaking, { name: "most", min: 1, max: 100, step: 1, change: (most) => set({ most }),
    text: (value) => `most steps ${value}` });
  const showSolver = choice(breaking, "solver", "solver", { plain: "plain iteration", anderson: "Anderson acceleration" },
    (solver) => set({ solver }));
  const fill = table(root.querySelector(".jfb-more"), "The numbers in a table", ["what", "value"]);

  const project = () => { if (settings.hold && normOfW(theta) > settings.gamma) scaleTo(theta, settings.gamma); };

  function begin() {
    halt();
    data = sample(settings.data, 1);
    theta = fresh(settings.seed, settings.gamma);
    optimise = adam();
    history = [];
    stopped = false;
    evaluate();
    history.push(now.loss);
    dots.replaceChildren();
    data.labels.forEach((label, p) => {
      const [x, y] = [0, 1].map((i) => 150 + (i ? -1 : 1) * data.points[2 * p + i] * (150 / HALF));
      svg("path", { class: label ? "jfb-one" : "jfb-zero", d: label ? `M${x - 3.2},${y - 3.2}h6.4v6.4h-6.4z`
        : `M${x - 3.7},${y}a3.7,3.7 0 1,0 7.4,0a3.7,3.7 0 1,0 -7.4,0z` }, dots);
    });
    refresh();
  }

  // What the solver finds with the present weights, the loss there, its gradient by the rule and the exact one.
  function evaluate() {
    const found = settle(theta, data.points, settings);
    const exact = differentiate(theta, data, found, { ...settings, rule: "exact" });
    now = { found, exact, ...(settings.rule === "exact" ? exact : differentiate(theta, data, found, settings)) };
  }

  function train() {
    if (!now.gradient.every(Number.isFinite)) { stopped = true; return halt(); }
    optimise(theta, now.gradient, settings.lr);
    project();
    evaluate();
    history.push(now.loss);
  }

  function go(steps) {
    running = steps;
    watching = false;
    run.textContent = "Pause";
    words.setAttribute("aria-live", "off"); // spoken at the end, not on the way
    request();
  }

  function halt() {
    const was = running;
    running = 0;
    watching = false;
    run.textContent = "Run";
    words.removeAttribute("aria-live");
    if (was && history.length > 1) refresh();
  }

  function look(value) {
    view = value;
    refresh();
  }

  // A change by hand: everything is told anew, and drawn as soon as there is time.
  function refresh() {
    measure();
    tell();
    paint(!(running || watching));
  }

  function paint(fine) {
    const size = SIZES[fine ? 1 : 0];
    job = { read: reader(theta.slice()), view, size, row: 0, image: new ImageData(size, size), colors: tints() };
    request();
  }

  function request() {
    if (!framed) requestAnimationFrame(frame);
    framed = true;
  }

  function frame(time) {
    framed = false;
    const until = performance.now() + BUDGET;
    if (running) {
      // one training step a frame, so that one can watch; where motion is unwelcome, as many as the time allows
      do { train(); running--; } while (running > 0 && calm.matches && performance.now() < until);
      if (running <= 0) { halt(); refresh(); }
      else if (time - told > 200) { told = time; measure(); tell(); }
      if (running && !job && !calm.matches) paint(false);
    } else if (watching && !job && time - moved > 350) {
      moved = time;
      if (view >= END) watching = false;
      look(Math.min(view < 10 ? view + 1 : view < 20 ? view + 2 : END, END));
    }
    while (job && performance.now() < until) draw();
    if (job || running || watching) request();
  }

  // One row of the picture.
  function draw() {
    const { read, size, row, image, colors } = job, settled = job.view === END;
    for (let column = 0; column < size; column++) {
      const x = HALF * ((2 * column + 1) / size - 1), y = HALF * (1 - (2 * row + 1) / size);
      const { logit, residual } = read(x, y, settled ? FAR : job.view, settled ? STILL : 0);
      const sure = Math.abs(2 * sigmoid(logit) - 1);
      const striped = settled && residual > STILL && (((column + row) * 40) / size) % 4 < 2;
      image.data.set([...colors[striped ? 2 : logit > 0 ? 1 : 0], striped ? 230 : 35 + 130 * sure], 4 * (row * size + column));
    }
    job.row++;
    if (job.row < size) return;
    canvas.width = canvas.height = size;
    paper.putImageData(image, 0, 0);
    root.dataset.drawn = `${job.view} ${size}`;
    job = null;
  }

  function tints() {
    const style = getComputedStyle(root);
    return ["--jfb-blue", "--jfb-red", "--jfb-grey"].map((name) => {
      const value = parseInt(style.getPropertyValue(name).trim().slice(1), 16);
      return [value >> 16, (value >> 8) & 255, value & 255];
    });
  }

  // How many points are right after so many steps, and how many have not settled; the norms; once in a while only.
  function measure() {
    const read = reader(theta), count = (steps) => {
      let right = 0, restless = 0;
      data.labels.forEach((label, p) => {
        const { logit, residual } = read(data.points[2 * p], data.points[2 * p + 1], steps, steps === FAR ? STILL : 0);
        right += logit > 0 === label > 0;
        restless += residual > STILL;
      });
      return { right: right / POINTS, restless };
    };
    numbers = { count, end: count(FAR), ...jacobians(theta, data.points, now.found.u),
      cosine: cosine(now.gradient, now.exact.gradient), residual: Math.max(...now.found.residual), W: normOfW(theta) };
    numbers.drawn = view === END ? numbers.end : count(view);
  }

  function tell() {
    const { found, loss, right } = now, { norm, rho, end, drawn, residual } = numbers, steps = history.length - 1;
    const unrolled = settings.rule === "unrolled", limit = settings.most;
    gauges["training steps"](String(steps));
    gauges["loss"](say(loss), !Number.isFinite(loss));
    gauges["points right"](percent(right));
    gauges["iteration steps"](unrolled ? `${settings.terms}, unrolled` : `${found.steps}`, found.missed && !unrolled);
    gauges["residual"](say(residual, 2), found.missed);
    gauges["‖J‖, largest"](say(norm) + (norm > 1 ? " > 1" : ""));
    gauges["ρ(J), largest"](say(rho) + (rho > 1 ? " > 1" : ""));
    gauges["cosine with exact"](say(numbers.cosine), !(numbers.cosine > 0));
    chartIt();

    showView(view);
    datasets.forEach((button) => button.setAttribute("aria-pressed", button.textContent === settings.data));
    showRule(settings.rule);
    showTerms(settings.terms);
    showDamping(settings.damping);
    const hide = (name, rules) => { training.querySelector(`[name="${name}"]`).parentNode.hidden = !rules.includes(settings.rule); };
    hide("terms", ["neumann", "npg", "upg", "unrolled"]);
    hide("damping", ["npg", "upg"]);
    [showRate, showTol].forEach((show) => show());
    showGamma(settings.gamma);
    hold.checked = settings.hold;
    showMost(settings.most);
    showSolver(settings.solver);

    const said = [steps ? `After ${plural(steps, "training step")} by ${SPOKEN[settings.rule]} the loss is ${say(loss)}.`
      : `Not trained yet; the loss is ${say(loss)}.`];
    if (stopped) said.push("✗ The gradient is no longer finite, and training has stopped: press Reset.");
    if (view === 0) said.push("Read before the first step, every place of the plane gets the same answer.");
    else if (view < END) said.push(`Read after ${plural(view, "step")} of the iteration, as drawn, ${percent(drawn.right)} of the points are right.`);
    if (found.missed) {
      said.push(`✗ Not settled: after ${plural(limit, "step")} ${found.missed} of the ${POINTS} points still move by more than the tolerance`
        + (unrolled ? "; unrolling does not wait for them." : ", and their gradients are taken at no fixed point."));
    } else if (!unrolled) said.push(`The iteration meets its tolerance in ${plural(found.steps, "step")}.`);
    if (end.restless) {
      said.push(`${found.missed ? "" : "✗ "}Even after ${FAR} steps ${plural(end.restless, "point")} ${end.restless === 1 ? "is" : "are"} `
        + `not at rest; what is striped has no answer.`);
    }
    if (!found.missed && right - end.right > 0.015) {
      said.push(`✗ Where it stops is not where it settles: ${percent(right)} of the points are right there, `
        + `${percent(end.right)} ${end.restless ? `after ${FAR} steps` : "settled"}.`);
    } else if (!end.restless) said.push(`Settled, ${percent(end.right)} of the points are right.`);
    said.push(norm < 1 ? `‖J‖ is at most ${say(norm)}, below 1 as the theorems ask.`
      : `‖J‖ reaches ${say(norm)}, and the theorems ask for less than 1` + (numbers.cosine > 0
        ? `; the gradient's cosine with the exact one is ${say(numbers.cosine, 2)}.`
        : `. ✗ The gradient now points away from the exact one.`));
    const text = said.join(" ");
    if (words.textContent !== text) words.textContent = text;
    fill([
      ["training steps", String(steps)], ["loss", say(loss, 6)], ["points right, where the solver stops", percent(right)],
      ...[0, 1, 2, 5, 10].map((k) => [`points right, read after ${plural(k, "step")}`, percent(numbers.count(k).right)]),
      ["points right, settled", percent(end.right)], [`points that do not settle in ${FAR} steps`, String(end.restless)],
      ["steps of the solver", String(found.steps)], ["points that miss the tolerance", String(found.missed)],
      ["largest residual", say(residual, 6)], ["‖W‖", say(numbers.W, 6)], ["largest ‖J‖ of the points", say(norm, 6)],
      ["largest ρ(J) of the points", say(rho, 6)], ["cosine of the gradient with the exact one", say(numbers.cosine, 6)],
    ]);
  }

  function chartIt() {
    const n = Math.max(history.length - 1, 100), finite = history.filter((value) => value > 0 && Number.isFinite(value));
    const top = Math.ceil(Math.log10(Math.max(...finite, 0.9)) - 1e-9), low = Math.min(top - 2, Math.floor(Math.log10(Math.min(...finite))));
    const X = (i) => 40 + (256 * i) / n, Y = (value) => 8 + (98 * (top - Math.log10(value))) / (top - low);
    const every = Math.ceil(history.length / 500);
    let pen = "M";
    curve.setAttribute("d", history.map((value, i) => {
      if ((i % every && i !== history.length - 1) || !(value > 0 && Number.isFinite(value))) return "";
      const to = `${pen}${X(i).toFixed(1)},${Y(value).toFixed(1)}`;
      pen = "L";
      return to;
    }).join(""));
    const pace = Math.ceil((top - low) / 3);
    ticks.forEach((text, i) => {
      const at = top - i * pace;
      text.textContent = at < low ? "" : at >= -2 ? say(10 ** at) : ten(at);
      text.setAttribute("y", Y(10 ** at) + 5);
    });
    last.textContent = String(n);
  }

  // everything that a test needs to compute the same
  root.jfbState = () => ({ settings: { ...settings }, points: [...data.points], labels: [...data.labels], theta: [...theta], loss: now.loss,
    right: now.right, gradient: [...now.gradient], exact: [...now.exact.gradient], u: [...now.found.u], steps: now.found.steps,
    missed: now.found.missed, residual: [...now.found.residual], norm: numbers.norm, rho: numbers.rho, cosine: numbers.cosine, W: numbers.W });
  begin();
  // the picture's colours are those of the theme
  const observer = new MutationObserver(() => paint(!running));
  for (const node of [document.documentElement, document.body]) {
    observer.observe(node, { attributes: true, attributeFilter: ["data-theme", "theme", "data-jp-theme-light"] });
  }
}

const plural = (count, thing) => `${count} ${thing}${count === 1 ? "" : "s"}`;
const percent = (share) => `${Number((100 * share).toFixed(1))}\u00a0%`;

function choice(parent, name, text, options, change) {
  const id = unique(name), row = html("div", { class: "jfb-row" }, parent);
  html("label", { for: id }, row, text);
  const select = html("select", { id, name }, row);
  for (const [value, title] of Object.entries(options)) html("option", { value }, select, title);
  select.addEventListener("change", () => change(select.value));
  return (value) => { select.value = value; };
}
