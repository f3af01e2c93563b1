/* What the plot answers to: pointer, keyboard, the legend and the two menus. */

/* --- numbers of one point, by pointer or by focus */

function showTooltip(point) {
  if (shown.current === point) return;
  hideTooltip();
  shown.current = point;
  point.mark.classList.add("current");
  emphasise(point.line.name);
  const tip = byId("tooltip");
  const facts = describe(point).map(([name, text]) =>
    element("div", {}, element("dt", { textContent: name }), element("dd", { textContent: text })),
  );
  tip.replaceChildren(element("b", { textContent: titleOf(point.row) }), element("dl", {}, ...facts));
  tip.hidden = false;
  place(tip, point);
}

/* Beside the point, on the side with more room; on a phone, where neither has enough, above or below it. */
function place(tip, point) {
  const box = byId("drawing").getBoundingClientRect();
  const [width, height] = [tip.offsetWidth, tip.offsetHeight];
  const inside = (value, most) => Math.max(0, Math.min(value, most));
  const away = (at, size, whole) => (at < whole / 2 ? at + 14 : at - size - 14);
  let [left, top] = [away(point.x, width, box.width), inside(point.y - height / 2, box.height - height)];
  if (left < 0 || left + width > box.width) {
    [left, top] = [inside(point.x - width / 2, box.width - width), away(point.y, height, box.height)];
  }
  tip.style.left = `${left}px`;
  tip.style.top = `${top}px`;
}

function hideTooltip() {
  byId("tooltip").hidden = true;
  shown.current?.mark.classList.remove("current");
  shown.current = null;
  emphasise(null);
}

/* Fade every line but one; null fades none. */
function emphasise(name) {
  document.querySelectorAll("#drawing .line").forEach((group) => {
    group.classList.toggle("faded", name !== null && group.dataset.line !== name);
  });
}

function nearest(event) {
  const box = byId("drawing").getBoundingClientRect();
  const distance = (point) => Math.hypot(point.x - event.clientX + box.left, point.y - event.clientY + box.top);
  const sorted = shown.points.map((point) => [distance(point), point]).sort(([a], [b]) => a - b);
  return sorted.length && sorted[0][0] < NEAR ? sorted[0][1] : null;
}

function follow(event) {
  const point = nearest(event);
  if (point) showTooltip(point);
  else hideTooltip();
}

/* Left and right walk along a line, up and down go to the nearest point of another one above or below. */
function neighbour(point, key) {
  const along = shown.points.filter((other) => other.line === point.line);
  const at = along.indexOf(point);
  if (key === "ArrowLeft") return along[at - 1];
  if (key === "ArrowRight") return along[at + 1];
  const above = (other) => (key === "ArrowUp" ? other.y < point.y : other.y > point.y);
  const far = (other) => 3 * Math.abs(other.x - point.x) + Math.abs(other.y - point.y);
  const others = shown.points.filter((other) => other.line !== point.line && above(other));
  return others.sort((a, b) => far(a) - far(b))[0];
}

function walk(event) {
  if (event.key === "Escape") hideTooltip();
  if (!shown.current || !event.key.startsWith("Arrow")) return;
  event.preventDefault(); /* the page would scroll */
  const next = neighbour(shown.current, event.key);
  if (!next) return;
  shown.current.mark.setAttribute("tabindex", -1);
  next.mark.setAttribute("tabindex", 0);
  next.mark.focus();
}

/* --- the legend, in the order of the lines' right ends */

function legendEntry(line) {
  const y = 7;
  const stroke = svg("line", { x1: 1, x2: 31, y1: y, y2: y, "stroke-dasharray": line.dash.join(" ") });
  const mark = marker(line.marker, 16, y, { class: "point" });
  const box = { width: 32, height: 14, class: `line color-${line.color}`, "aria-hidden": "true" };
  const picture = svg("svg", box, stroke, mark);
  const button = element("button", { type: "button" }, picture, line.name);
  button.dataset.line = line.name;
  button.addEventListener("click", () => setHidden(shown.hidden.has(line.name) ? [] : [line.name], [line.name]));
  for (const name of ["mouseenter", "focus"]) button.addEventListener(name, () => emphasise(line.name));
  for (const name of ["mouseleave", "blur"]) button.addEventListener(name, () => emphasise(null));
  return button;
}

/* Of the lines `among`, hide those in `hidden` and show the others. */
function setHidden(hidden, among) {
  for (const name of among) {
    if (hidden.includes(name)) shown.hidden.add(name);
    else shown.hidden.delete(name);
  }
  drawPlot();
  markLegend();
}

function markLegend() {
  for (const button of byId("legend").children) {
    button.setAttribute("aria-pressed", String(!shown.hidden.has(button.dataset.line)));
  }
}

function drawLegend() {
  const ends = study.lines.map((line) => pointsOf(line).findLast((point) => point.onLine)).filter(Boolean);
  ends.sort((a, b) => b.quality - a.quality);
  byId("legend").replaceChildren(...ends.map((end) => legendEntry(end.line)));
  markLegend();
}

function redraw() {
  shown.cost = byId("plot-x").value;
  shown.quality = byId("plot-y").value;
  drawPlot();
  drawLegend();
}

function startPlot() {
  const usable = (quality) => study.rows.some((row) => row.status === "done" && QUALITIES[quality].value(row) > 0);
  const titles = (table, keys) => keys.map((key) => [key, table[key].title]);
  fill(byId("plot-x"), titles(COSTS, Object.keys(COSTS)));
  fill(byId("plot-y"), titles(QUALITIES, Object.keys(QUALITIES).filter(usable)));
  for (const id of ["plot-x", "plot-y"]) byId(id).addEventListener("change", redraw);
  const names = study.lines.map((line) => line.name);
  byId("show-all").addEventListener("click", () => setHidden([], names));
  byId("show-none").addEventListener("click", () => setHidden(names, names));
  const drawing = byId("drawing");
  drawing.addEventListener("pointermove", follow);
  drawing.addEventListener("pointerdown", follow);
  drawing.addEventListener("pointerleave", (event) => {
    if (event.pointerType === "mouse") hideTooltip(); /* a finger leaves when it lifts, and the numbers should stay */
  });
  document.addEventListener("pointerdown", (event) => {
    if (!drawing.contains(event.target)) hideTooltip();
  });
  drawing.addEventListener("keydown", walk);
  redraw();
  new ResizeObserver(drawPlot).observe(drawing.parentElement);
}

if (byId("plot")) startPlot();
