// The anatomy of a network: sizes for any input, the graph, receptive fields over the image.

const data = JSON.parse(document.getElementById("data").textContent);
const layers = data.layers, STEP = 24;
const element = id => document.getElementById(id);
const colours = [[/conv/i, "#2563eb"], [/pool|mean/i, "#dc2626"], [/norm/i, "#a3a3a3"], [/linear|matmul|attention/i, "#7c3aed"],
  [/add|cat|mul/i, "#059669"]];
const paintOf = type => (colours.find(([word]) => word.test(type)) || [0, "#d97706"])[1];

// The output size of one operator: N = floor((W - F + 2 P) / S) + 1 and its variants.
function follow(rule, size) {
  return size.map((n, i) => {
    if (rule.kind === "window") {
      const span = rule.dilation[i] * (rule.kernel[i] - 1) + 1;
      if (rule.transposed)
        return (n - 1) * rule.stride[i] - 2 * rule.padding[i] + span + rule.output_padding[i];
      const room = n + 2 * rule.padding[i] - span;
      if (room < 0) return 0;
      if (!rule.ceil) return Math.floor(room / rule.stride[i]) + 1;
      const count = Math.ceil(room / rule.stride[i]) + 1;
      return (count - 1) * rule.stride[i] >= n + rule.padding[i] ? count - 1 : count;
    }
    if (rule.kind === "fixed") return rule.size[i];
    if (rule.kind === "scale") return Math.floor(n * rule.after[i] / rule.before[i]);
    if (rule.kind === "pad") return n + rule.before[i] + rule.after[i];
    if (rule.kind === "slice" && rule.axis === i) {
      const place = (at, otherwise) => at === null ? otherwise : Math.max(0, Math.min(n, at < 0 ? at + n : at));
      const length = place(rule.end, n) - place(rule.start, 0);
      return Math.max(0, Math.ceil(length / rule.step));
    }
    return n;
  });
}

// Sizes and costs of all layers for an image of this size; `wrong` marks layers that it does not fit.
function recompute(height, width) {
  if (!data.resizable) return layers.map(layer => ({ size: null, macs: layer.macs, wrong: false }));
  const out = [];
  layers.forEach((layer, index) => {
    const from = layer.inputs.map(i => i < 0 ? { size: [height, width] } : out[i]);
    const first = from.find(item => item.size) || {};
    const now = { size: null, macs: layer.macs, wrong: from.some(item => item.wrong) };
    if (layer.output.length === 4 && first.size) {
      now.size = layer.rules.reduce((size, rule) => follow(rule, size), first.size);
      const before = layer.output.slice(2), rule = layer.rules.find(rule => rule.kind === "window");
      if (layer.macs && rule && rule.transposed) {
        const old = layer.inputs[0] < 0 ? data.image : layers[layer.inputs[0]].output.slice(2);
        now.macs = layer.macs / (old[0] * old[1]) * first.size[0] * first.size[1];
      } else if (layer.macs) now.macs = layer.macs / (before[0] * before[1]) * now.size[0] * now.size[1];
      if (now.size.some(n => n < 1)) now.wrong = true;
      from.forEach(item => { // sums and concatenations need equal sizes
        if (layer.rules.every(rule => rule.kind === "same") && item.size && !item.size.every((n, i) => n === first.size[i] || n === 1 || first.size[i] === 1)) now.wrong = true;
      });
    } else if (first.size && !layer.rules.some(rule => rule.kind === "flat")) {
      // The maps are flattened; the weights of the next layer fix their size.
      const source = layer.inputs[0], old = source < 0 ? data.image : layers[source].output.slice(2);
      if (!first.size.every((n, i) => n === old[i])) now.wrong = true;
    }
    out[index] = now;
  });
  return out;
}

const at = (reach, unit) => {
  const period = reach.spans.length, q = Math.floor(unit / period), [lo, hi] = reach.spans[unit - q * period];
  return [lo + q * reach.advance, hi + q * reach.advance];
};
let now = [], size = data.image.slice(), chosen = -1;
const pattern = (context, w, h) => {
  const sky = context.createLinearGradient(0, 0, 0, h);
  sky.addColorStop(0, "#9cc4e8"); sky.addColorStop(0.6, "#f3e7d3"); sky.addColorStop(0.6, "#7a9b6d"); sky.addColorStop(1, "#4b6b45");
  context.fillStyle = sky; context.fillRect(0, 0, w, h);
  context.fillStyle = "#f2b84b"; context.beginPath(); context.arc(w * 0.72, h * 0.28, h * 0.12, 0, 7); context.fill();
  context.fillStyle = "#7c5a43"; context.fillRect(w * 0.25, h * 0.42, w * 0.26, h * 0.34);
  context.fillStyle = "#a8452f"; context.beginPath(); context.moveTo(w * 0.2, h * 0.42); context.lineTo(w * 0.38, h * 0.24); context.lineTo(w * 0.56, h * 0.42); context.fill();
};
function show(index) {
  chosen = index;
  const canvas = element("canvas"), context = canvas.getContext("2d"), [h, w] = size, margin = 0.25;
  canvas.width = 680; canvas.height = Math.round(680 * h / w);
  const scale = canvas.width / (w * (1 + 2 * margin)), left = w * margin * scale, top = (canvas.height - h * scale) / 2;
  context.fillStyle = "#8884"; context.fillRect(0, 0, canvas.width, canvas.height);
  context.save(); context.translate(left, top);
  const picture = element("picture");
  if (picture && picture.complete) context.drawImage(picture, 0, 0, w * scale, h * scale); else pattern(context, w * scale, h * scale);
  document.querySelectorAll("#rows tr").forEach((row, i) => row.classList.toggle("on", i === index));
  if (index >= 0 && layers[index].reach.length === 2 && layers[index].reach.every(Boolean)) {
    const layer = layers[index], map = now[index].size || layer.map || [1, 1];
    const unit = map.map(n => Math.floor(n / 2)), [y, x] = layer.reach.map((reach, i) => at(reach, layer.map ? unit[i] : 0));
    const box = [x[0] * scale, y[0] * scale, (x[1] - x[0] + 1) * scale, (y[1] - y[0] + 1) * scale];
    context.fillStyle = "#d1005730"; context.fillRect(...box);
    context.strokeStyle = "#fff"; context.lineWidth = 9; context.strokeRect(...box);
    context.strokeStyle = "#d10057"; context.lineWidth = 4; context.setLineDash(layer.whole ? [12, 8] : []);
    context.strokeRect(...box);
    const values = { name: layer.name || layer.type, unit: unit.join(", "), map: map.join(" x "), top: y[0], bottom: y[1], left: x[0], right: x[1] };
    const seen = label(layer.map ? "{name}: unit {unit} of {map} sees rows {top} to {bottom}, columns {left} to {right}." : "{name}: every unit sees rows {top} to {bottom}, columns {left} to {right}.", values);
    delete element("message").dataset.t;
    element("message").replaceChildren(seen, " ", ...(layer.whole ? [label("Through a global path it also sees the whole image."), " "] : []), label("Pixels outside the image are padding."));
    element("message").dataset.field = JSON.stringify([y, x]);
  }
  context.restore();
}
function resize() {
  now = recompute(...size);
  let total = 0, wrong = null;
  document.querySelectorAll("#rows tr").forEach((row, i) => {
    const layer = layers[i], item = now[i];
    row.classList.toggle("wrong", item.wrong);
    if (item.wrong && wrong === null) wrong = layer.name;
    const sizes = item.size ? [layer.output[1], ...item.size] : layer.output.slice(1);
    row.children[3].replaceChildren(item.wrong ? label("does not fit") : sizes.join(" x "));
    row.children[9].textContent = item.macs ? item.macs.toLocaleString("en") : "";
    total += item.macs;
  });
  const values = { size: size.join(" x "), name: wrong, count: grouped(total) };
  element("state").replaceChildren(wrong !== null ? label("an image of {size} does not fit: {name}", values) : label("{count} MACs at {size}", values),
    ...(data.resizable ? [] : [" ", label("(this page cannot change the input size of this network)")]));
  element("state").dataset.macs = wrong === null ? total : "";
  show(chosen);
}
function draw() {
  const wide = 14, columns = Math.max(...data.lanes, 0) + 2, NS = "http://www.w3.org/2000/svg", svg = element("drawing");
  const head = document.querySelector("thead").offsetHeight, x = lane => 10 + wide * lane, y = i => head + STEP * i + STEP / 2;
  svg.setAttribute("width", wide * columns); svg.setAttribute("height", head + STEP * layers.length);
  document.querySelectorAll("td.graph").forEach(cell => { cell.style.minWidth = wide * columns + "px"; });
  const add = (name, attributes) => {
    const node = document.createElementNS(NS, name);
    for (const key in attributes) node.setAttribute(key, attributes[key]);
    svg.appendChild(node);
  };
  layers.forEach((layer, i) => layer.inputs.forEach(from => {
    const a = from < 0 ? [x(0), head] : [x(data.lanes[from]), y(from)], b = [x(data.lanes[i]), y(i)];
    // A line runs down the lane of its source and bends at the layer that reads it, or at once in a new lane.
    const stays = from >= 0 && i - from > 1 && a[0] > b[0] ? b[1] - STEP : a[1];
    add("path", { d: `M${a} L${a[0]},${stays} C${a[0]},${stays + STEP * 0.6} ${b[0]},${stays + STEP * 0.4} ${b[0]},${stays + STEP} L${b}`,
      fill: "none", stroke: "#98a2b3", "stroke-width": 1.5 });
  }));
  layers.forEach((layer, i) => {
    const side = layer.map ? 4 + 8 * Math.log2(1 + layer.map[0]) / Math.log2(1 + data.image[0]) : 5;
    add("rect", { x: x(data.lanes[i]) - side / 2, y: y(i) - side / 2, width: side, height: side, rx: 1.5, fill: paintOf(layer.type) });
  });
}
layers.forEach((layer, i) => {
  const row = element("rows").insertRow(), text = value => value === null ? "" : Array.isArray(value) ? value.join("x") : value.toLocaleString("en");
  const cells = ["", layer.name || t("(whole network)"), layer.type, "", text(layer.kernel), text(layer.stride), text(layer.padding),
    text(layer.rf) + (layer.whole ? " *" : ""), layer.params ? text(layer.params) : "", ""];
  cells.forEach(cell => { row.insertCell().textContent = cell; });
  row.cells[0].className = "graph"; row.tabIndex = 0;
  row.onmouseenter = row.onfocus = () => show(i);
});
["height", "width"].forEach((id, i) => {
  const box = element(id);
  box.value = size[i]; box.disabled = !data.resizable;
  box.oninput = () => { if (+box.value >= 1) { size[i] = Math.floor(+box.value); resize(); } };
});
// #size=256x320&layer=12 opens the page with that input size and layer.
const wanted = new URLSearchParams(location.hash.slice(1));
if (wanted.has("size") && data.resizable) {
  size = wanted.get("size").split("x").map(Number); if (size.length === 1) size.push(size[0]);
  element("height").value = size[0]; element("width").value = size[1];
}
startCore();
resize(); draw();
if (wanted.has("layer")) show(+wanted.get("layer"));
if (element("picture")) element("picture").onload = () => show(chosen);
