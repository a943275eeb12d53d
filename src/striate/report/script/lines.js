// Line charts: values under the pointer and by the arrow keys.

const MARGIN = { left: 52, right: 26, top: 26, bottom: 40 };
const PALETTE = ["c1", "c2", "c3", "c4", "c5", "c6"];

// The look of one of several lines: there are more lines than colors.
const lookOf = i => ({ colour: PALETTE[i % PALETTE.length], dashed: i >= PALETTE.length });

// About `count` round numbers from `low` to `high`.
function ticks(low, high, count = 5) {
  const span = high - low || Math.abs(high) || 1, rough = span / count, unit = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].map(factor => factor * unit).find(size => size >= rough * 0.999);
  const found = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-9; i++) found.push(+(i * step).toPrecision(12));
  return found;
}

const isWhole = number => Number.isInteger(+number.toPrecision(9));

function extent(values, floor = null) {
  const finite = values.filter(Number.isFinite);
  let low = Math.min(...finite), high = Math.max(...finite);
  if (!finite.length) return [0, 1];
  if (floor !== null) low = Math.min(floor, low);
  const room = (high - low || Math.abs(high) || 1) * 0.06;
  return [floor !== null && low === floor ? low : low - room, high + room];
}

// A chart of lines [{label, x, y, colour, faint}] in an element.
//   title, xLabel, yLabel: functions that return texts, in the page's language
//   x, y: {domain: [low, high], format}; at: x of a vertical mark, or null
//   shared: whether all lines have the same x, so that the pointer shows the values of all of them
//   choose: called with a line and the index of a point that is clicked
function lineChart(host, chart) {
  const svg = shape("svg", { tabindex: 0, role: "img" }), status = make("p", { class: "hidden-text", "aria-live": "polite" });
  const state = { line: 0, point: -1, width: 0, height: chart.height || 230 };
  host.append(svg, status);
  const place = {
    x: value => MARGIN.left + (value - chart.x.domain[0]) / (chart.x.domain[1] - chart.x.domain[0]) * (state.width - MARGIN.left - MARGIN.right),
    y: value => state.height - MARGIN.bottom - (value - chart.y.domain[0]) / (chart.y.domain[1] - chart.y.domain[0]) * (state.height - MARGIN.top - MARGIN.bottom),
  };
  const cursor = shape("g");

  function describe() {
    const line = chart.lines[state.line], i = state.point;
    const head = `${chart.xLabel()} ${chart.x.format(line.x[i])}`;
    if (!chart.shared) return `${line.label ? `${worded(line.label)}\n` : ""}${head}\n${chart.yLabel()} ${chart.y.format(line.y[i])}${line.note ? `\n${line.note(i)}` : ""}`;
    return [head, ...chart.lines.map(one => `${worded(one.label)}${t(": ")}${chart.y.format(one.y[i])}`)].join("\n");
  }

  function point() {
    cursor.replaceChildren();
    if (state.point < 0) { hideTip(); return; }
    const line = chart.lines[state.line], x = place.x(line.x[state.point]);
    cursor.append(shape("line", { class: "axis", x1: x, x2: x, y1: MARGIN.top, y2: state.height - MARGIN.bottom }));
    for (const one of chart.shared ? chart.lines : [line]) {
      const value = one.y[state.point];
      if (value !== null) cursor.append(shape("circle", { cx: x, cy: place.y(value), r: 4, fill: `var(--${one.colour})`, stroke: "var(--page)", "stroke-width": 1.5 }));
    }
    const box = svg.getBoundingClientRect(), text = describe();
    const y = line.y[state.point];
    showTip(text, box.left + x, box.top + (chart.shared || y === null ? MARGIN.top : place.y(y)));
    status.textContent = text;
  }

  function nearest(event) {
    const box = svg.getBoundingClientRect(), px = event.clientX - box.left, py = event.clientY - box.top;
    let best = Infinity;
    chart.lines.forEach((line, index) => {
      if (chart.shared && index) return;
      line.x.forEach((x, i) => {
        const gap = Math.abs(place.x(x) - px) + (chart.shared || line.y[i] === null ? 0 : Math.abs(place.y(line.y[i]) - py));
        if (gap < best) { best = gap; state.line = index; state.point = i; }
      });
    });
  }

  function key(event) {
    const line = chart.lines[state.line], last = line.x.length - 1;
    const moves = { ArrowRight: state.point + 1, ArrowLeft: state.point < 0 ? last : state.point - 1, Home: 0, End: last };
    if (event.key === "Escape") { state.point = -1; point(); return; }
    if ((event.key === "ArrowUp" || event.key === "ArrowDown") && !chart.shared && chart.lines.length > 1) {
      state.line = (state.line + (event.key === "ArrowDown" ? 1 : chart.lines.length - 1)) % chart.lines.length;
      state.point = Math.min(Math.max(0, state.point), chart.lines[state.line].x.length - 1);
    } else if (event.key in moves) state.point = Math.max(0, Math.min(last, moves[event.key]));
    else if (event.key === "Enter" && chart.choose && state.point >= 0) { chart.choose(line, state.point); return; }
    else return;
    event.preventDefault();
    point();
  }

  svg.addEventListener("pointermove", event => { nearest(event); point(); });
  svg.addEventListener("pointerleave", () => { state.point = -1; point(); });
  svg.addEventListener("blur", () => { state.point = -1; point(); });
  svg.addEventListener("keydown", key);
  svg.addEventListener("click", event => { if (chart.choose) { nearest(event); if (state.point >= 0) chart.choose(chart.lines[state.line], state.point); } });

  drawn(host, width => {
    state.width = Math.min(width, chart.widest || 560);
    hideTip();
    svg.replaceChildren();
    fill(svg, { width: state.width, height: state.height, viewBox: `0 0 ${state.width} ${state.height}`, "aria-label": chart.title() }, []);
    drawAxes(svg, chart, place, state);
    if (chart.diagonal) svg.append(shape("line", { class: "grid", "stroke-dasharray": "4 4", x1: place.x(0), y1: place.y(0), x2: place.x(1), y2: place.y(1) }));
    if (chart.at !== null && chart.at !== undefined) svg.append(shape("line", { class: "axis", "stroke-dasharray": "2 4", x1: place.x(chart.at), x2: place.x(chart.at), y1: MARGIN.top, y2: state.height - MARGIN.bottom }));
    for (const line of chart.lines) drawLine(svg, line, place);
    svg.append(cursor);
    point();
  });
}

function drawAxes(svg, chart, place, state) {
  const right = state.width - MARGIN.right, bottom = state.height - MARGIN.bottom;
  for (const value of ticks(...chart.y.domain, 4)) {
    svg.append(shape("line", { class: "grid", x1: MARGIN.left, x2: right, y1: place.y(value), y2: place.y(value) }),
      shape("text", { x: MARGIN.left - 6, y: place.y(value) + 4, "text-anchor": "end" }, chart.y.format(value, true)));
  }
  const wanted = Math.max(2, Math.floor((right - MARGIN.left) / 80));
  for (const value of ticks(...chart.x.domain, wanted).filter(value => !chart.x.whole || Number.isInteger(value)))
    svg.append(shape("text", { x: place.x(value), y: bottom + 16, "text-anchor": "middle" }, chart.x.format(value, true)));
  svg.append(shape("line", { class: "axis", x1: MARGIN.left, x2: right, y1: bottom, y2: bottom }),
    shape("text", { class: "title", x: 0, y: 14 }, chart.title()),
    shape("text", { x: right, y: bottom + 33, "text-anchor": "end" }, chart.xLabel()));
}

function drawLine(svg, line, place) {
  let path = "", open = false;
  line.x.forEach((x, i) => {
    if (line.y[i] === null) { open = false; return; }
    path += `${open ? "L" : "M"}${place.x(x).toFixed(1)},${place.y(line.y[i]).toFixed(1)}`;
    open = true;
  });
  const looks = line.faint ? { class: "faint" } : { class: "line", stroke: `var(--${line.colour})`, "stroke-dasharray": line.dashed ? "5 4" : null };
  svg.append(shape("path", { d: path, ...looks }));
  if (line.x.length < 3) line.x.forEach((x, i) => { if (line.y[i] !== null) svg.append(shape("circle", { cx: place.x(x), cy: place.y(line.y[i]), r: 3, fill: `var(--${line.colour})` })); });
}

function legend(lines) {
  const paint = ({ colour, dashed }) => dashed ? `repeating-linear-gradient(90deg, var(--${colour}) 0 5px, transparent 5px 8px)` : `var(--${colour})`;
  return make("p", { class: "legend" }, lines.map(line => make("span", {}, make("i", { style: `background: ${paint(line)}` }),
    Array.isArray(line.label) ? label(...line.label) : line.label)));
}

// Training curves: a chart for each panel.
function drawCurves(block, host) {
  const panels = make("div", { class: "panels" });
  host.append(panels);
  for (const panel of block.panels) {
    const place = make("div");
    panels.append(place);
    const lines = panel.lines.map((line, i) => ({ ...line, x: block.x, ...lookOf(panel.lines.length > 1 ? i : 2) }));
    const [low, high] = extent(lines.flatMap(line => line.y), panel.floor);
    const span = block.x.length > 1 ? [block.x[0], block.x[block.x.length - 1]] : [block.x[0] - 1, block.x[0] + 1];
    lineChart(place, {
      title: () => worded(panel.title), xLabel: () => t("epoch"), yLabel: () => "", shared: true, lines, at: block.best,
      x: { domain: span, format: String, whole: true },
      y: { domain: [low, panel.share && high < 1.1 ? Math.min(1.02, high) : high], format: panel.share ? (v, tick) => percent(v, tick && isWhole(100 * v) ? 0 : 1) : short },
    });
    if (lines.length > 1) place.append(legend(lines));
  }
}
