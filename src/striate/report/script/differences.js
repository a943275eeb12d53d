// Differences of two texts, letter by letter; long texts word by word.

const LETTERS = 400; // of a text that is compared letter by letter

function pieces(text) { return [...text].length > LETTERS ? text.split(/(\s+)/) : [...text]; }

// The pieces of `answer`, each with whether a longest common subsequence with `reference` contains it.
function matched(answer, reference) {
  const a = pieces(answer), b = pieces(reference), width = b.length + 1, best = new Uint16Array((a.length + 1) * width);
  for (let i = a.length - 1; i >= 0; i--) for (let j = b.length - 1; j >= 0; j--)
    best[i * width + j] = a[i] === b[j] ? best[(i + 1) * width + j + 1] + 1 : Math.max(best[(i + 1) * width + j], best[i * width + j + 1]);
  const kept = [];
  for (let i = 0, j = 0; i < a.length;) {
    if (j < b.length && a[i] === b[j]) { kept.push([a[i++], true]); j++; }
    else if (j < b.length && best[i * width + j + 1] > best[(i + 1) * width + j]) j++;
    else kept.push([a[i++], false]);
  }
  return kept;
}

// A text in which what the other text does not have is marked.
function compared(text, other, kind) {
  const runs = [];
  for (const [piece, same] of matched(text, other)) {
    if (runs.length && runs[runs.length - 1][1] === same) runs[runs.length - 1][0] += piece;
    else runs.push([piece, same]);
  }
  return make("span", { class: "text" }, runs.map(([piece, same]) => same ? piece : make("mark", { class: kind }, piece)));
}
