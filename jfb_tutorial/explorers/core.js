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

// A number for a sentence: `digits` significant ones, and powers of ten as people write them.
function say(value, digits = 3) {
  if (!Number.isFinite(value)) return value > 0 ? "∞" : value < 0 ? "−∞" : "undefined";
  const size = Math.abs(value);
  if (size !== 0 && (size < 1e-3 || size >= 1e5)) {
    const [mantissa, exponent] = value.toExponential(1).split("e");
    const raised = String(Number(exponent)).replace(/./g, (c) => "⁰¹²³⁴⁵⁶⁷⁸⁹"["0123456789".indexOf(c)] || "⁻");
    return `${mantissa.replace("-", "−")}·10${raised}`;
  }
  return String(Number(value.toPrecision(digits))).replace("-", "−");
}

// Axes in a square of 400 units. A drawing is hidden from screen readers: the sentence and the table say what it shows.
function axes(stage, { x: [xlow, xhigh], y: [ylow, yhigh], xticks, yticks, xlabel, ylabel }) {
  const size = 400, left = 56, bottom = 44, top = 12, right = 12;
  const root = svg("svg", { viewBox: `0 0 ${size} ${size}`, "aria-hidden": "true", focusable: "false" }, stage);
  const box = { x: left, y: top, width: size - left - right, height: size - top - bottom };
  const X = (x) => left + ((x - xlow) / (xhigh - xlow)) * box.width;
  const Y = (y) => size - bottom - ((y - ylow) / (yhigh - ylow)) * box.height;
  const id = unique("clip");
  svg("rect", box, svg("clipPath", { id }, svg("defs", {}, root)));
  svg("path", { class: "jfb-axis", d: `M${left},${top}V${size - bottom}H${size - right}` }, root);
  for (const tick of xticks) svg("text", { x: X(tick), y: size - bottom + 18, "text-anchor": "middle" }, root, tick);
  for (const tick of yticks) svg("text", { x: left - 7, y: Y(tick) + 5, "text-anchor": "end" }, root, tick);
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

// A round grip of 44 units, for mouse, pen and touch; the keyboard has the slider of the same quantity.
function grip(plot, color, move) {
  const handle = svg("g", { class: "jfb-handle" }, plot.root);
  svg("circle", { r: 22, fill: "transparent" }, handle);
  svg("circle", { r: 8, fill: color, stroke: "currentColor", "stroke-width": 1.5 }, handle);
  handle.addEventListener("pointerdown", (event) => { handle.setPointerCapture(event.pointerId); event.preventDefault(); });
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
