// Gallery: the errors, the uncertain predictions, the images of a class or of a cell of the confusion matrix.

const PAGE = 24; // images that are shown at first, and added by each "Show more"

function drawGallery(host) {
  const choice = { list: "wrong", cls: NONE, cell: null, text: "", count: PAGE };
  const grid = make("ul", { class: "images" }), status = make("p", { class: "status", "aria-live": "polite" });
  const more = say(make("button", { type: "button", onclick: () => { choice.count += 4 * PAGE; show(); } }), "Show more");
  const chip = make("button", { type: "button", hidden: true, onclick: () => { choice.cell = null; show(); } });
  const lists = segments([["wrong", "Errors"], ["uncertain", "Uncertain"], ["all", "All"]], choice.list, value => choose({ list: value, cell: null }));
  const classes = classChoice("all classes", k => choose({ cls: k, cell: null }));
  const search = make("input", { type: "search", oninput: event => choose({ text: event.target.value.toLowerCase() }) });
  openHeat(payload.predictions.maps);
  const maps = heatButton(() => show()), note = make("p", { class: "status" });
  const viewer = openViewer(null, (image, again) => classified(image, () => {
    again();
    show();
    document.querySelector("dialog .heat").focus();
  }));
  let found = [];

  function choose(changes) {
    Object.assign(choice, { count: PAGE }, changes);
    show();
  }

  function matches(image) {
    const { labels, predicted, paths } = predictions;
    if (choice.cell && (labels[image] !== choice.cell.row || predicted[image] !== choice.cell.column)) return false;
    if (choice.cls !== NONE && labels[image] !== choice.cls && predicted[image] !== choice.cls) return false;
    return !choice.text || paths[image].toLowerCase().includes(choice.text);
  }

  function show() {
    const list = choice.cell ? choice.cell.row === choice.cell.column ? "uncertain" : "wrong" : choice.list;
    found = Array.from(listed(list).filter(matches));
    if (choice.list !== "all" || choice.cell) found.sort((a, b) => predictions.images.has(b) - predictions.images.has(a)); // stable
    grid.replaceChildren(...found.slice(0, choice.count).map((image, place) => thumbnailOf(image, () => viewer(found, place))));
    more.hidden = found.length <= choice.count;
    lists.show(choice.cell ? "" : choice.list);
    classes.value = choice.cls;
    chip.hidden = !choice.cell;
    if (choice.cell) chip.textContent = `${className(choice.cell.row)} → ${className(choice.cell.column)}  ×`;
    if (maps) maps.setAttribute("aria-pressed", String(heat.shown));
    note.hidden = !heat.shown;
    say(note, "What speaks for the predicted class (Grad-CAM): the stronger the color, the more. {count} images have a map.", { count: grouped(heat.maps.size) });
    search.placeholder = t("file name");
    search.setAttribute("aria-label", t("file name"));
    const isPart = predictions.paths.length < predictions.total;
    say(status, isPart ? "{count} images; the page lists {listed} of {total}, predictions.csv has all" : found.length === 1 ? "1 image" : "{count} images",
      { count: grouped(found.length), listed: grouped(predictions.paths.length), total: grouped(predictions.total) });
  }

  listen("cell", cell => {
    choose({ cell, cls: NONE, text: "" });
    search.value = "";
    host.closest("figure").scrollIntoView({ block: "nearest", behavior: "instant" });
  });
  listen("class images", k => {
    choose({ cls: k, cell: null, list: "wrong" });
    host.closest("figure").scrollIntoView({ block: "start", behavior: "instant" });
  });
  host.append(make("div", { class: "tools" }, lists.node, make("label", {}, label("Class"), classes), search, maps, chip), status, note, grid, more);
  redraws.push(show);
  show();
}

function thumbnailOf(image, open) {
  const truth = className(predictions.labels[image]), guess = className(predictions.predicted[image]);
  const wrong = isWrong(image), name = predictions.paths[image].split("/").pop();
  const text = wrong ? `${guess} ${percent(chance(image, 0), 0)}${t(", ")}${pair("true", truth)}` : `${guess} ${percent(chance(image, 0), 0)}`;
  return make("li", {}, make("button", { type: "button", onclick: open, title: `${text}\n${predictions.paths[image]}`, "aria-label": `${text}, ${name}` },
    veiled(image, photo(image, { loading: "lazy" })),
    make("span", { class: "cap" }, make("b", { class: wrong ? "no" : "yes" }, guess), ` ${percent(chance(image, 0), 0)}`),
    wrong ? make("span", { class: "cap" }, pair("true", ""), make("b", {}, truth)) : null,
    make("span", { class: "cap" }, name.length > 18 ? `…${name.slice(-16)}` : name)));
}

// What a window shows of an image: its five best classes and its file. `again` shows it again.
function classified(image, again) {
  const { top, best, labels, own, paths, predicted } = predictions, truth = labels[image], link = fileLink(image);
  const guess = (name, share, isTruth) => make("div", { class: `guess${isTruth ? " truth" : ""}` }, make("span", { class: "name", title: name }, name, isTruth ? " ✓" : ""),
    make("span", { class: "meter" }, make("i", { style: `width: ${(100 * share).toFixed(1)}%` })), make("span", { class: "value" }, percent(share)));
  const ranks = predicted[image] === NONE ? [] : Array.from({ length: best }, (_, rank) => rank);
  const rows = ranks.map(rank => guess(className(top[image * best + rank]), chance(image, rank), top[image * best + rank] === truth));
  if (!ranks.some(rank => top[image * best + rank] === truth)) rows.push(guess(className(truth), own[image] / predictions.scale, true));
  return [
    veiled(image, photo(image, { class: "photo" })),
    make("p", {}, pair("predicted", ""), make("b", { class: isWrong(image) ? "serious" : "" }, className(predicted[image])), " · ", pair("true", ""), make("b", {}, className(truth))),
    ...rows,
    heat.maps.has(image) ? heatButton(again) : null,
    make("p", { class: "path" }, link ? make("a", { href: link }, paths[image]) : paths[image]),
  ];
}
