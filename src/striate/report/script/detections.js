// Images of a detector: those of a class, a cell of the confusion matrix or a score, ranked by what their mistakes cost.

const TILES = 12; // images that are shown at first

function drawDetections(block, host) {
  const K = block.classes.length, ALL = -1;
  const choice = { cls: ALL, cell: null, hidden: new Set(), score: block.score, text: "", count: TILES };
  const grid = make("ul", { class: "tiles" }), status = make("p", { class: "status", "aria-live": "polite" });
  const more = say(make("button", { type: "button", onclick: () => { choice.count += 3 * TILES; show(); } }), "Show more");
  const chip = make("button", { type: "button", hidden: true, onclick: () => { choice.cell = null; show(); } });
  const search = make("input", { type: "search", oninput: () => change({ text: search.value.toLowerCase() }) });
  const select = make("select", { onchange: () => { change({ cls: Number(select.value), cell: null }); announce("detected class", choice.cls); } },
    say(make("option", { value: ALL }), "all classes"), block.classes.map((name, k) => make("option", { value: k }, name)));
  const toggles = Object.entries(KINDS).map(([kind, [paint, phrase]]) => make("button", {
    type: "button", "aria-pressed": "true", class: "kind", style: `--kind: var(--${paint})`,
    onclick: event => { choice.hidden[choice.hidden.has(kind) ? "delete" : "add"](kind); event.currentTarget.setAttribute("aria-pressed", String(!choice.hidden.has(kind))); show(); },
  }, label(phrase)));
  const name = k => k === K ? t("no object") : block.classes[k];
  const viewer = boxViewer(block, choice, name);
  const change = changes => { Object.assign(choice, { count: TILES }, changes); show(); };

  // Whether a box is what the reader asks for; objects that are not found count for background.
  function isWanted(box) {
    if (choice.hidden.has(box.kind)) return false;
    if (choice.cls !== ALL) return box.class === choice.cls;
    if (!choice.cell) return true;
    const { row, column } = choice.cell;
    if (box.kind === "missed") return box.class === row && column === K && box.other === K;
    return box.class === column && box.other === row;
  }

  function ranked() {
    const rows = block.images.map((image, at) => ({ image, at, boxes: visibleBoxes(image, choice.score) }));
    const isFiltered = choice.cls !== ALL || choice.cell || choice.hidden.size;
    for (const row of rows) {
      row.wanted = row.boxes.filter(isWanted);
      row.effect = isFiltered ? row.wanted.reduce((sum, box) => sum + box.effect, 0) : row.image.effect;
    }
    return rows.filter(row => (row.wanted.length || !isFiltered) && (!choice.text || row.image.name.toLowerCase().includes(choice.text)))
      .sort((a, b) => b.effect - a.effect || a.at - b.at);
  }

  function show() {
    const found = ranked();
    grid.replaceChildren(...found.slice(0, choice.count).map((row, place) => tile(row, () => viewer(found.map(one => one.image), place, isWanted), isWanted)));
    more.hidden = found.length <= choice.count;
    chip.hidden = !choice.cell;
    if (choice.cell) chip.textContent = `${name(choice.cell.row)} → ${name(choice.cell.column)}  ×`;
    select.value = choice.cls;
    search.placeholder = t("file name");
    search.setAttribute("aria-label", t("file name"));
    say(status, block.images.length < block.count ? "{count} images; the page has {listed} of {total}, those with the largest effect" : found.length === 1 ? "1 image" : "{count} images",
      { count: grouped(found.length), listed: grouped(block.images.length), total: grouped(block.count) });
  }

  const up = () => host.closest("figure").scrollIntoView({ block: "nearest", behavior: "instant" });
  listen("cell", cell => { change({ cell, cls: ALL, text: "" }); search.value = ""; up(); });
  listen("detected class", cls => { if (cls !== choice.cls) change({ cls, cell: null }); });
  listen("score", score => change({ score }));
  listen("image", wanted => { const at = block.images.findIndex(image => image.name === wanted); if (at >= 0) viewer(block.images, at, () => true); });
  pickImages();
  host.append(make("div", { class: "tools" }, make("label", {}, label("Class"), select), make("span", { class: "kinds-row" }, toggles), search, chip), status, grid, more);
  redraws.push(show);
  show();
}

// Rows of a table that choose an image.
function pickImages() {
  for (const row of document.querySelectorAll("table[data-picks=image] tbody tr")) pickRow(row, () => announce("image", row.cells[0].textContent));
}

function tile({ image, boxes, effect }, open, isWanted) {
  const count = kind => boxes.filter(box => box.kind === kind).length;
  const summary = Object.keys(KINDS).map(kind => make("span", { style: `color: var(--${KINDS[kind][0]})` }, ` ${{ right: "✓", wrong: "✗", missed: "○" }[kind]}${count(kind)}`));
  return make("li", {}, make("button", { type: "button", onclick: open, title: image.name, "aria-label": `${image.name}, ${t("AP lost")} ${short(effect)}` },
    boxedPicture(image, boxes, { isFaint: box => !isWanted(box) }),
    make("span", { class: "cap" }, make("b", {}, image.name.split("/").pop())),
    make("span", { class: "cap" }, label("AP lost"), ` ${effect.toFixed(4)}`, summary)));
}

// A window with one image, its boxes and their classes.
function boxViewer(block, choice, name) {
  let isWanted = () => true;
  const text = box => box.kind === "missed" ? name(box.class) : `${name(box.class)} ${short(+box.score.toFixed(2))}`;

  function row(box, node) {
    const about = box.kind === "wrong" && box.other !== block.classes.length && box.other !== box.class ? ` (${t("is")} ${name(box.other)})` : "";
    const light = on => node.classList.toggle("lit", on);
    return make("li", { onpointerenter: () => light(true), onpointerleave: () => light(false) },
      make("i", { style: `background: var(--${KINDS[box.kind][0]})` }), label(KINDS[box.kind][1]), make("b", {}, ` ${text(box)}${about}`),
      make("span", { class: "soft" }, box.effect ? ` ${t("AP lost")} ${box.effect.toFixed(4)}` : "", box.suspicion ? ` · ${t("perhaps")} ${t(box.suspicion)}` : ""));
  }

  const open = openViewer("large", image => {
    const boxes = visibleBoxes(image, choice.score);
    const picture = boxedPicture(image, boxes, { isFaint: box => !isWanted(box), labels: text }), nodes = [...picture.querySelectorAll("g.box")];
    const order = boxes.map((_, i) => i).sort((a, b) => boxes[b].effect - boxes[a].effect);
    return [picture, make("p", { class: "path" }, `${image.name} · ${t("AP lost")} ${image.effect.toFixed(4)}`),
      make("ul", { class: "box-list" }, order.slice(0, 60).map(i => row(boxes[i], nodes[i])))];
  });
  return (list, at, wanted) => { isWanted = wanted; open(list, at); };
}
