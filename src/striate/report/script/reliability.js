// Reliability diagram: how often predictions are correct, by their confidence.

function drawReliability(block, host) {
  const size = 300, left = 44, bottom = 40, top = 26, inner = size - left - 26, tall = size - top - bottom;
  const svg = shape("svg", { tabindex: 0, role: "img" }), status = make("p", { class: "hidden-text", "aria-live": "polite" });
  const x = value => left + value * inner, y = value => size - bottom - value * tall;
  const most = Math.max(1, ...block.bins.map(bin => bin[2]));
  let chosen = -1;
  const bars = block.bins.map(([low, high, count, accuracy], i) => shape("rect", {
    x: x(low) + 1, width: x(high) - x(low) - 2, y: y(accuracy || 0), height: y(0) - y(accuracy || 0), fill: "var(--c1)",
    opacity: 0.35 + 0.65 * Math.sqrt(count / most), onpointerenter: () => choose(i), onpointerleave: () => choose(-1),
  }));
  const text = ([low, high, count, accuracy]) => `${worded(block.x)} ${percent(low, 0)} – ${percent(high, 0)}\n` +
    `${worded(block.y)} ${percent(accuracy)}\n${t("{count} predictions", { count: grouped(count) })}`;

  function choose(i) {
    chosen = i;
    bars.forEach((bar, at) => bar.setAttribute("stroke", at === i ? "var(--ink)" : "none"));
    if (i < 0) { hideTip(); return; }
    const box = bars[i].getBoundingClientRect();
    status.textContent = text(block.bins[i]);
    showTip(status.textContent, box.right, box.top);
  }

  svg.addEventListener("keydown", event => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (event.key === "Escape") choose(-1);
    if (!step) return;
    event.preventDefault();
    choose(Math.max(0, Math.min(bars.length - 1, chosen + step)));
  });
  svg.addEventListener("blur", () => choose(-1));
  host.append(svg, status);
  drawn(host, () => {
    const title = t("Calibration error {error}", { error: block.ece === null ? "–" : block.ece.toFixed(3) });
    svg.replaceChildren();
    fill(svg, { width: size, height: size, viewBox: `0 0 ${size} ${size}`, "aria-label": title }, []);
    for (const value of [0, 0.25, 0.5, 0.75, 1]) {
      svg.append(shape("line", { class: "grid", x1: left, x2: x(1), y1: y(value), y2: y(value) }),
        shape("text", { x: left - 6, y: y(value) + 4, "text-anchor": "end" }, percent(value, 0)),
        shape("text", { x: x(value), y: size - bottom + 16, "text-anchor": "middle" }, percent(value, 0)));
    }
    svg.append(...bars, shape("line", { class: "axis", "stroke-dasharray": "4 4", x1: x(0), y1: y(0), x2: x(1), y2: y(1) }),
      shape("text", { class: "title", x: 0, y: 14 }, title),
      shape("text", { x: x(1), y: size - 6, "text-anchor": "end" }, worded(block.x)));
  });
}
