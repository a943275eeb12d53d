// Confusion matrix on a canvas: counts or shares, in several orders; large ones are zoomed into.

const SIZES = { most: 880, many: 680, label: 150, narrow: 84, cell: 34, large: 60, readable: 9, pick: 5, shown: 24 };

const NAMES = size => `${size}px system-ui, "Noto Sans CJK SC", "PingFang SC", "Microsoft YaHei", sans-serif`;

function drawMatrix(block, host) {
  const n = block.names.length, counts = new Map(), rows = new Float64Array(n), columns = new Float64Array(n);
  for (let i = 0; i < block.cells.length; i += 3) {
    const [row, column, count] = block.cells.slice(i, i + 3);
    counts.set(row * n + column, count);
    rows[row] += count;
    columns[column] += count;
  }
  const view = { share: n > 30 ? "row" : "count", order: n > 30 ? "clustered" : "data", window: null, cursor: [0, 0], chosen: null, plan: null };
  const orders = { data: block.names.map((_, i) => i), clustered: block.order, accuracy: byAccuracy() };
  const largest = n <= 6 ? SIZES.large : SIZES.cell, limit = n > 100 ? SIZES.many : SIZES.most;
  const canvas = make("canvas", { tabindex: 0, role: "application" });
  const status = make("p", { class: "status", "aria-live": "polite" });
  const back = say(make("button", { type: "button", hidden: true, onclick: () => { view.window = null; show(); } }), "Show all classes");

  function byAccuracy() {
    const share = block.names.map((_, i) => rows[i] ? (counts.get(i * n + i) || 0) / rows[i] : 2);
    return share.map((_, i) => i).sort((a, b) => share[a] - share[b] || a - b);
  }

  const order = () => orders[view.order];
  const part = () => view.window || { row: 0, column: 0, rows: n, columns: n };

  // A cell that is drawn: [true classes], [predicted classes]; several where the matrix has more than pixels.
  function classesAt([row, column]) {
    const { group } = view.plan, { row: top, column: left, rows: high, columns: wide } = part();
    const slice = (start, at, size) => order().slice(start + at * group, Math.min(start + size, start + (at + 1) * group));
    return [slice(top, row, high), slice(left, column, wide)];
  }

  function sum([trueOnes, predictedOnes]) {
    let total = 0;
    for (const r of trueOnes) for (const c of predictedOnes) total += counts.get(r * n + c) || 0;
    return total;
  }

  // The drawn cells that are not empty: [row, column, count, whether it contains a part of the diagonal].
  function filled() {
    const { group, rows: high, columns: wide } = view.plan, { row: top, column: left } = part(), totals = new Map();
    const place = new Int32Array(n);
    order().forEach((k, i) => { place[k] = i; });
    for (const [key, count] of counts) {
      const row = Math.floor((place[Math.floor(key / n)] - top) / group), column = Math.floor((place[key % n] - left) / group);
      if (row < 0 || column < 0 || row >= high || column >= wide) continue;
      totals.set(row * wide + column, (totals.get(row * wide + column) || 0) + count);
    }
    const overlaps = (row, column) => Math.abs(top + row * group - left - column * group) < group;
    return [...totals].map(([key, count]) => [Math.floor(key / wide), key % wide, count, overlaps(Math.floor(key / wide), key % wide)]);
  }

  // Where a pair of a true and a predicted class is drawn; null if it is outside of what is shown.
  function placeOf([trueOne, predictedOne]) {
    const { group } = view.plan, { row: top, column: left, rows: high, columns: wide } = part();
    const row = order().indexOf(trueOne) - top, column = order().indexOf(predictedOne) - left;
    return row < 0 || column < 0 || row >= high || column >= wide ? null : [Math.floor(row / group), Math.floor(column / group)];
  }

  const add = (values, which) => which.reduce((total, i) => total + values[i], 0);

  // Part of the images of the true classes, or of the predicted ones.
  function share(cell, count) {
    const total = view.share === "column" ? add(columns, cell[1]) : add(rows, cell[0]);
    return total ? count / total : 0;
  }

  function describe(at) {
    const cell = classesAt(at), count = sum(cell);
    const name = which => which.length === 1 ? block.names[which[0]] : t("{count} classes", { count: which.length });
    const of = add(rows, cell[0]);
    return `${pair("true", name(cell[0]))}\n${pair("predicted", name(cell[1]))}\n` +
      `${t("{count} of {total} ({share})", { count: grouped(count), total: grouped(of), share: percent(of ? count / of : null) })}`;
  }

  // The room that the longest name needs, in pixels.
  function longest() {
    const context = canvas.getContext("2d");
    context.font = NAMES(13);
    return 14 + Math.max(20, ...block.names.slice(0, 200).map(name => context.measureText(name).width));
  }

  // Places and sizes for the present width: how many classes a cell has, and how large it is.
  function makePlan(width) {
    const { rows: high, columns: wide } = part(), most = Math.max(high, wide);
    const label = Math.min(width < 520 ? SIZES.narrow : SIZES.label, longest()), room = Math.min(width, limit) - label - 4;
    const group = Math.max(1, Math.ceil(most / (room / 2)));
    const cell = Math.min(largest, room / Math.ceil(most / group));
    const named = group === 1 && cell >= SIZES.readable;
    const side = named ? label : 20;
    return { group, named, left: side, top: side, cell: named ? cell : Math.min(largest, (Math.min(width, limit) - side - 4) / Math.ceil(most / group)),
      rows: Math.ceil(high / group), columns: Math.ceil(wide / group) };
  }

  function at(event) {
    const box = canvas.getBoundingClientRect(), { left, top, cell, rows: high, columns: wide } = view.plan;
    const column = Math.floor((event.clientX - box.left - left) / cell), row = Math.floor((event.clientY - box.top - top) / cell);
    return row >= 0 && column >= 0 && row < high && column < wide ? [row, column] : null;
  }

  function activate(place) {
    const { cell, group } = view.plan;
    if (group > 1 || cell < SIZES.pick) { zoom(place); return; }
    const [[row], [column]] = classesAt(place);
    view.chosen = [row, column];
    paint();
    announce("cell", { row, column });
  }

  function zoom([row, column]) {
    const { group } = view.plan, whole = part(), size = Math.min(SIZES.shown, n);
    const from = at => Math.max(0, Math.min(n - size, at - Math.floor(size / 2)));
    view.window = { row: from(whole.row + (row + 0.5) * group), column: from(whole.column + (column + 0.5) * group), rows: size, columns: size };
    view.window.row = Math.floor(view.window.row);
    view.window.column = Math.floor(view.window.column);
    view.cursor = [Math.floor(size / 2), Math.floor(size / 2)];
    show();
  }

  function paint() { paintMatrix(canvas, { view, block, classesAt, filled, share, placeOf }); }

  function show(width = host.clientWidth) {
    view.plan = makePlan(width);
    view.cursor = [Math.min(view.cursor[0], view.plan.rows - 1), Math.min(view.cursor[1], view.plan.columns - 1)];
    back.hidden = !view.window;
    canvas.setAttribute("aria-label", t("Confusion matrix. Arrow keys move, Enter shows the images of a cell."));
    hint();
    paint();
  }

  function hint() {
    const zooms = view.plan.group > 1 || view.plan.cell < SIZES.pick;
    if (!zooms && !payload.predictions && !payload.detections) { status.textContent = ""; return; }
    say(status, zooms ? "Choose a place to zoom in." : "Choose a cell to see its images.");
  }

  function move(event) {
    const step = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
    if (event.key === "Enter" || event.key === " ") { event.preventDefault(); activate(view.cursor); return; }
    if (event.key === "Escape") { hideTip(); if (view.window) { view.window = null; show(); } return; }
    if (!step) return;
    event.preventDefault();
    view.cursor = view.cursor.map((value, i) => Math.max(0, Math.min([view.plan.rows, view.plan.columns][i] - 1, value + step[i])));
    paint();
    const box = canvas.getBoundingClientRect(), { left, top, cell } = view.plan;
    delete status.dataset.t;
    status.textContent = describe(view.cursor).replaceAll("\n", t(", "));
    showTip(describe(view.cursor), box.left + left + (view.cursor[1] + 1) * cell, box.top + top + view.cursor[0] * cell);
  }

  canvas.addEventListener("pointermove", event => {
    const place = at(event);
    if (place) showTip(describe(place), event.clientX, event.clientY); else hideTip();
  });
  canvas.addEventListener("pointerleave", hideTip);
  canvas.addEventListener("blur", () => { hideTip(); paint(); });
  canvas.addEventListener("focus", paint);
  canvas.addEventListener("click", event => { const place = at(event); if (place) { view.cursor = place; activate(place); } });
  canvas.addEventListener("keydown", move);

  const shares = segments([["count", "Counts"], ["row", "Share of the true class"], ["column", "Share of the prediction"]], view.share, value => { view.share = value; paint(); });
  const arranged = make("select", { onchange: event => { view.order = event.target.value; view.window = null; show(); } },
    [["data", "As in the data"], ["clustered", "Confused classes together"], ["accuracy", "Lowest accuracy first"]].map(([value, phrase]) =>
      fill(say(make("option", { value }), phrase), { selected: value === view.order }, [])));
  if (n <= SIZES.shown) host.closest(".figures").classList.add("side-by-side"); // with the images of its cells
  const tools = make("div", { class: "tools" }, shares.node, n > 2 ? make("label", {}, label("Order"), arranged) : null, back);
  host.append(tools, make("div", { class: "wide" }, canvas), status, pairList(block, counts, rows, n));
  drawn(host, show);
}

// The pairs with the most confusions, as buttons that show their images.
function pairList(block, counts, rows, n) {
  const worst = [...counts].map(([key, count]) => [Math.floor(key / n), key % n, count]).filter(([row, column]) => row !== column)
    .sort((a, b) => b[2] - a[2] || b[2] / rows[b[0]] - a[2] / rows[a[0]] || a[0] - b[0]).slice(0, 12);
  const items = worst.map(([row, column, count]) => make("li", {}, make("button", { type: "button", class: "pair", onclick: () => announce("cell", { row, column }) },
    make("span", { class: "pair-names" }, block.names[row], make("span", { class: "soft" }, " → "), block.names[column]),
    make("span", { class: "soft" }, `${grouped(count)} · ${percent(count / rows[row], 0)}`))));
  return items.length ? make("div", {}, say(make("h3"), "Most frequent confusions"), make("ol", { class: "pairs" }, items)) : make("div");
}

const shade = (palette, value) => {
  const at = Math.max(0, Math.min(1, value)) * (palette.length - 1), i = Math.min(palette.length - 2, Math.floor(at));
  return palette[i].map((channel, k) => Math.round(channel + (palette[i + 1][k] - channel) * (at - i)));
};
const luminance = rgb => rgb.reduce((total, value, i) => total + [0.2126, 0.7152, 0.0722][i] * ((value / 255) ** 2.2), 0);

function paintMatrix(canvas, { view, block, classesAt, filled, share, placeOf }) {
  const { left, top, cell, rows, columns, named, group } = view.plan, ratio = devicePixelRatio || 1;
  const width = left + columns * cell + 4, height = top + rows * cell + 4, context = canvas.getContext("2d");
  Object.assign(canvas, { width: width * ratio, height: height * ratio });
  Object.assign(canvas.style, { width: `${width}px`, height: `${height}px` });
  context.scale(ratio, ratio);
  const palette = [0, 1, 2, 3, 4].map(i => channels(colour(`cell${i}`))), ink = colour("ink"), soft = colour("soft");
  const cells = filled(), most = Math.max(1, ...cells.map(([, , count, isDiagonal]) => isDiagonal ? 1 : count));
  context.font = NAMES(Math.min(13, Math.max(9, cell * 0.42)));
  context.textAlign = "center";
  context.textBaseline = "middle";
  const gap = cell > 8 ? 1 : 0;
  context.fillStyle = `rgb(${palette[0]})`;
  context.fillRect(left, top, columns * cell, rows * cell);
  for (const [row, column, count, isDiagonal] of cells) {
    const part = share(classesAt([row, column]), count);
    // Among many classes each confusion is rare: there, errors are shown relative to the most frequent one.
    const value = group > 1 && !isDiagonal ? Math.min(1, count / most) : part;
    const rgb = shade(palette, (group > 1 ? 0.3 : 0.12) + (group > 1 ? 0.7 : 0.88) * Math.sqrt(value));
    context.fillStyle = `rgb(${rgb})`;
    context.fillRect(left + column * cell, top + row * cell, cell - gap, cell - gap);
    if (cell < 22) continue;
    context.fillStyle = luminance(rgb) > 0.3 ? "#10151c" : "#ffffff";
    const text = view.share === "count" ? (count > 9999 ? `${Math.round(count / 1000)}k` : String(count)) : (100 * part).toFixed(0);
    context.fillText(text, left + (column + 0.5) * cell, top + (row + 0.5) * cell, cell - 3);
  }
  if (named) paintNames(context, view, block, classesAt, ink);
  else {
    context.fillStyle = soft;
    context.font = "12px system-ui, sans-serif";
    context.textAlign = "left";
    context.fillText(`${t("predicted")} →`, left, top - 9);
    context.save();
    context.translate(9, top);
    context.rotate(-Math.PI / 2);
    context.textAlign = "right";
    context.fillText(`← ${t("true")}`, 0, 0);
    context.restore();
  }
  if (document.activeElement === canvas) outline(context, view.plan, view.cursor, ink);
  if (view.chosen) {
    const place = placeOf(view.chosen);
    if (place) outline(context, view.plan, place, colour("c2"));
  }
}

function outline(context, { left, top, cell }, [row, column], style) {
  context.strokeStyle = style;
  context.lineWidth = 2;
  context.strokeRect(left + column * cell, top + row * cell, Math.max(4, cell - 1), Math.max(4, cell - 1));
}

function paintNames(context, view, block, classesAt, ink) {
  const { left, top, cell, rows, columns } = view.plan;
  context.font = NAMES(Math.min(13, Math.max(9, cell - 1)));
  context.fillStyle = ink;
  const cut = name => {
    if (context.measureText(name).width <= left - 12) return name;
    const letters = [...name];
    while (letters.length && context.measureText(`${letters.join("")}…`).width > left - 12) letters.pop();
    return `${letters.join("")}…`;
  };
  context.textAlign = "right";
  for (let row = 0; row < rows; row++) context.fillText(cut(block.names[classesAt([row, 0])[0][0]]), left - 7, top + (row + 0.5) * cell);
  for (let column = 0; column < columns; column++) nameColumn(context, cut(block.names[classesAt([0, column])[1][0]]), left + (column + 0.5) * cell, top - 7, cell);
}

// The name above a column: as it is if there is room, Chinese letter below letter, others turned.
function nameColumn(context, name, x, bottom, cell) {
  const letters = [...name], size = Math.min(13, Math.max(9, cell - 1)), isNarrow = context.measureText(name).width <= cell - 6;
  context.textAlign = "center";
  if (isNarrow) context.fillText(name, x, bottom - size / 2);
  else if (/^[\u2e80-\u9fff\uf900-\ufaff\uac00-\ud7af…]+$/u.test(name)) letters.forEach((letter, i) => context.fillText(letter, x, bottom - (letters.length - i - 0.5) * size));
  else {
    context.save();
    context.translate(x, bottom);
    context.rotate(-Math.PI / 2);
    context.textAlign = "left";
    context.fillText(name, 0, 0);
    context.restore();
  }
}
