// Heat maps over images: what an answer or a class depends on.

// Weights `[rows][columns]` as a veil over the image: what is looked at gets the color of the figure.
function paintHeat(canvas, weights) {
  const rows = weights.length, columns = weights[0].length, context = canvas.getContext("2d");
  const most = Math.max(1e-9, ...weights.flat()), [red, green, blue] = channels(colour("c2"));
  Object.assign(canvas, { width: columns, height: rows });
  const pixels = context.createImageData(columns, rows);
  weights.flat().forEach((weight, i) => pixels.data.set([red, green, blue, Math.round(190 * weight / most)], 4 * i));
  context.putImageData(pixels, 0, 0);
}

const HEAT_SIDE = 192; // pixels of the longer side of a veil, which has the shape of its image

// The heat maps of the predictions of a page: whether they are shown, and the veil over an image.
const heat = { shown: false, maps: new Map(), rows: 0, columns: 0, ratio: 1 };

function openHeat(packed) {
  if (!packed) return;
  const values = numbers(packed.values), size = packed.rows * packed.columns;
  Object.assign(heat, packed, { maps: new Map(packed.of.map((image, i) => [image, values.subarray(i * size, (i + 1) * size)])) });
}

// A button that shows and hides the maps; `act` draws again what depends on it. Null if the page has no maps.
function heatButton(act) {
  if (!heat.maps.size) return null;
  return say(make("button", { type: "button", class: "heat", "aria-pressed": String(heat.shown), onclick: () => { heat.shown = !heat.shown; act(); } }), "Heat maps");
}

// An image, under its veil if the maps are shown.
function veiled(image, node) {
  const values = heat.shown && heat.maps.get(image);
  if (!values) return node;
  const small = make("canvas"), { rows, columns, ratio } = heat, shorter = HEAT_SIDE / Math.max(1, ratio, 1 / ratio);
  const canvas = make("canvas", { "aria-hidden": "true", width: Math.round(shorter * Math.max(1, ratio)), height: Math.round(shorter * Math.max(1, 1 / ratio)) });
  paintHeat(small, Array.from({ length: rows }, (_, row) => Array.from(values.subarray(row * columns, (row + 1) * columns))));
  canvas.getContext("2d").drawImage(small, 0, 0, canvas.width, canvas.height);
  return make("span", { class: "veiled" }, node, canvas);
}
