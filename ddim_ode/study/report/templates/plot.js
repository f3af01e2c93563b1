/* The work-precision plot: an SVG drawn for the width it has, so that its text is as large on a phone. */

const COSTS = {
  nfe: { title: "Network evaluations an image (NFE)", value: (row) => row.measured_nfe.mean },
  time: { title: "Wall time an image, ms", value: (row) => 1000 / row.timing.images_per_second },
};
const ERRORS = {
  median: {
    title: "Median error",
    value: (row) => row.error?.median,
    interval: (row) => [row.error.median_low, row.error.median_high],
    floor: study.floor.median,
    ceiling: study.ceiling,
  },
  rms: {
    title: "RMS error",
    value: (row) => row.error?.rms,
    interval: (row) => [row.error.rms_low, row.error.rms_high],
    floor: study.floor.rms,
    ceiling: study.ceiling,
  },
};
const QUALITIES = {
  ...ERRORS,
  frechet: { title: "Frechet distance", value: (row) => row.distribution?.frechet },
  sliced: { title: "Sliced Wasserstein distance", value: (row) => row.distribution?.sliced_wasserstein },
};
const MARGIN = { left: 68, right: 14, top: 10, bottom: 46 };
const NEAR = 28; /* pixels from the pointer in which a point answers */

const shown = { cost: "nfe", quality: "median", hidden: new Set(), points: [], current: null };

/* --- the geometry */

/* A logarithmic scale between two values, with a little room at both ends. */
function logScale(values, from, to) {
  const [low, high] = [Math.log(Math.min(...values) / 1.2), Math.log(Math.max(...values) * 1.2)];
  const scale = (value) => from + ((Math.log(value) - low) / (high - low)) * (to - from);
  return Object.assign(scale, { low: Math.exp(low), high: Math.exp(high), pixels: Math.abs(to - from) });
}

/* 1, 2 and 5 of each decade, or only 1 where they would crowd. */
function ticksOf(scale, room) {
  const decades = range(Math.ceil(Math.log10(scale.high)) - Math.floor(Math.log10(scale.low)) + 1);
  const within = (digits) =>
    decades
      .flatMap((i) => digits.map((digit) => Number(`${digit}e${Math.floor(Math.log10(scale.low)) + i}`)))
      .filter((value) => value >= scale.low && value <= scale.high);
  const fine = within([1, 2, 5]);
  return fine.length * room <= scale.pixels ? fine : within([1]);
}

/* Corners of the markers, in units of their size; the circle is drawn as one. */
function regular(count, turn, inner = 1) {
  return range(count).map((i) => {
    const [angle, radius] = [turn + (2 * Math.PI * i) / count, i % 2 ? inner : 1];
    return [radius * Math.sin(angle), -radius * Math.cos(angle)];
  });
}
const third = 1 / 3;
/* Half of the plus. */
const ARM = [[-third, -1], [third, -1], [third, -third], [1, -third], [1, third], [third, third]];
const CORNERS = {
  square: regular(4, Math.PI / 4),
  diamond: regular(4, 0),
  triangle: regular(3, 0),
  "triangle-down": regular(3, Math.PI),
  plus: [...ARM, ...ARM.map(([x, y]) => [-x, -y])],
  star: regular(10, 0, 0.45),
};
const SIZES = { circle: 4.5, square: 5.4, diamond: 5.8, triangle: 6, "triangle-down": 6, plus: 5.4, star: 7 };

/* --- SVG */

/* The namespace is taken from an element of the page, which keeps its address out of this file. */
function svg(tag, attributes = {}, ...children) {
  const made = document.createElementNS(byId("drawing").namespaceURI, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

function marker(kind, x, y, attributes) {
  const size = SIZES[kind];
  if (kind === "circle") return svg("circle", { cx: x, cy: y, r: size, ...attributes });
  const points = CORNERS[kind].map(([dx, dy]) => `${(x + size * dx).toFixed(1)},${(y + size * dy).toFixed(1)}`);
  return svg("polygon", { points: points.join(" "), ...attributes });
}

function axes(x, y, width, height) {
  const group = svg("g", { class: "axes" });
  const [right, bottom] = [width - MARGIN.right, height - MARGIN.bottom];
  for (const value of ticksOf(x, 34)) {
    group.append(svg("line", { x1: x(value), x2: x(value), y1: MARGIN.top, y2: bottom }));
    group.append(svg("text", { x: x(value), y: bottom + 18, "text-anchor": "middle" }, number(value)));
  }
  for (const value of ticksOf(y, 22)) {
    group.append(svg("line", { x1: MARGIN.left, x2: right, y1: y(value), y2: y(value) }));
    group.append(svg("text", { x: MARGIN.left - 8, y: y(value) + 4, "text-anchor": "end" }, number(value)));
  }
  const middle = (MARGIN.left + right) / 2;
  group.append(svg("text", { x: middle, y: height - 6, "text-anchor": "middle" }, COSTS[shown.cost].title));
  const turn = `translate(13 ${(MARGIN.top + bottom) / 2}) rotate(-90)`;
  group.append(svg("text", { transform: turn, "text-anchor": "middle" }, QUALITIES[shown.quality].title));
  return group;
}

function floorArea(y, width, height) {
  const floor = QUALITIES[shown.quality].floor;
  if (!floor || floor <= y.low) return [];
  const [top, bottom] = [Math.max(y(floor), MARGIN.top), height - MARGIN.bottom];
  const box = { x: MARGIN.left, y: top, width: width - MARGIN.left - MARGIN.right, height: bottom - top };
  const text = { x: MARGIN.left + 6, y: bottom - 6, class: "floor-name" };
  return [svg("rect", { ...box, class: "floor" }), svg("text", text, "the reference's own error")];
}

/* --- what is drawn */

function measured(key) {
  const row = rowOf.get(key);
  const [cost, quality] = [COSTS[shown.cost].value(row), QUALITIES[shown.quality].value(row)];
  return cost > 0 && quality > 0 ? { row, cost, quality } : null;
}

/* A line's points, and those on the line: the best grid at each budget. */
function pointsOf(line) {
  const points = line.rows.map(measured).filter((point) => point !== null);
  const best = new Map();
  for (const point of points) {
    const asked = askedOf(point.row);
    if (!best.has(asked) || point.quality < best.get(asked).quality) best.set(asked, point);
  }
  points.sort((a, b) => a.cost - b.cost);
  return points.map((point) => ({ ...point, line, onLine: best.get(askedOf(point.row)) === point }));
}

function describe({ row, cost, quality }) {
  const { measured_nfe: nfe, error, timing } = row;
  const interval = error && `${number(error.median_low)} to ${number(error.median_high)}`;
  const spread = nfe.min === nfe.max ? "" : ` (${nfe.min} to ${nfe.max})`;
  return [
    ["NFE measured", `${number(nfe.mean)}${spread}`],
    ["Median error", error && number(error.median)],
    ["95% interval", interval],
    ["RMS error", error && number(error.rms)],
    [QUALITIES[shown.quality].title, shown.quality in ERRORS ? null : number(quality)],
    ["Wall time an image", timing && `${number(1000 / timing.images_per_second)} ms`],
    ["Note", row.resolved === false ? "not well above the reference's error" : null],
  ].filter(([, text]) => text);
}

const titleOf = (row) => `${nameOf(row)}${row.grid ? ` on ${row.grid}` : ""}, ${askedOf(row)}`;
const spoken = (point) => [titleOf(point.row), ...describe(point).map((pair) => pair.join(" "))].join("; ");

function drawLine(group, points, x, y) {
  const path = points.filter((point) => point.onLine);
  const corners = path.map((point) => `${x(point.cost).toFixed(1)},${y(point.quality).toFixed(1)}`);
  const dash = points[0].line.dash.join(" ");
  const clipped = svg("g", { "clip-path": "url(#inside)" });
  clipped.append(svg("polyline", { points: corners.join(" "), "stroke-dasharray": dash }));
  const interval = QUALITIES[shown.quality].interval;
  for (const point of interval ? path : []) {
    const [low, high] = interval(point.row).map((value) => y(value || point.quality));
    clipped.append(svg("line", { class: "bar", x1: x(point.cost), x2: x(point.cost), y1: low, y2: high }));
  }
  group.append(clipped);
}

function drawPoint(group, point, x, y) {
  const hollow = point.row.resolved === false ? " hollow" : "";
  const faint = point.onLine ? "" : " faint";
  Object.assign(point, { x: x(point.cost), y: y(point.quality) });
  point.mark = marker(point.line.marker, point.x, point.y, {
    class: `point${hollow}${faint}`,
    tabindex: -1,
    role: "img",
    "aria-label": spoken(point),
    "data-key": point.row.key,
  });
  point.mark.addEventListener("focus", () => showTooltip(point));
  point.mark.addEventListener("blur", hideTooltip);
  group.append(point.mark);
}

/* What the drawing leaves out is said below it. */
function noteOf(above, floor, seen) {
  const { ceiling } = QUALITIES[shown.quality];
  const names = above.map((point) => `${titleOf(point.row)} (${number(point.quality)})`);
  const far = floor && !seen ? `The reference's own error, ${number(floor)}, lies far below this plot. ` : "";
  if (!names.length) return far;
  return `${far}Not drawn, above an error of ${ceiling} (the whole range of a pixel): ${names.join("; ")}.`;
}

function drawPlot() {
  const drawing = byId("drawing");
  const width = Math.max(drawing.parentElement.clientWidth, 240);
  const height = Math.round(Math.min(Math.max(width * 0.68, 320), 520));
  const { floor, ceiling = Infinity } = QUALITIES[shown.quality];
  const lines = study.lines.map(pointsOf).filter((points) => points.length);
  const within = (point) => point.quality <= ceiling; /* one that has diverged would squeeze the others */
  const all = lines.flat().filter(within);
  hideTooltip();
  drawing.replaceChildren();
  drawing.setAttribute("viewBox", `0 0 ${width} ${height}`);
  if (!all.length) return;

  const least = Math.min(...all.map((point) => point.quality));
  const seen = floor > least / 10 ? [floor / 1.6] : []; /* a floor far below would squeeze the lines */
  const x = logScale(all.map((point) => point.cost), MARGIN.left, width - MARGIN.right);
  const y = logScale([...all.map((point) => point.quality), ...seen], height - MARGIN.bottom, MARGIN.top);
  const inside = { x: MARGIN.left, y: 0, width: width - MARGIN.left, height: height - MARGIN.bottom };
  const clip = svg("clipPath", { id: "inside" }, svg("rect", inside));
  drawing.append(clip, axes(x, y, width, height), ...floorArea(y, width, height));
  const above = lines.flat().filter((point) => !within(point));
  byId("plot-note").textContent = noteOf(above, floor, seen.length);

  const visible = lines.filter((points) => !shown.hidden.has(points[0].line.name));
  for (const points of visible) {
    const { color, name } = points[0].line;
    const group = svg("g", { class: `line color-${color}`, "data-line": name });
    drawLine(group, points, x, y);
    points.filter(within).forEach((point) => drawPoint(group, point, x, y));
    drawing.append(group);
  }
  shown.points = visible.flat().filter(within);
  shown.points[0]?.mark.setAttribute("tabindex", 0);
}
