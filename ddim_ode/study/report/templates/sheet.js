/* The sheet of samples. A strip holds a row's first samples side by side; canvases show parts of it, or how far it is
   from the reference's strip. */

const strips = new Map(); /* key -> decoded image */
const differences = new Map(); /* "key times gain" -> canvas */
const [tileWidth, tileHeight] = study.tile ?? [0, 0];
const GAIN = 5; /* of the enlarged difference */

async function decode(key) {
  const image = new Image();
  image.src = study.strips[key];
  await image.decode();
  strips.set(key, image);
}

function pixelsOf(image) {
  const canvas = element("canvas", { width: image.width, height: image.height });
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(image, 0, 0);
  return context.getImageData(0, 0, image.width, image.height);
}

/* Signed, about middle grey, so that brighter and darker than the reference look different. */
function differenceOf(key, gain) {
  const name = `${key} times ${gain}`;
  if (!differences.has(name)) {
    const [own, reference] = [pixelsOf(strips.get(key)), pixelsOf(strips.get("reference"))];
    own.data.forEach((value, i) => {
      if (i % 4 !== 3) own.data[i] = 128 + gain * (value - reference.data[i]); /* the fourth is opacity */
    });
    const canvas = element("canvas", { width: own.width, height: own.height });
    canvas.getContext("2d").putImageData(own, 0, 0);
    differences.set(name, canvas);
  }
  return differences.get(name);
}

/* Draw the samples `tiles` of a row, a few to a line; gain 0 shows the images themselves. */
function drawTiles(canvas, key, tiles, gain) {
  const source = gain && key !== "reference" ? differenceOf(key, gain) : strips.get(key);
  const columns = Math.min(tiles.length, 4);
  canvas.width = columns * tileWidth;
  canvas.height = Math.ceil(tiles.length / columns) * tileHeight;
  const context = canvas.getContext("2d");
  tiles.forEach((tile, i) => {
    const [x, y] = [(i % columns) * tileWidth, Math.floor(i / columns) * tileHeight];
    context.drawImage(source, tile * tileWidth, 0, tileWidth, tileHeight, x, y, tileWidth, tileHeight);
  });
}

function drawSheet() {
  const seed = byId("sheet-seed").value;
  const tiles = seed === "all" ? range(study.seeds.length) : [Number(seed)];
  const gain = Number(byId("sheet-view").value);
  document.querySelectorAll(".sheet canvas").forEach((canvas) => drawTiles(canvas, canvas.dataset.key, tiles, gain));
}

/* --- one sample, enlarged beside the reference's */

const enlarged = { key: null, tile: 0 };

function drawEnlarged() {
  const { key, tile } = enlarged;
  const row = rowOf.get(key);
  byId("enlarged-title").textContent = `${nameOf(row)}${row.grid ? ` on ${row.grid}` : ""}, ${askedOf(row)}`;
  const error = row.error ? `, median error of all samples ${number(row.error.median)}` : "";
  byId("enlarged-note").textContent = `Seed ${study.seeds[tile]}, sample ${tile + 1} of ${study.seeds.length}${error}`;
  drawTiles(byId("enlarged-own"), key, [tile], 0);
  drawTiles(byId("enlarged-reference"), "reference", [tile], 0);
  drawTiles(byId("enlarged-difference"), key, [tile], GAIN);
}

function moveEnlarged(by) {
  enlarged.tile = (enlarged.tile + by + study.seeds.length) % study.seeds.length;
  drawEnlarged();
}

/* Which sample of a cell was pressed; by keyboard, the first one shown. */
function tileAt(canvas, event) {
  const seed = byId("sheet-seed").value;
  if (seed !== "all") return Number(seed);
  const box = canvas.getBoundingClientRect();
  if (event.detail === 0) return 0;
  const columns = canvas.width / tileWidth;
  const column = Math.floor(((event.clientX - box.left) / box.width) * columns);
  const line = Math.floor(((event.clientY - box.top) / box.height) * (canvas.height / tileHeight));
  return Math.min(Math.max(line * columns + column, 0), study.seeds.length - 1);
}

function openEnlarged(cell, event) {
  enlarged.key = cell.dataset.key;
  enlarged.tile = tileAt(cell.querySelector("canvas"), event);
  drawEnlarged();
  byId("enlarged").showModal();
}

function startSheet() {
  const seeds = study.seeds.map((seed, i) => [i, `seed ${seed}`]);
  fill(byId("sheet-seed"), [["all", `all ${study.seeds.length}`], ...seeds]);
  document.body.classList.toggle("pixelated", Math.max(tileWidth, tileHeight) <= 64);
  for (const id of ["sheet-view", "sheet-seed"]) byId(id).addEventListener("change", drawSheet);
  document.querySelectorAll(".sheet .cell").forEach((cell) => {
    cell.addEventListener("click", (event) => openEnlarged(cell, event));
  });
  byId("enlarged-back").addEventListener("click", () => moveEnlarged(-1));
  byId("enlarged-on").addEventListener("click", () => moveEnlarged(1));
  byId("enlarged-close").addEventListener("click", () => byId("enlarged").close());
  byId("enlarged").addEventListener("keydown", (event) => {
    const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (by) moveEnlarged(by);
  });
  drawSheet();
}

if (byId("samples")) {
  await Promise.all(Object.keys(study.strips).map(decode));
  startSheet();
}
