// Bars of the shares of groups, with the size of each group.

function drawBars(block, host) {
  const most = Math.max(1e-9, ...block.groups.map(([, share]) => share || 0));
  const rows = block.groups.map(([name, share, size]) => make("div", { class: "row" },
    make("span", { class: "name" }, worded(name)),
    make("span", { class: "meter", "aria-hidden": "true" }, make("i", { style: `width: ${(100 * (share || 0) / most).toFixed(1)}%` })),
    make("span", { class: "value" }, percent(share)), make("span", { class: "value soft" }, grouped(size))));
  const heading = (text, kind) => make("span", { class: kind }, Array.isArray(text) ? label(...text) : text);
  host.append(make("div", { class: "bars" },
    make("div", { class: "row soft" }, heading(block.group, "name"), make("span"), heading(block.title, "value"), heading(block.size, "value")), rows));
}
