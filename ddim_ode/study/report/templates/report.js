/* What the other parts share: the study's data, and small helpers. No library and no address outside this file. */

const study = JSON.parse(document.getElementById("data").textContent);
const rowOf = new Map(study.rows.map((row) => [row.key, row]));

const byId = (id) => document.getElementById(id);
const range = (count) => Array.from({ length: count }, (_, i) => i);
const nameOf = (row) => (row.eta === null || row.eta === 0 ? row.method : `${row.method}, eta ${row.eta}`);
const askedOf = (row) => (row.nfe === null ? `tol ${row.tol}` : `NFE ${row.nfe}`);

/* As the tables write numbers: three significant digits. */
function number(value) {
  if (value === null || value === undefined) return "–";
  const rounded = Number(value.toPrecision(3));
  const plain = rounded === 0 || (Math.abs(rounded) >= 1e-4 && Math.abs(rounded) < 1e6);
  return plain ? String(rounded) : rounded.toExponential().replace("e+", "e");
}

/* Names come from the study and are text, never markup: only textContent is ever set. */
function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

function fill(select, options) {
  select.replaceChildren(...options.map(([value, text]) => element("option", { value, textContent: text })));
}

/* Copy the command; where a browser forbids it, select the text so that a key press copies it. */
async function copyCommand() {
  const code = byId("command");
  try {
    await navigator.clipboard.writeText(code.textContent);
    byId("copy").textContent = "Copied";
  } catch {
    getSelection().selectAllChildren(code);
    byId("copy").textContent = "Selected";
  }
}

byId("copy")?.addEventListener("click", copyCommand);
