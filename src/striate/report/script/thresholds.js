// Counts of a detector at a score threshold, of one class or of all.

function drawThresholds(block, host) {
  const n = block.edges.length, right = numbers(block.right), wrong = numbers(block.wrong), ALL = -1;
  const nearest = score => { let i = 0; block.edges.forEach((edge, k) => { if (edge <= score + 1e-9) i = k; }); return i; };
  const state = { cls: ALL, at: nearest(block.score) };
  const select = make("select", { onchange: () => { state.cls = Number(select.value); show(); announce("detected class", state.cls); } },
    say(make("option", { value: ALL }), "all classes"), block.names.map((name, k) => make("option", { value: k }, name)));
  const slider = make("input", { type: "range", min: 0, max: n - 1, step: 1, oninput: () => { state.at = Number(slider.value); show(); announce("score", block.edges[state.at]); } });
  const value = make("output"), table = make("div", { class: "counts" });
  const total = counts => state.cls === ALL ? block.names.reduce((sum, _, k) => sum + counts[k * n + state.at], 0) : counts[state.cls * n + state.at];

  function show() {
    const tp = total(right), fp = total(wrong);
    const objects = state.cls === ALL ? block.objects.reduce((a, b) => a + b, 0) : block.objects[state.cls];
    const number = (phrase, text) => make("div", {}, make("b", {}, text), label(phrase));
    value.textContent = short(block.edges[state.at]);
    slider.value = state.at;
    slider.setAttribute("aria-valuetext", value.textContent);
    select.value = state.cls;
    table.replaceChildren(
      number("true positives", grouped(tp)), number("false positives", grouped(fp)), number("missed", grouped(objects - tp)), number("objects", grouped(objects)),
      number("precision", percent(tp + fp ? tp / (tp + fp) : null)), number("recall", percent(objects ? tp / objects : null)),
      number("F1", percent(tp + fp + objects ? 2 * tp / (tp + fp + objects) : null)));
  }

  host.append(make("div", { class: "tools" }, make("label", {}, label("Class"), select)),
    make("div", { class: "tools threshold" }, make("label", { class: "grow" }, label("Score threshold, also of the images above"), slider), value), table);
  listen("detected class", k => { if (k !== state.cls) { state.cls = k; show(); } });
  listen("score", score => { state.at = nearest(score); show(); });
  redraws.push(show);
  show();
}
