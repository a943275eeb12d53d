// One class at a time: precision-recall and ROC curves, and what a threshold of its probability would do.

function drawClasses(host) {
  const { bins, counts, classes, exact } = predictions;
  const state = { cls: worstClass(), at: Math.round(bins / 2) / bins };
  const select = classChoice(null, k => choose(k));
  const slider = make("input", { type: "range", min: 0, max: bins, step: 1, oninput: () => { state.at = Number(slider.value) / bins; drawCounts(); } });
  const value = make("output"), table = make("div", { class: "counts" }), charts = make("div", { class: "panels" });
  const images = say(make("button", { type: "button", onclick: () => announce("class images", state.cls) }), "Show its images");

  // Images with at least a probability: [of the class, of other classes].
  function above(cls, least) {
    if (exact) {
      const n = exact.labels.length, found = [0, 0], single = Math.fround(least);
      for (let i = 0; i < n; i++) if (exact.chances[cls * n + i] >= single) found[exact.labels[i] === cls ? 0 : 1]++;
      return found;
    }
    const bin = Math.round(least * bins), sum = own => {
      let total = 0;
      for (let i = bin; i < bins; i++) total += counts[(cls * 2 + own) * bins + i];
      return total;
    };
    return [sum(1), sum(0)];
  }

  // Each threshold at which the counts change, from the highest: [threshold, as `above`].
  function thresholds(cls) {
    if (!exact) return Array.from({ length: bins + 1 }, (_, i) => [(bins - i) / bins, ...above(cls, (bins - i) / bins)]);
    const n = exact.labels.length, own = exact.chances.subarray(cls * n, (cls + 1) * n), found = [[1, 0, 0]], counted = [0, 0];
    const order = Uint32Array.from(own, (_, i) => i).sort((a, b) => own[b] - own[a]);
    order.forEach((image, place) => {
      counted[exact.labels[image] === cls ? 0 : 1]++;
      if (place + 1 === n || own[order[place + 1]] < own[image]) found.push([own[image], ...counted]);
    });
    return found;
  }

  function worstClass() {
    const wrong = new Float64Array(classes.length);
    predictions.labels.forEach((truth, i) => { if (isWrong(i)) wrong[truth]++; });
    return wrong.indexOf(Math.max(...wrong));
  }

  function choose(k) {
    state.cls = k;
    select.value = k;
    for (const row of document.querySelectorAll("table.of-classes tr[data-class]")) row.classList.toggle("on", Number(row.dataset.class) === k);
    drawCounts();
    drawCharts();
  }

  const threshold = share => percent(share, isWhole(100 * share) ? 0 : 2);

  function drawCounts() {
    const [tp, fp] = above(state.cls, state.at), [positives, negatives] = above(state.cls, 0);
    const number = (phrase, text) => make("div", {}, make("b", {}, text), label(phrase));
    value.textContent = threshold(state.at);
    slider.value = Math.round(state.at * bins);
    slider.setAttribute("aria-valuetext", value.textContent);
    table.replaceChildren(
      number("true positives", grouped(tp)), number("false positives", grouped(fp)),
      number("false negatives", grouped(positives - tp)), number("true negatives", grouped(negatives - fp)),
      number("precision", percent(tp + fp ? tp / (tp + fp) : null)), number("recall", percent(positives ? tp / positives : null)),
      number("F1", percent(2 * tp + fp + positives - tp ? 2 * tp / (tp + fp + positives) : null)),
      number("false positive rate", percent(negatives ? fp / negatives : null)));
  }

  function drawCharts() {
    const [positives, negatives] = above(state.cls, 0), points = thresholds(state.cls);
    const format = (v, tick) => percent(v, tick ? 0 : 1), axis = { domain: [0, 1], format }, up = { domain: [0, 1.02], format };
    const note = i => `${t("threshold")} ${threshold(points[i][0])}`;
    const line = (x, y) => ({ label: "", x: points.map(x), y: points.map(y), colour: "c1", note });
    const set = (_, i) => { state.at = points[i][0]; drawCounts(); };
    forget(charts);
    const places = [make("div"), make("div")];
    charts.replaceChildren(...places);
    lineChart(places[0], { title: () => t("Precision-recall"), xLabel: () => t("recall"), yLabel: () => t("precision"), x: axis, y: up, choose: set,
      lines: [line(p => positives ? p[1] / positives : 0, p => p[1] + p[2] ? p[1] / (p[1] + p[2]) : null)] });
    lineChart(places[1], { title: () => "ROC", xLabel: () => t("false positive rate"), yLabel: () => t("recall"), x: axis, y: up, choose: set, diagonal: true,
      lines: [line(p => negatives ? p[2] / negatives : 0, p => positives ? p[1] / positives : null)] });
  }

  for (const row of document.querySelectorAll("table.of-classes tr[data-class]")) {
    pickRow(row, () => choose(Number(row.dataset.class)));
  }
  host.append(
    make("div", { class: "tools" }, make("label", {}, label("Class"), select), images),
    charts,
    make("div", { class: "tools threshold" }, make("label", { class: "grow" }, label("Threshold of its probability"), slider), value),
    table);
  listen("class", choose);
  choose(state.cls);
}
