// Answers of a model of sequences: a list to search, and the answers after each epoch.

const ANSWERS = 20; // that are shown at first

function drawAnswers(host) {
  const { rows, images, count, wrong, base, areImages } = payload.answers;
  const choice = { list: wrong ? "wrong" : "all", text: "", order: "rate", count: ANSWERS };
  const list = make("ol", { class: "answers" }), status = make("p", { class: "status", "aria-live": "polite" });
  const more = say(make("button", { type: "button", onclick: () => { choice.count += 4 * ANSWERS; show(); } }), "Show more");
  const search = make("input", { type: "search", oninput: () => change({ text: search.value.toLowerCase() }) });
  const orders = make("select", { onchange: () => change({ order: orders.value }) },
    [["rate", "Highest error rate first"], ["short", "Shortest first"], ["long", "Longest first"]].map(([value, phrase]) => say(make("option", { value }), phrase)));
  const lists = segments([["wrong", "Errors"], ["all", "All"]], choice.list, value => change({ list: value }));
  const change = changes => { Object.assign(choice, { count: ANSWERS }, changes); show(); };
  const size = row => [...row[2][0]].length;
  const by = { rate: (a, b) => rows[b][3] - rows[a][3], short: (a, b) => size(rows[a]) - size(rows[b]), long: (a, b) => size(rows[b]) - size(rows[a]) };

  function show() {
    const found = rows.map((_, i) => i).filter(i => (choice.list === "all" || rows[i][3] > 0) &&
      (!choice.text || [rows[i][0], rows[i][1], ...rows[i][2]].some(text => text.toLowerCase().includes(choice.text)))).sort(by[choice.order]);
    list.replaceChildren(...found.slice(0, choice.count).map(i => answerItem(rows[i], images[i], areImages, base)));
    more.hidden = found.length <= choice.count;
    search.placeholder = t("text");
    search.setAttribute("aria-label", t("text"));
    say(status, rows.length < count ? "{count} answers; the page lists {listed} of {total}, predictions.csv has all" : found.length === 1 ? "1 answer" : "{count} answers",
      { count: grouped(found.length), listed: grouped(rows.length), total: grouped(count) });
  }

  host.append(make("div", { class: "tools" }, lists.node, search, make("label", {}, label("Order"), orders)), status, list, more);
  redraws.push(show);
  show();
}

function answerItem([source, answer, references, rate], image, areImages, base) {
  const line = (phrase, ...content) => make("div", { class: "line" }, make("span", { class: "soft" }, label(phrase)), make("span", {}, ...content));
  const link = base === null ? null : fileAddress(source, base);
  const name = areImages ? source.split("/").pop() : source;
  const parts = [
    image ? make("img", { alt: "", src: image, loading: "lazy" }) : null,
    line("source", link ? make("a", { href: link }, name) : make("span", { class: "text" }, name)),
    line("answer", compared(answer, references[0], "no")),
  ];
  if (rate > 0) parts.push(...references.map(text => line("reference", compared(text, answer, "yes"))));
  return make("li", {}, make("div", { class: "rate" }, rate > 0 ? percent(rate, 0) : "✓"), make("div", { class: "answer" }, parts));
}

// The answers to some sources after an epoch, which a slider chooses.
function drawSamples(block, host) {
  const epochs = [...new Set(block.rows.map(row => row[0]))];
  const slider = make("input", { type: "range", min: 0, max: epochs.length - 1, value: epochs.length - 1, step: 1, oninput: () => show() });
  const value = make("output"), list = make("ol", { class: "answers" });

  function show() {
    const epoch = epochs[Number(slider.value)];
    value.textContent = `${t("epoch")} ${epoch}`;
    slider.setAttribute("aria-valuetext", value.textContent);
    list.replaceChildren(...block.rows.filter(row => row[0] === epoch).map(([, source, answer, reference]) =>
      answerItem([source, answer, [reference], answer === reference ? 0 : 1], null, false, null)));
    list.querySelectorAll(".rate").forEach(node => { if (node.textContent !== "✓") node.textContent = "✗"; });
  }

  host.append(make("div", { class: "tools threshold" }, make("label", { class: "grow" }, label("epoch"), slider), value), list);
  redraws.push(show);
  show();
}
