// Sorts the tables of a page by the column whose heading is pressed; of long ones, shows the first rows. Rows
// may be chosen.

const ROWS = 150; // of a table that are shown at first; browsers are slow with thousands

function sortTables(tables = document.querySelectorAll("table.sortable")) {
  for (const table of tables) {
    [...table.tHead.rows[0].cells].forEach((cell, column) => {
      const button = make("button", { type: "button", onclick: () => sortBy(table, column) });
      button.append(...cell.childNodes);
      cell.append(button);
    });
    if (table.tBodies[0].rows.length > ROWS) shorten(table);
  }
}

function pickRow(row, act) {
  fill(row, { class: "pick", tabindex: 0, onclick: act, onkeydown: event => { if (event.key === "Enter") act(); } }, []);
}

function shorten(table) {
  table.dataset.short = "true";
  const count = table.tBodies[0].rows.length, all = make("button", { type: "button", onclick: () => { delete table.dataset.short; hideRows(table); all.remove(); } });
  say(all, "Show all {count} rows", { count: grouped(count) });
  table.parentNode.after(all);
  hideRows(table);
}

function hideRows(table) {
  [...table.tBodies[0].rows].forEach((row, i) => { row.hidden = Boolean(table.dataset.short) && i >= ROWS; });
}

function sortBy(table, column) {
  const heading = table.tHead.rows[0].cells[column], body = table.tBodies[0];
  const isNumber = heading.classList.contains("number");
  const before = heading.getAttribute("aria-sort");
  const order = before ? (before === "ascending" ? "descending" : "ascending") : isNumber ? "descending" : "ascending";
  const sign = order === "ascending" ? 1 : -1;
  for (const cell of table.tHead.rows[0].cells) cell.removeAttribute("aria-sort");
  heading.setAttribute("aria-sort", order);
  const keyed = [...body.rows].map(row => {
    const cell = row.cells[column];
    return [isNumber ? cell.dataset.v === "" ? null : Number(cell.dataset.v) : cell.textContent, row];
  });
  keyed.sort(([a], [b]) => a === null ? (b === null ? 0 : 1) : b === null ? -1 : // rows without a value stay last
    sign * (isNumber ? a - b : a.localeCompare(b, undefined, { numeric: true })));
  body.append(...keyed.map(([, row]) => row));
  hideRows(table);
}
