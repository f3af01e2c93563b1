/* Sorting: a button in each column's title; rows without a value stay last whichever way the rest goes. */

const order = new Intl.Collator("en", { numeric: true });

function compareValues(a, b) {
  const [x, y] = [Number(a), Number(b)];
  if (Number.isNaN(x) && Number.isNaN(y)) return order.compare(a, b);
  if (Number.isNaN(x) || Number.isNaN(y)) return Number.isNaN(x) ? 1 : -1;
  return x - y;
}

function sortBy(table, column, sign) {
  const body = table.tBodies[0];
  const valueOf = (row) => row.cells[column]?.dataset.value;
  const rows = Array.from(body.rows);
  rows.sort((a, b) => {
    const [x, y] = [valueOf(a), valueOf(b)];
    if (x === undefined || y === undefined) return (x === undefined) - (y === undefined);
    return sign * compareValues(x, y);
  });
  body.append(...rows);
}

function makeSortable(table) {
  const heads = Array.from(table.tHead.rows[0].cells);
  heads.forEach((head, column) => {
    head.querySelector("button").addEventListener("click", () => {
      const up = head.getAttribute("aria-sort") !== "ascending";
      heads.forEach((other) => other.setAttribute("aria-sort", "none"));
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      sortBy(table, column, up ? 1 : -1);
    });
  });
}

document.querySelectorAll("table.sortable").forEach(makeSortable);
