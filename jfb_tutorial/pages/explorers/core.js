// What every explorer shares: elements, axes, sliders, buttons, dragging, a table.
const SVG = "http://www.w3.org/2000/svg";
let serial = 0;
const unique = (name) => `jfb-${name}-${Date.now().toString(36)}-${serial++}`;
const calm = matchMedia("(prefers-reduced-motion: reduce)");

function element(space, name, attributes, parent, text) {
  const node = space ? document.createElementNS(space, name) : document.createElement(name);
  for (const [key, value] of Object.entries(attributes || {})) node.setAttribute(key, value);
  if (text !== undefined) node.textContent = text;
  if (parent) parent.appendChild(node);
  return node;
}
const svg = (name, attributes, parent, text) => element(SVG, name, attributes, parent, text);
const html = (name, attributes, parent, text) => element(null, name, attributes, parent, text);

// A power of ten as people write it.
const ten = (exponent) =>
  "10" + String(exponent).replace(/./g, (sign) => "⁰¹²³⁴⁵⁶⁷⁸⁹"["0123456789".indexOf(sign)] || "⁻");

// A number for a sentence: `digits` significant ones, and powers of ten as people write them.
function say(value, digits = 3) {
  if (!Number.isFinite(value)) return value > 0 ? "∞" : value < 0 ? "−∞" : "undefined";
  const size = Math.abs(value);
  if (size !== 0 && (size < 1e-3 || size >= 1e5)) {
    const [mantissa, exponent] = value.toExponential(1).split("e");
    return `${mantissa.replace("-", "−")}·${ten(Number(exponent))}`;
  }
  return String(Number(value.toPrecision(digits))).replace("-", "−");
}

// Axes in a square of 400 units; with a title the box is a square too. A tick is a number, or a number and its text.
// A drawing is hidden from screen readers: the sentence and the table say what it shows.
function axes(stage, { x: [xlow, xhigh], y: [ylow, yhigh], xticks, yticks, xlabel, ylabel, title }) {
  const size = 400, left = 56, bottom = 44, top = title ? 24 : 12, right = 12;
  const root = svg("svg", { viewBox: `0 0 ${size} ${size}`, "aria-hidden": "true", focusable: "false" }, stage);
  const box = { x: left, y: top, width: size - left - right, height: size - top - bottom };
  const X = (x) => left + ((x - xlow) / (xhigh - xlow)) * box.width;
  const Y = (y) => size - bottom - ((y - ylow) / (yhigh - ylow)) * box.height;
  const id = unique("clip");
  svg("rect", box, svg("clipPath", { id }, svg("defs", {}, root)));
  svg("path", { class: "jfb-axis", d: `M${left},${top}V${size - bottom}H${size - right}` }, root);
  const pair = (tick) => (Array.isArray(tick) ? tick : [tick, say(tick)]);
  for (const [at, text] of xticks.map(pair)) {
    svg("text", { x: X(at), y: size - bottom + 18, "text-anchor": "middle" }, root, text);
  }
  for (const [at, text] of yticks.map(pair)) svg("text", { x: left - 7, y: Y(at) + 5, "text-anchor": "end" }, root, text);
  if (title) svg("text", { x: left + box.width / 2, y: 15, "text-anchor": "middle" }, root, title);
  svg("text", { x: left + box.width / 2, y: size - 6, "text-anchor": "middle" }, root, xlabel);
  svg("text", { x: 14, y: top + box.height / 2, "text-anchor": "middle",
    transform: `rotate(-90 14 ${top + box.height / 2})` }, root, ylabel);
  const layer = () => svg("g", { "clip-path": `url(#${id})` }, root);
  const line = (points) => points.map(([x, y], i) => `${i ? "L" : "M"}${X(x).toFixed(2)},${Y(y).toFixed(2)}`).join("");
  // data coordinates of a pointer event
  const locate = (event) => {
    const at = new DOMPoint(event.clientX, event.clientY).matrixTransform(root.getScreenCTM().inverse());
    return [xlow + ((at.x - left) / box.width) * (xhigh - xlow), ylow + ((size - bottom - at.y) / box.height) * (yhigh - ylow)];
  };
  return { root, X, Y, layer, line, locate };
}

// A text that moves; its position is in units of the square.
function label(plot, text) {
  const node = svg("text", {}, plot.root, text);
  return (x, y, anchor = "middle") => {
    for (const [key, value] of Object.entries({ x, y, "text-anchor": anchor })) node.setAttribute(key, value);
    return node;
  };
}

// A round grip of 44 units, for mouse, pen and touch; the keyboard has the slider of the same quantity.
function grip(plot, color, move) {
  const handle = svg("g", { class: "jfb-handle" }, plot.root);
  svg("circle", { r: 22, fill: "transparent" }, handle);
  svg("circle", { r: 8, fill: color, stroke: "currentColor", "stroke-width": 1.5 }, handle);
  handle.addEventListener("pointerdown", (event) => { handle.setPointerCapture(event.pointerId); event.preventDefault(); });
  // Chromium does not heed touch-action on a part of a drawing: without this a drag to the side turns back in history
  handle.addEventListener("touchstart", (event) => event.preventDefault(), { passive: false });
  handle.addEventListener("pointermove", (event) => {
    if (handle.hasPointerCapture(event.pointerId)) move(...plot.locate(event));
  });
  return (x, y) => handle.setAttribute("transform", `translate(${plot.X(x)} ${plot.Y(y)})`);
}

function slider(parent, { name, text, min, max, step, change }) {
  const id = unique(name);
  const row = html("div", { class: "jfb-row" }, parent);
  const label = html("label", { for: id }, row);
  const input = html("input", { id, type: "range", min, max, step, name }, row);
  input.addEventListener("input", () => change(Number(input.value)));
  return (value) => {
    input.value = value;
    label.textContent = text(value);
    input.setAttribute("aria-valuetext", text(value));
    return row;
  };
}

function buttons(parent, actions) {
  const row = html("div", { class: "jfb-buttons" }, parent);
  return Object.entries(actions).map(([text, action]) => {
    const button = html("button", { type: "button" }, row, text);
    button.addEventListener("click", action);
    return button;
  });
}

// The number of steps: a slider and four buttons. Run adds one after another, or all at once where motion is unwelcome.
// `get` and `set` reach the number; returned are what shows it and what halts a run. Where the end may move, `end` is a function;
// `stride` is how many steps a tick of a run takes.
function stepper(parent, end, get, set, stride = () => 1) {
  let timer = null;
  const most = typeof end === "function" ? end : () => end;
  const words = parent.closest(".jfb-explorer").querySelector(".jfb-words");
  const halt = () => {
    clearInterval(timer);
    timer = null;
    run.textContent = "Run";
    words.removeAttribute("aria-live");
  };
  const go = (steps) => { halt(); set(Math.min(Math.max(steps, 0), most())); };
  const show = slider(parent, { name: "steps", min: 0, max: most(), step: 1, change: go, text: (value) => `steps = ${value}` });
  const [, , run] = buttons(parent, {
    "− Step": () => go(get() - 1),
    "+ Step": () => go(get() + 1),
    "Run": () => {
      if (timer) return halt();
      if (calm.matches) return go(most());
      if (get() >= most()) set(0);
      timer = setInterval(() => {
        const next = Math.min(get() + stride(), most());
        if (next >= most()) halt();
        set(next);
      }, 160);
      run.textContent = "Pause";
      words.setAttribute("aria-live", "off"); // spoken at the end, not at every step
    },
    "Start over": () => go(0),
  });
  return { show, halt };
}

function table(parent, title, headings) {
  const details = html("details", {}, parent);
  html("summary", {}, details, title);
  const scroll = html("div", { class: "jfb-scroll", tabindex: "0", role: "region", "aria-label": title }, details);
  const grid = html("table", {}, scroll);
  const head = html("tr", {}, html("thead", {}, grid));
  headings.forEach((heading) => html("th", { scope: "col" }, head, heading));
  const body = html("tbody", {}, grid);
  return (rows) => {
    body.replaceChildren();
    for (const row of rows) {
      const line = html("tr", {}, body);
      row.forEach((cell) => html("td", {}, line, cell));
    }
  };
}

function startAll(name, start) {
  document.querySelectorAll(`.jfb-explorer[data-explorer="${name}"]:not([data-ready])`).forEach((root) => {
    root.dataset.ready = "";
    start(root, JSON.parse(root.dataset.parameters));
  });
}
