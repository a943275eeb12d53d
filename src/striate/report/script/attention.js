// Cross-attention of a sequence model: which tokens of the source, or places of the image, an answer looks at.

const visible = token => token === " " ? "␣" : token;

// A row of tokens, one of which is chosen by pointing, focus or arrow keys.
function tokenRow(tokens, act) {
  const row = make("p", { class: "tokens", role: "listbox", tabindex: 0 });
  let chosen = 0;
  const nodes = tokens.map((token, i) => make("span", { role: "option", onpointerenter: () => choose(i), onclick: () => choose(i) }, visible(token)));
  function choose(i) {
    chosen = i;
    nodes.forEach((node, at) => node.setAttribute("aria-selected", String(at === i)));
    act(i);
  }
  row.addEventListener("keydown", event => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    event.preventDefault();
    choose(Math.max(0, Math.min(nodes.length - 1, chosen + step)));
  });
  row.append(...nodes);
  return { row, choose };
}

function drawAttention(block, host) {
  const most = weights => Math.max(1e-9, ...weights);
  const source = block.source.map(token => make("span", {}, visible(token)));
  const status = make("p", { class: "status", "aria-live": "polite" });
  const { row, choose } = tokenRow(block.target, i => {
    const weights = block.weights[i];
    source.forEach((node, k) => node.style.setProperty("--share", `${Math.round(85 * weights[k] / most(weights))}%`));
    const best = weights.indexOf(most(weights));
    status.textContent = best < 0 ? "" : `${visible(block.target[i])} ← ${visible(block.source[best])} (${percent(weights[best], 0)})`;
  });
  row.setAttribute("aria-label", t("answer"));
  host.append(make("p", { class: "soft small-label" }, label("answer")), row, make("p", { class: "soft small-label" }, label("source")),
    make("p", { class: "tokens heat" }, source), status, make("div", { class: "wide" }, attentionGrid(block, choose)));
  if (block.target.length) choose(0);
}

// All weights at once: a row for each token of the answer, a column for each token of the source.
function attentionGrid(block, choose) {
  const cell = 15, left = 64, top = 56, width = left + cell * block.source.length, height = top + cell * block.target.length;
  const svg = shape("svg", { width, height, viewBox: `0 0 ${width} ${height}`, "aria-hidden": "true" });
  const cut = token => [...visible(token)].slice(0, 7).join("");
  block.source.forEach((token, k) => svg.append(shape("text", { transform: `translate(${left + (k + 0.7) * cell} ${top - 5}) rotate(-90)`, class: "token" }, cut(token))));
  block.target.forEach((token, i) => {
    const most = Math.max(1e-9, ...block.weights[i]);
    svg.append(shape("text", { x: left - 6, y: top + (i + 0.75) * cell, "text-anchor": "end", class: "token" }, cut(token)));
    block.weights[i].forEach((weight, k) => svg.append(shape("rect", {
      x: left + k * cell, y: top + i * cell, width: cell - 1, height: cell - 1, fill: "var(--c1)", "fill-opacity": Math.max(0.04, weight / most),
      onpointermove: event => { showTip(`${visible(token)} ← ${visible(block.source[k])}\n${percent(weight)}`, event.clientX, event.clientY); choose(i); }, onpointerleave: hideTip,
    })));
  });
  return svg;
}

function drawImageAttention(block, host) {
  const [width, height] = block.size, image = make("img", { alt: "", src: block.image });
  const canvas = make("canvas", { "aria-hidden": "true" });
  const { row, choose } = tokenRow(block.target, i => paintHeat(canvas, block.weights[i]));
  const scale = Math.max(1, Math.min(4, 480 / width));
  const stage = make("div", { class: "stage", style: `aspect-ratio: ${width} / ${height}; width: min(100%, ${Math.round(width * scale)}px)` }, image, canvas);
  row.setAttribute("aria-label", t("answer"));
  host.append(stage, row);
  if (block.target.length) choose(0);
}
