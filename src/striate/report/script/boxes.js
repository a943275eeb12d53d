// Draws the boxes, masks and key points of an image.

const KINDS = { right: ["c3", "true positive"], wrong: ["c2", "false positive"], missed: ["c5", "missed object"] };

// The boxes of an image at a score threshold: detections above it, and the objects that none of these match.
function visibleBoxes(image, threshold) {
  const found = [];
  for (const box of image.boxes) {
    if (box.kind !== "object") { if (box.score >= threshold) found.push(box); }
    else if (box.score === null || box.score < threshold) found.push({ ...box, kind: "missed" });
  }
  return found.sort((a, b) => (a.kind === "wrong") - (b.kind === "wrong")); // false positives on top
}

// An image with boxes; those that `isFaint` holds for are drawn thin.
function boxedPicture(image, boxes, { isFaint = () => false, labels = null } = {}) {
  const [width, height] = image.size, unit = Math.max(width, height) / 100;
  const svg = shape("svg", { viewBox: `0 0 ${width} ${height}`, class: "photo-boxes", role: "img", "aria-label": image.name });
  if (image.picture) svg.append(shape("image", { href: image.picture, width, height }));
  for (const box of boxes) {
    const faint = isFaint(box), [x, y, w, h] = box.box, paint = `var(--${KINDS[box.kind][0]})`;
    const look = { fill: "none", stroke: paint, "stroke-width": faint ? 1 : 2.5, opacity: faint ? 0.45 : 1, "vector-effect": "non-scaling-stroke",
      "stroke-dasharray": box.kind === "missed" ? "6 4" : null };
    const group = shape("g", { class: "box" });
    if (box.runs) group.append(shape("image", { href: maskPicture(box), width, height, preserveAspectRatio: "none", opacity: faint ? 0.2 : 0.5 }));
    group.append(shape("rect", { x, y, width: Math.max(w, 0.1), height: Math.max(h, 0.1), ...look }));
    for (const [px, py] of box.points || []) group.append(shape("circle", { cx: px, cy: py, r: unit * 0.7, fill: paint, opacity: look.opacity }));
    if (labels && !faint) group.append(shape("text", { x: x + unit / 2, y: Math.max(y - unit / 2, unit * 3),
      style: `font-size: ${unit * 2.3}px; fill: ${paint}; stroke: var(--page); stroke-width: ${unit * 0.6}px; paint-order: stroke` }, labels(box)));
    svg.append(group);
  }
  return svg;
}

// A mask from its runs, as the address of a picture in the color of its kind.
function maskPicture(box) {
  const [width, height] = box.mask, canvas = make("canvas", { width, height }), context = canvas.getContext("2d");
  const pixels = context.createImageData(width, height), rgb = channels(colour(KINDS[box.kind][0]));
  let at = 0;
  box.runs.forEach((length, i) => {
    if (i % 2) for (let k = at; k < at + length; k++) pixels.data.set([...rgb, 255], 4 * k);
    at += length;
  });
  context.putImageData(pixels, 0, 0);
  return canvas.toDataURL();
}
