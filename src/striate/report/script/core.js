// Helpers of all pages: elements, language, theme, tooltip. Everything is text: no HTML is parsed here.

const chinese = JSON.parse(document.getElementById("translations").textContent);
let redraws = []; // functions that draw again, after a change of the language, the theme or the width

// The settings of the reader, as far as the browser keeps them for local files.
const settings = {
  read(name) { try { return localStorage.getItem(`striate-${name}`); } catch { return null; } },
  write(name, value) { try { localStorage.setItem(`striate-${name}`, value); } catch { /* nothing is kept */ } },
};
const anchor = new URLSearchParams(location.hash.slice(1)); // #lang=zh&theme=dark

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat().filter(child => child !== null && child !== undefined));
  return node;
}

// An HTML element; attributes that start with "on" are listeners, and children may be texts.
function make(name, attributes = {}, ...children) {
  return fill(document.createElement(name), attributes, children);
}

function shape(name, attributes = {}, ...children) {
  return fill(document.createElementNS("http://www.w3.org/2000/svg", name), attributes, children);
}

// ---- language

let language = "en";

// The text in the page's language, with values put in; a phrase is [template, values].
function t(phrase, values = {}) {
  if (Array.isArray(phrase)) return t(phrase[0], phrase[1]);
  const template = (language === "zh" && Object.hasOwn(chinese, phrase)) ? chinese[phrase] : phrase;
  return template.replace(/\{(\w+)\}/g, (whole, name) => {
    if (!Object.hasOwn(values, name)) return whole;
    return Array.isArray(values[name]) ? t(values[name]) : String(values[name]);
  });
}

// Texts of phrases that scripts make are set by `translate` at every change of the language.
function say(node, phrase, values = {}) {
  node.dataset.t = JSON.stringify([phrase, values]);
  write(node, t(phrase, values));
  return node;
}

// Sets a text; what is in backticks is code.
function write(node, text) {
  node.replaceChildren(...text.split(/`([^`]+)`/).map((part, i) => (i % 2 ? make("code", {}, part) : part)));
}

const label = (phrase, values) => say(make("span"), phrase, values);

// "name: value", with the colon of the language.
const pair = (phrase, value) => `${t(phrase)}${t(": ")}${value}`;

// A text of a record: a phrase, which is translated, or a name, which never is.
const worded = text => Array.isArray(text) ? t(text) : text;

function setLanguage(name) {
  language = name;
  document.documentElement.lang = name === "zh" ? "zh-CN" : "en";
  for (const node of document.querySelectorAll("[data-t]")) write(node, t(JSON.parse(node.dataset.t)));
  for (const node of document.querySelectorAll("[data-label]")) node.setAttribute("aria-label", worded(JSON.parse(node.dataset.label)));
  const button = document.getElementById("language");
  button.textContent = name === "zh" ? "English" : "中文";
  button.lang = name === "zh" ? "en" : "zh-CN";
  redraw();
}

// ---- theme

const dark = matchMedia("(prefers-color-scheme: dark)");
let theme = anchor.get("theme") || settings.read("theme"); // null follows the system

const isDark = () => theme ? theme === "dark" : dark.matches;

function setTheme(name) {
  theme = name;
  if (theme) document.documentElement.dataset.theme = theme;
  else delete document.documentElement.dataset.theme;
  document.getElementById("theme").setAttribute("aria-pressed", isDark());
  redraw();
}

const colour = name => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

const channels = hex => [1, 3, 5].map(i => parseInt(hex.slice(i, i + 2), 16));

function redraw() { for (const again of redraws) again(); }

// Draws now, and again whenever the width of the element changes. The width is not measured at other times,
// because the browser would then lay out the whole page after each figure that is drawn.
function drawn(host, draw) {
  let width = host.clientWidth;
  const again = () => { if (width) draw(width); };
  again.host = host;
  redraws.push(again);
  new ResizeObserver(([entry]) => {
    const now = Math.floor(entry.contentRect.width);
    if (host.isConnected && now !== width) { width = now; again(); }
  }).observe(host);
  again();
}

// Stops drawing again what is in an element that is about to be emptied.
function forget(place) { redraws = redraws.filter(again => !again.host || !place.contains(again.host)); }

// ---- numbers

const grouped = number => number.toLocaleString("en");

// An array from its type and its bytes in base64.
function numbers({ type, data }) {
  const bytes = Uint8Array.from(atob(data), letter => letter.charCodeAt(0));
  return new { u8: Uint8Array, u16: Uint16Array, u32: Uint32Array, f32: Float32Array }[type](bytes.buffer);
}

// The address of a file whose path is relative to `base`.
function fileAddress(path, base) {
  const parts = path.split("/").map(encodeURIComponent).join("/");
  return path.startsWith("/") ? `file://${parts}` : base + parts;
}

function percent(share, digits = 1) {
  return share === null || Number.isNaN(share) ? "–" : `${(100 * share).toFixed(digits)}\u00a0%`;
}

function short(number) {
  if (number === null || number === undefined || !Number.isFinite(number)) return "–";
  const size = Math.abs(number);
  if (size >= 100_000) return grouped(Math.round(number));
  if (size !== 0 && size < 1e-3) return number.toExponential(2);
  return String(+number.toPrecision(4));
}

// ---- tooltip

const tip = make("div", { class: "tip", hidden: true, "aria-hidden": "true" });

function showTip(text, x, y) {
  tip.textContent = text;
  tip.hidden = false;
  const box = tip.getBoundingClientRect(), edge = 8;
  const left = x + 14 + box.width > innerWidth - edge ? x - box.width - 14 : x + 14;
  tip.style.left = `${Math.max(edge, left)}px`;
  tip.style.top = `${Math.max(edge, Math.min(y + 14, innerHeight - box.height - edge))}px`;
}

function hideTip() { tip.hidden = true; }

// ---- events that several parts of a page share

const bus = new EventTarget();
const announce = (name, detail) => bus.dispatchEvent(new CustomEvent(name, { detail }));
const listen = (name, act) => bus.addEventListener(name, event => act(event.detail));

// A group of buttons, one of which is pressed.
function segments(choices, chosen, act) {
  const buttons = choices.map(([value, phrase]) => make("button", {
    type: "button", "data-value": value, "aria-pressed": String(value === chosen), onclick: () => press(value),
  }, label(phrase)));
  const show = value => buttons.forEach(one => one.setAttribute("aria-pressed", String(one.dataset.value === value)));
  const press = value => { show(value); act(value); };
  return { node: make("span", { class: "segments", role: "group" }, buttons), show };
}

// Starts the page, in the reader's language.
function startCore() {
  document.body.append(tip);
  document.getElementById("switches").hidden = false;
  document.getElementById("theme").onclick = () => {
    setTheme(isDark() ? "light" : "dark");
    settings.write("theme", theme);
  };
  document.getElementById("language").onclick = () => {
    setLanguage(language === "zh" ? "en" : "zh");
    settings.write("language", language);
  };
  dark.addEventListener("change", () => { if (!theme) setTheme(null); });
  let before = null;
  addEventListener("beforeprint", () => {
    before = theme;
    setTheme("light");
    for (const node of document.querySelectorAll("details.values")) node.open = true;
  });
  addEventListener("afterprint", () => setTheme(before));
  addEventListener("scroll", hideTip, { passive: true });
  setTheme(theme);
  setLanguage(anchor.get("lang") || settings.read("language") || (navigator.language.startsWith("zh") ? "zh" : "en"));
}
