// The predictions of a page: which images there are, what the model says about them, and what is chosen.

const NONE = -1;
let predictions = null;

function decodedNames({ shared, rest }) {
  let before = "";
  return rest.map((text, i) => { before = before.slice(0, shared[i]) + text; return before; });
}

function openPredictions(packed) {
  const top = numbers(packed.top), labels = numbers(packed.labels), best = packed.best;
  const lost = 2 ** (8 * top.BYTES_PER_ELEMENT) - 1;
  const images = new Map(packed.thumbnails.of.map((image, i) => [image, packed.thumbnails.jpeg[i]]));
  predictions = {
    classes: packed.classes, paths: decodedNames(packed.names), labels, best, images, base: packed.base,
    top, chances: numbers(packed.chances), own: numbers(packed.own), total: packed.count,
    bins: packed.bins.n, counts: numbers(packed.bins.counts), scale: packed.chances.type === "f32" ? 1 : 65535,
    exact: packed.exact && { labels: numbers(packed.exact.labels), chances: numbers(packed.exact.chances) },
    predicted: Int32Array.from(labels, (_, i) => top[i * best] === lost ? NONE : top[i * best]),
    lists: {}, // of images, made when they are first asked for
  };
  setTimeout(() => listed("uncertain"), 200); // so that the first click does not wait for it
}

const chance = (image, rank) => predictions.chances[image * predictions.best + rank] / predictions.scale;
const isWrong = image => predictions.predicted[image] !== predictions.labels[image];
const className = k => k === NONE ? t("scores not finite") : predictions.classes[k];

// Difference of the two largest probabilities.
const margin = image => predictions.best > 1 ? chance(image, 0) - chance(image, 1) : chance(image, 0);

// The images of a list, in its order: "wrong" by falling confidence, "uncertain" by rising margin, "all" by path.
function listed(name) {
  const { lists, labels } = predictions;
  if (lists[name]) return lists[name];
  const all = Uint32Array.from(labels, (_, i) => i);
  if (name === "all") lists.all = all;
  else if (name === "wrong") {
    const sure = Float32Array.from(all, i => predictions.predicted[i] === NONE ? 2 : chance(i, 0));
    lists.wrong = all.filter(isWrong).sort((a, b) => sure[b] - sure[a] || a - b);
  } else {
    const gap = Float32Array.from(all, margin);
    lists.uncertain = all.filter(i => predictions.predicted[i] !== NONE).sort((a, b) => gap[a] - gap[b] || a - b);
  }
  return lists[name];
}

// Address of an image's file; null if it is none that a browser can open.
const fileLink = image => predictions.base === null ? null : fileAddress(predictions.paths[image], predictions.base);

// An image of the page, or its place if the page does not contain it.
function photo(image, looks) {
  const content = predictions.images.get(image);
  if (!content) return make("span", { class: "blank" }, label("not in this page"));
  const node = make("img", { alt: "", src: `data:image/jpeg;base64,${content}`, ...looks });
  node.onload = () => { if (node.naturalWidth <= 48) node.classList.add("tiny"); };
  return node;
}

// A choice of a class: a box to type into would not list the classes, so it is a plain list.
function classChoice(first, act) {
  const options = predictions.classes.map((name, k) => make("option", { value: k }, name));
  const none = first ? [say(make("option", { value: NONE }), first)] : [];
  return make("select", { onchange: event => act(Number(event.target.value)) }, none, options);
}
