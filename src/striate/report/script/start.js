// Draws the figures of a page of sections; the functions are in the other files.

const payload = JSON.parse(document.getElementById("payload").textContent);

const drawings = {
  curves: (block, host) => drawCurves(block, host),
  matrix: (block, host) => drawMatrix(block, host),
  reliability: (block, host) => drawReliability(block, host),
  gallery: (block, host) => drawGallery(host),
  classes: (block, host) => drawClasses(host),
  precision_recall: (block, host) => drawPrecisionRecall(block, host),
  attention: (block, host) => drawAttention(block, host),
  image_attention: (block, host) => drawImageAttention(block, host),
  answers: (block, host) => drawAnswers(host),
  samples: (block, host) => drawSamples(block, host),
  bars: (block, host) => drawBars(block, host),
  thresholds: (block, host) => drawThresholds(block, host),
  detections: (block, host) => drawDetections(block, host),
};

startCore();
sortTables();
payload.detections = payload.blocks.find(block => block.kind === "detections");
if (payload.predictions) openPredictions(payload.predictions);
for (const host of document.querySelectorAll("[data-block]")) {
  const block = payload.blocks[Number(host.dataset.block)], place = make("div");
  host.prepend(place);
  drawings[block.kind](block, place);
}
document.documentElement.dataset.ready = "true";
