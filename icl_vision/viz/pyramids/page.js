// The readout of the word under pointer, finger or focus. Everything it says is in the page; it only moves it there.
(() => {
  "use strict";
  const tip = document.createElement("div");
  tip.id = "tip";
  tip.hidden = true;
  tip.setAttribute("role", "status");
  document.body.append(tip);

  const groups = [...document.querySelectorAll(".rove")];
  const itemsOf = new Map();
  for (const group of groups) {
    const items = [...group.querySelectorAll(".it")];
    itemsOf.set(group, items);
    items.forEach((item, place) => {
      // The bubble takes the place of the browser's own, which neither a finger nor the keyboard can open.
      item.setAttribute("aria-label", item.title);
      item.removeAttribute("title");
      item.tabIndex = place === 0 ? 0 : -1;
    });
  }

  let shown = null;
  function clear() {
    for (const item of document.querySelectorAll(".same")) item.classList.remove("same");
    tip.hidden = true;
    shown = null;
  }

  function show(item) {
    if (item === shown) return;
    clear();
    shown = item;
    const text = item.getAttribute("aria-label"), cut = text.lastIndexOf(": ");
    const word = document.createElement("b");
    word.textContent = text.slice(0, cut);
    tip.replaceChildren(word, text.slice(cut + 2));
    tip.hidden = false;
    const layer = item.closest(".layer");
    if (layer) {
      for (const other of layer.querySelectorAll(`[data-w="${item.dataset.w}"]`)) {
        if (other !== item) other.classList.add("same");
      }
    }
    tip.style.left = tip.style.top = "0";
    const box = item.getBoundingClientRect(), own = tip.getBoundingClientRect();
    const room = document.documentElement.clientWidth;
    const left = Math.max(8, Math.min(box.left + box.width / 2 - own.width / 2, room - own.width - 8));
    const above = box.top - own.height - 8;
    tip.style.left = `${left + scrollX}px`;
    tip.style.top = `${(above >= 4 ? above : box.bottom + 8) + scrollY}px`;
  }

  const found = (event) => (event.target instanceof Element ? event.target.closest(".rove .it") : null);

  document.addEventListener("pointerover", (event) => {
    if (event.pointerType !== "mouse") return;
    const item = found(event);
    if (item) show(item);
    else if (shown && shown !== document.activeElement) clear();
  });
  document.addEventListener("click", (event) => {
    const item = found(event);
    if (!item) return clear();
    focusOn(item);
    show(item);
  });
  document.addEventListener("focusin", (event) => {
    const item = found(event);
    if (item) show(item);
    else clear();
  });
  document.addEventListener("focusout", () => clear());

  function focusOn(item) {
    for (const other of itemsOf.get(item.closest(".rove"))) other.tabIndex = other === item ? 0 : -1;
    item.focus({ preventScroll: true });
  }

  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape") return clear();
    const item = found(event);
    if (!item || event.ctrlKey || event.metaKey || event.altKey) return;
    const group = item.closest(".rove"), items = itemsOf.get(group), columns = Number(group.dataset.columns || 1);
    const steps = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns };
    let to = items.indexOf(item);
    if (event.key in steps) to += steps[event.key];
    else if (event.key === "Home") to = 0;
    else if (event.key === "End") to = items.length - 1;
    else return;
    event.preventDefault();
    if (!items[to]) return;
    focusOn(items[to]);
    items[to].scrollIntoView({ block: "nearest" });
    shown = null;
    show(items[to]);
  });
  addEventListener("resize", clear);
  document.documentElement.dataset.ready = "yes";
})();
