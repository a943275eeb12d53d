// Precision-recall curves of several classes, and their mean; the chosen one is drawn over the others.

const NO_CLASS = -1;
const MEAN = 101; // recall levels of the mean curve, as in COCO's evaluation

// Largest precision at each recall level or above it.
function levels(curve) {
  const found = new Float64Array(MEAN);
  let best = 0, i = curve.x.length - 1;
  for (let level = MEAN - 1; level >= 0; level--) {
    while (i >= 0 && curve.x[i] >= level / (MEAN - 1) - 1e-9) { best = Math.max(best, curve.y[i]); i--; }
    found[level] = best;
  }
  return found;
}

// Rows of the table of classes choose a class.
function pickClasses() {
  const rows = document.querySelectorAll("table.of-classes tr[data-class]");
  for (const row of rows) pickRow(row, () => announce("detected class", Number(row.dataset.class)));
  listen("detected class", k => { for (const row of rows) row.classList.toggle("on", Number(row.dataset.class) === k); });
}

function drawPrecisionRecall(block, host) {
  const { curves } = block;
  pickClasses();
  if (!curves.length) { host.append(label("There are no objects to find.")); return; }
  const every = curves.map(levels), mean = Array.from({ length: MEAN }, (_, i) => every.reduce((sum, one) => sum + one[i], 0) / every.length);
  const grid = mean.map((_, i) => i / (MEAN - 1));
  const note = curve => i => curve.score ? `${t("score")} ${short(curve.score[i])}` : "";
  const format = (v, tick) => percent(v, tick ? 0 : 1), place = make("div");
  const choice = make("select", { onchange: event => { const i = Number(event.target.value); choose(i); announce("detected class", i === NO_CLASS ? NO_CLASS : curves[i].class); } }, say(make("option", { value: NO_CLASS }), "mean of all classes"),
    curves.map((curve, i) => make("option", { value: i }, curve.name)));
  host.append(make("div", { class: "tools" }, make("label", {}, label("Class"), choice)), place);

  function choose(chosen) {
    choice.value = chosen;
    forget(place);
    place.replaceChildren();
    const background = curves.length <= 100 ? curves.map(curve => ({ label: curve.name, x: curve.x, y: curve.y, colour: "c6", faint: true, note: note(curve), curve })) : [];
    const own = chosen === NO_CLASS ? { label: ["mean of all classes", {}], x: grid, y: mean, colour: "c1" }
      : { label: curves[chosen].name, x: curves[chosen].x, y: curves[chosen].y, colour: "c2", note: note(curves[chosen]), curve: curves[chosen] };
    lineChart(place, {
      title: () => t("Precision-recall"), xLabel: () => t("recall"), yLabel: () => t("precision"), height: 340, widest: 640,
      x: { domain: [0, 1], format }, y: { domain: [0, 1.02], format }, lines: [...background, own],
      choose: (line, i) => {
        if (!line.curve) return;
        choose(curves.indexOf(line.curve));
        announce("detected class", line.curve.class);
        if (line.curve.score) announce("score", line.curve.score[i]);
      },
    });
  }

  listen("detected class", k => { const i = curves.findIndex(curve => curve.class === k); if (i >= 0 && Number(choice.value) !== i) choose(i); });
  choose(NO_CLASS);
}


