// All runs of a folder: a table to sort and filter, and the chosen runs side by side. Asks for changes every two seconds.

const PERIOD = 2000, FEW = 5; // milliseconds; runs that are compared at first
const STATES = { finished: "finished", training: "training", stopped: "stopped" };
// Of the best epoch, which the bundle holds, or of the last one; the first metric that a run has.
const METRICS = [["top1", ""], ["map", "mAP"], ["exact", "exact match"]];
const TITLES = { train_loss: "train loss", val_loss: "val loss", train_top1: "train accuracy", val_top1: "val accuracy", val_accuracy: "val token accuracy", lr: "learning rate", images_per_second: "images per second" };
let runs = [], shown = "", chosen = null, wanted = "", order = { column: "modified", sign: -1 };

const last = (run, name) => { const values = run.epochs[name] || []; return values.length ? values[values.length - 1] : null; };
const best = (run, name) => run.best[name] ?? last(run, name);
const metric = (run, split) => METRICS.find(([name]) => best(run, `${split}_${name}`) !== null) || METRICS[0];
const score = split => [split, split, run => best(run, `${split}_${metric(run, split)[0]}`), run => { const [name, unit] = metric(run, split); return percent(best(run, `${split}_${name}`)) + (unit && ` ${t(unit)}`); }, true];
const round = value => value === null ? null : Math.round(10 * value) / 10; // of a mean
const seconds = run => (run.epochs.seconds || []).reduce((sum, one) => sum + (one || 0), 0);

// Columns: key, heading, value, text, whether it is a number.
function columns() {
  return [
    ["name", "run", run => run.name, null, false], ["state", "state", run => run.state, run => t(STATES[run.state]), false],
    ["model", "model", run => run.config.model || run.config.task || "", null, false],
    ["data", "data", run => [run.config.data].flat().filter(Boolean).map(path => String(path).split("/").pop()).join(", "), null, false],
    ["epoch", "epoch", run => last(run, "epoch"), run => `${short(round(last(run, "epoch")))}${run.config.epochs ? ` / ${run.config.epochs}` : ""}`, true],
    score("test"), score("val"), ["val_loss", "val loss", run => best(run, "val_loss"), run => short(best(run, "val_loss")), true],
    ["seconds", "seconds", seconds, run => grouped(Math.round(seconds(run))), true],
    ["modified", "changed", run => run.modified, run => new Date(run.modified * 1000).toLocaleString(language === "zh" ? "zh-CN" : "en-GB", { dateStyle: "short", timeStyle: "short" }), true],
  ];
}

// Whether a run has all words; `model:resnet` asks for one value of the configuration.
function matches(run) {
  const text = `${run.name} ${run.state} ${JSON.stringify(run.config)}`.toLowerCase();
  return wanted.toLowerCase().split(/\s+/).filter(Boolean).every(word => {
    const [name, value] = word.includes(":") ? word.split(/:(.*)/) : [null, word];
    return name && Object.hasOwn(run.config, name) ? String(run.config[name]).toLowerCase().includes(value) : text.includes(word);
  });
}

const view = {
  tools: make("div", { class: "tools" }), status: make("p", { class: "status", "aria-live": "polite" }),
  table: make("table"), charts: make("div", { class: "chart" }), options: make("div"),
};

function showTable() {
  const shown = columns(), sorter = shown.find(([key]) => key === order.column) || shown[0];
  const rows = runs.filter(matches).sort((a, b) => {
    const [x, y] = [sorter[2](a), sorter[2](b)];
    if (x === null || y === null) return (x === null) - (y === null);
    return order.sign * (typeof x === "number" ? x - y : String(x).localeCompare(String(y), undefined, { numeric: true }));
  });
  const heading = ([key, phrase, , , isNumber]) => make("th", {
    scope: "col", class: isNumber ? "number" : "", "aria-sort": key === order.column ? order.sign > 0 ? "ascending" : "descending" : null,
  }, make("button", { type: "button", "data-key": key, onclick: () => { order = { column: key, sign: key === order.column ? -order.sign : isNumber ? -1 : 1 }; showTable(); } }, label(phrase)));
  const cell = run => ([key, , value, text, isNumber]) => {
    const content = text ? text(run) : value(run);
    const linked = key === "name" && run.report ? make("a", { href: `/${encodeURIComponent(run.name)}/report.html` }, content) : content;
    return make("td", { class: isNumber ? "number" : key === "name" ? "name" : key === "state" ? `state-${run.state}` : "", title: isNumber ? null : content }, linked);
  };
  const tick = run => make("td", { class: "number" }, make("input", { type: "checkbox", checked: chosen.has(run.name), "aria-label": `${t("compare")} ${run.name}`,
    onchange: event => { chosen[event.target.checked ? "add" : "delete"](run.name); showChosen(); } }));
  const focused = document.activeElement && document.activeElement.dataset ? document.activeElement.dataset.key : null;
  view.table.replaceChildren(make("thead", {}, make("tr", {}, make("th", { scope: "col" }, make("span", { class: "hidden-text" }, label("compare"))), shown.map(heading))),
    make("tbody", {}, rows.map(run => make("tr", { class: chosen.has(run.name) ? "on" : "" }, tick(run), shown.map(cell(run))))));
  if (focused) view.table.querySelector(`[data-key="${focused}"]`)?.focus();
  say(view.status, "{count} of {total} runs", { count: rows.length, total: runs.length });
}

function showChosen() {
  const some = runs.filter(run => chosen.has(run.name)), numeric = some.flatMap(run => Object.keys(run.epochs));
  const names = [...new Set(numeric)].filter(name => !["epoch", "step", "seconds"].includes(name));
  for (const row of view.table.tBodies[0]?.rows || []) row.classList.toggle("on", row.querySelector("input").checked);
  forget(view.charts);
  view.charts.replaceChildren();
  view.options.replaceChildren();
  if (!some.length) return;
  const panels = make("div", { class: "panels" });
  view.charts.append(say(make("h2"), "Curves"), legend(some.map((run, i) => ({ label: run.name, ...lookOf(i) }))), panels);
  for (const name of names) {
    const lines = some.map((run, i) => ({ label: run.name, x: run.epochs.epoch || [], y: run.epochs[name] || [], ...lookOf(i) })).filter(line => line.y.some(value => value !== null));
    if (!lines.length) continue;
    const place = make("div"), xs = lines.flatMap(line => line.x), [low, high] = extent(lines.flatMap(line => line.y));
    panels.append(place);
    const title = () => TITLES[name] ? t(TITLES[name]) : name.replaceAll("_", " ");
    lineChart(place, { title, xLabel: () => t("epoch"), yLabel: title, lines,
      x: { domain: [Math.min(...xs) - (xs.length < 2 ? 1 : 0), Math.max(...xs, Math.min(...xs) + 1)], format: String, whole: true }, y: { domain: [low, high], format: short } });
  }
  showOptions(some);
}

// The options in which the chosen runs differ.
function showOptions(some) {
  const keys = [...new Set(some.flatMap(run => Object.keys(run.config)))];
  const text = value => value === undefined || value === null ? "–" : Array.isArray(value) ? value.join(", ") : typeof value === "object" ? JSON.stringify(value) : String(value);
  const differ = keys.filter(key => new Set(some.map(run => text(run.config[key]))).size > 1 && key !== "name");
  if (some.length < 2 || !differ.length) return;
  view.options.append(say(make("h2"), "Different options"), make("div", { class: "wide", tabindex: 0, role: "region", "aria-label": t("Different options") }, make("table", {},
    make("thead", {}, make("tr", {}, make("th", {}, label("option")), some.map(run => make("th", { scope: "col" }, run.name)))),
    make("tbody", {}, differ.map(key => make("tr", {}, make("td", {}, key), some.map(run => make("td", {}, text(run.config[key])))))))));
}

// Asks for the runs, shows them if they have changed, and asks again later.
async function follow() {
  const text = await fetch("/runs.json").then(answer => answer.text()).catch(() => null);
  setTimeout(follow, PERIOD);
  if (text === shown) return;
  shown = text;
  if (text === null) { say(view.status, "The server has ended; start `striate view` again."); return; }
  const answer = JSON.parse(text);
  runs = answer.runs;
  document.getElementById("folder").textContent = answer.folder;
  if (!chosen) chosen = new Set(runs.filter(run => (run.epochs.epoch || []).length).slice(0, FEW).map(run => run.name));
  showTable();
  showChosen();
}

startCore();
const search = make("input", { type: "search", class: "search", oninput: () => { wanted = search.value; showTable(); } });
const named = () => { search.placeholder = t("filter, such as model:resnet18 training"); search.setAttribute("aria-label", search.placeholder); if (chosen) showTable(); };
view.tools.append(search);
document.getElementById("view").append(view.tools, view.status, make("div", { class: "wide" }, view.table), view.charts, view.options);
redraws.push(named);
named();
follow().then(() => { document.documentElement.dataset.ready = "true"; });
