// A window with one of several things, and the way to its neighbors. Returns the function that opens it:
// with a list and a place in it. `content` makes the nodes that show a thing.

function openViewer(looks, content) {
  const dialog = make("dialog", { class: looks, tabindex: -1, "aria-label": t("image") });
  let list = [], place = 0;
  const has = by => place + by >= 0 && place + by < list.length;

  function show() {
    dialog.setAttribute("aria-label", t("image"));
    const step = (by, phrase) => say(make("button", { type: "button", disabled: !has(by), onclick: () => move(by) }), phrase);
    dialog.replaceChildren(...content(list[place], show).filter(Boolean), make("div", { class: "tools" }, step(-1, "Previous"), step(1, "Next"),
      say(make("button", { type: "button", onclick: () => dialog.close() }), "Close")));
  }

  function move(by) { place += by; show(); dialog.focus(); }

  dialog.addEventListener("keydown", event => {
    const by = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (by && has(by)) move(by);
  });
  dialog.addEventListener("click", event => { if (event.target === dialog) dialog.close(); });
  document.body.append(dialog);
  redraws.push(() => { if (dialog.open) show(); });
  return (found, at) => { list = found; place = at; show(); dialog.showModal(); };
}
