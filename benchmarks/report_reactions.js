// Milliseconds of each reaction of the large page; bench_report.py puts a number in place of REPEATS.
(async () => {
  const find = selector => document.querySelector(selector), canvas = find("canvas");
  const at = (x, y) => { const box = canvas.getBoundingClientRect(); return { clientX: box.left + box.width * x, clientY: box.top + box.height * y, bubbles: true }; };
  const set = (node, value, event) => { node.value = value; node.dispatchEvent(new Event(event)); };
  const order = [...document.querySelectorAll("select")].find(list => list.value === "clustered");
  const back = () => [...document.querySelectorAll("button")].find(button => button.textContent === "Show all classes").click();
  const actions = {
    "point at the matrix": [() => canvas.dispatchEvent(new PointerEvent("pointermove", at(0.4, 0.6)))],
    "zoom into the matrix": [() => canvas.dispatchEvent(new MouseEvent("click", at(0.5, 0.5))), back],
    "show the images of a confusion": [() => find(".pair").click()],
    "show uncertain predictions": [() => find("[data-value=uncertain]").click(), () => find("[data-value=wrong]").click()],
    "show all predictions": [() => find("[data-value=all]").click(), () => find("[data-value=wrong]").click()],
    "show counts instead of shares": [() => find("[data-value=count]").click(), () => find("[data-value=row]").click()],
    "order the matrix by accuracy": [() => set(order, "accuracy", "change"), () => set(order, "clustered", "change")],
    "choose a class": [() => find("tr[data-class='7']").click(), () => find("tr[data-class='8']").click()],
    "move the threshold": [() => set(find("input[type=range]"), 12, "input"), () => set(find("input[type=range]"), 30, "input")],
    "filter by file name": [() => set(find("input[type=search]"), "00012", "input"), () => set(find("input[type=search]"), "", "input")],
    "open an image": [() => find(".images button").click(), () => find("dialog").close()],
    "switch the language": [() => find("#language").click(), () => find("#language").click()],
    "switch the theme": [() => find("#theme").click(), () => find("#theme").click()],
  };
  const frame = () => new Promise(done => requestAnimationFrame(() => setTimeout(done, 0)));
  const found = {};
  for (const [name, [act, undo]] of Object.entries(actions)) {
    found[name] = Infinity;
    for (let i = 0; i < REPEATS; i++) {
      await frame();
      const start = performance.now();
      act();
      await frame();
      found[name] = Math.min(found[name], performance.now() - start);
      if (undo) { undo(); await frame(); }
    }
  }
  return found;
})()
