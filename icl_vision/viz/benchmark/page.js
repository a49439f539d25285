"use strict";
// The browser of single questions. Its state is the part of the address after "#", so that every view is a link:
// s setting, r row, v answers (wrong, right, none), t true label, a answer (-1: none), i item.
(() => {
  const PAGE = 40, MATRIX = 24, MISTAKES = 12, KEPT = 16;
  const KEYS = ["s", "r", "v", "t", "a", "i"];
  const byId = (id) => document.getElementById(id);
  const texts = (kind) => Array.from(document.querySelectorAll("script." + kind));
  // Control characters would hide what a text really is.
  const clean = (text) => String(text).replace(/[\u0000-\u0008\u000b-\u001f\u007f]/g, "\ufffd");

  function el(tag, attributes, ...children) {
    const node = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes || {})) {
      if (name.startsWith("--") || name === "width%") node.style.setProperty(name.replace("%", ""), value);
      else if (value !== null && value !== undefined && value !== false) node.setAttribute(name, clean(value));
    }
    for (const child of children.flat()) {
      if (child === null || child === undefined) continue;
      node.append(child instanceof Node ? child : document.createTextNode(clean(child)));
    }
    return node;
  }

  async function unpack(text) {
    const raw = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
    const stream = new Blob([raw]).stream().pipeThrough(new DecompressionStream("deflate"));
    return new Uint8Array(await new Response(stream).arrayBuffer());
  }
  const unpackJson = async (text) => JSON.parse(new TextDecoder().decode(await unpack(text)));

  let index, columns, order, state = {}, page = 0, shown = [], asked = 0;
  const blocks = new Map(), pictures = new Map();

  async function block(number) {
    if (!blocks.has(number)) {
      if (blocks.size >= KEPT) blocks.delete(blocks.keys().next().value);
      blocks.set(number, unpackJson(texts("block")[number].textContent));
    }
    return blocks.get(number);
  }

  function picture(image, alt) {
    const chunk = Math.floor(image / 100);
    if (!pictures.has(chunk)) {
      const source = texts("thumbs")[chunk];
      pictures.set(chunk, source ? source.textContent.split(" ") : []);
    }
    const data = pictures.get(chunk)[image % 100];
    if (!data) return el("span", { class: "hole", role: "img", "aria-label": alt + " (image not in this file)" }, "no image");
    return el("img", { src: "data:image/webp;base64," + data, alt: alt, loading: "lazy" });
  }

  // Answers: 0 none recorded, else 1 + right + 2 * (0 abstained, 1 + label).
  const rowColumn = () => columns.get("row " + index.rows.indexOf(state.r));
  const answerOf = (code) => ({ right: ((code - 1) & 1) === 1, label: ((code - 1) >> 1) - 1 });
  const labelText = (label) => (label < 0 ? "no answer" : index.labels[label]);

  function link(changes) {
    const next = new URLSearchParams();
    const values = { ...state, ...changes };
    for (const key of KEYS) if (values[key] !== "" && values[key] !== undefined) next.set(key, values[key]);
    return "#" + next.toString();
  }

  function readState() {
    const given = new URLSearchParams(location.hash.slice(1));
    const next = {};
    for (const key of KEYS) next[key] = given.get(key) || "";
    if (!index.settings.includes(next.s)) next.s = "";
    const able = rowsWithAnswers();
    if (!able.includes(next.r)) next.r = able.includes("likelihood") ? "likelihood" : able[0] || "";
    return next;
  }

  const rowsWithAnswers = () => index.rows.filter((_, place) => columns.has("row " + place));

  function matching(withAnswers) {
    const codes = rowColumn();
    if (!codes) return [];
    const setting = state.s === "" ? -1 : index.settings.indexOf(state.s);
    const found = [];
    for (const item of order) {
      if (codes[item] === 0 || (setting >= 0 && columns.get("setting")[item] !== setting)) continue;
      if (withAnswers) {
        const answer = answerOf(codes[item]);
        if (state.v === "wrong" && answer.right) continue;
        if (state.v === "right" && !answer.right) continue;
        if (state.v === "none" && answer.label >= 0) continue;
        if (state.t !== "" && columns.get("truth")[item] !== Number(state.t)) continue;
        if (state.a !== "" && answer.label !== Number(state.a)) continue;
      }
      found.push(item);
    }
    return found;
  }

  function fill(id, choices) {
    const select = byId(id);
    select.replaceChildren(...choices.map(([value, text]) => el("option", { value: value }, text)));
    select.value = state[id];
  }

  function renderFilters() {
    const plain = (row) => row.replaceAll("_", " ").replace("control:", "control: ");
    const labels = index.labels.map((text, place) => [String(place), text]);
    labels.sort((one, other) => (one[1] < other[1] ? -1 : 1));
    fill("s", [["", "all settings"], ...index.settings.map((id) => [id, id])]);
    fill("r", rowsWithAnswers().map((row) => [row, plain(row)]));
    fill("v", [["", "all"], ["wrong", "wrong"], ["right", "right"], ["none", "no answer"]]);
    fill("t", [["", "anything"], ...labels]);
    fill("a", [["", "anything"], ["-1", "(no answer)"], ...labels]);
  }

  function renderMatrix() {
    const codes = rowColumn(), truth = columns.get("truth");
    const counts = new Map(), mistakes = new Map(), totals = new Map();
    for (const item of matching(false)) {
      const answer = answerOf(codes[item]), key = truth[item] + ">" + answer.label;
      counts.set(key, (counts.get(key) || 0) + 1);
      totals.set(truth[item], (totals.get(truth[item]) || 0) + 1);
      if (!answer.right) {
        for (const label of [truth[item], answer.label]) mistakes.set(label, (mistakes.get(label) || 0) + 1);
      }
    }
    const every = new Set();
    for (const key of counts.keys()) key.split(">").forEach((label) => every.add(Number(label)));
    every.delete(-1);
    let labels = [...every].sort((one, other) => (mistakes.get(other) || 0) - (mistakes.get(one) || 0) || one - other);
    const all = labels.length;
    labels = labels.slice(0, MATRIX).sort((one, other) => (index.labels[one] < index.labels[other] ? -1 : 1));
    const answers = mistakes.has(-1) ? [...labels, -1] : labels;
    const cell = (of, as) => {
      const count = counts.get(of + ">" + as) || 0;
      if (!count) return el("td");
      const share = Math.round((100 * count) / totals.get(of));
      const spoken = `${labelText(of)} answered as ${labelText(as)}: ${count} of ${totals.get(of)}`;
      return el("td", { class: of === as ? "hit" : "miss" },
        el("a", { href: link({ t: of, a: as, v: "", i: "" }), title: spoken, "aria-label": spoken,
          "--w": String(Math.min(55, 10 + share / 2)) }, String(count)));
    };
    const head = el("tr", {}, el("th", {}, "is \\ answered"), answers.map((as) =>
      el("th", { scope: "col" }, el("span", {}, labelText(as)))));
    const rows = labels.map((of) => el("tr", {}, el("th", { scope: "row", title: labelText(of) }, labelText(of)),
      answers.map((as) => cell(of, as))));
    byId("matrix").replaceChildren(el("table", { class: "matrix" }, el("thead", {}, head), el("tbody", {}, rows)));
    const some = all > labels.length ? `, the ${labels.length} of ${all} classes with most mistakes` : "";
    byId("matrix-title").textContent = `Confusion matrix of ${clean(state.r.replaceAll("_", " "))}, ` +
      `${clean(state.s || "all settings")}${some}`;
    const worst = [...counts].map(([key, count]) => [...key.split(">").map(Number), count])
      .filter(([of, as]) => of !== as).sort((one, other) => other[2] - one[2] || one[0] - other[0] || one[1] - other[1]);
    byId("mistakes").replaceChildren(...worst.slice(0, MISTAKES).map(([of, as, count]) => el("li", {},
      el("a", { href: link({ t: of, a: as, v: "", i: "" }) }, `${labelText(of)} \u2192 ${labelText(as)}`),
      ` ${count}`)));
    if (!worst.length) byId("mistakes").replaceChildren(el("li", {}, "none"));
  }

  function renderList() {
    const codes = rowColumn(), from = page * PAGE, visible = shown.slice(from, from + PAGE);
    byId("items").replaceChildren(...visible.map((item) => {
      const answer = answerOf(codes[item]), truth = labelText(columns.get("truth")[item]);
      const said = answer.right ? truth : `${truth} \u2192 ${labelText(answer.label)}`;
      return el("li", {}, el("a", { href: link({ i: item }), "aria-current": String(item) === state.i ? "true" : null },
        picture(columns.get("image")[item], "photograph of " + truth),
        el("span", {}, mark(answer.right), " ", said,
          el("small", {}, `episode ${columns.get("episode")[item]}, ${index.settings[columns.get("setting")[item]]}`))));
    }));
    byId("count").textContent = shown.length ? `${(from + 1).toLocaleString("en")} to ` +
      `${(from + visible.length).toLocaleString("en")} of ${shown.length.toLocaleString("en")} questions` : "no such question";
    byId("before").disabled = page === 0;
    byId("after").disabled = from + PAGE >= shown.length;
  }

  const mark = (right) => el("span", { class: right ? "good" : "bad", role: "img", "aria-label": right ? "right" : "wrong" },
    right ? "\u2713" : "\u2717");

  function chips(words, owners) {
    // Drawings in characters are rows, not words.
    if (words.some((word) => word.includes(" ") || !/[\p{L}\p{N}]/u.test(word))) {
      return el("pre", { class: "rows", role: "img", "aria-label": "text picture" }, words.join("\n"));
    }
    return el("ul", { class: "chips" }, words.slice(0, 60).map((word) => {
      const hue = owners.get(word);
      return el("li", typeof hue === "number" ? { class: "hue", "--h": String(hue) } : {}, word);
    }), words.length > 60 ? el("li", { class: "more" }, `and ${words.length - 60} more`) : null);
  }

  function bars(shares, truth, hues) {
    return el("div", { class: "guess", "aria-label": "probabilities" }, shares.flatMap(([label, share]) => [
      el("span", { class: label === truth ? "name true" : "name", title: labelText(label) }, labelText(label)),
      el("span", { class: "track", "--h": String(hues.get(label) ?? 214) },
        el("span", { class: "fill", "width%": `${Math.max(0, Math.min(100, 100 * share))}%` })),
      el("span", { class: "value" }, `${(100 * share).toFixed(share > 0 && share < 0.095 ? 1 : 0)}%`),
    ]));
  }

  async function renderDetail(number) {
    const ticket = ++asked, target = byId("detail");
    if (number === null) return target.replaceChildren(el("p", { class: "soft" }, "No question matches."));
    const found = await block(Math.floor(number / index.block));
    if (ticket !== asked) return;
    const item = found.items[number % index.block];
    const hues = new Map(item.labels.map((label, place) => [label, index.hues[place % index.hues.length]]));
    const owners = new Map();
    for (const [, label, words] of item.support) for (const word of found.words[words]) {
      const hue = hues.get(label);
      owners.set(word, owners.has(word) && owners.get(word) !== hue ? null : hue);
    }
    const [image, truth, words] = item.query, chosen = index.rows.indexOf(state.r);
    const answer = item.answers.find(([row]) => row === chosen);
    const scored = answer && answer[4].length ? answer : item.answers.find((one) => one[4].length);
    const place = shown.indexOf(number);
    const step = (to, text) => (to === undefined ? el("span", { class: "soft" }, text) : el("a", { href: link({ i: to }) }, text));
    const parts = [el("header", {}, el("h3", {}, item.id), el("span", { class: "small" },
      step(shown[place - 1], "previous"), " ", step(shown[place + 1], "next")))];
    const verdict = answer ? [mark(answer[2]), " ", labelText(answer[1]),
      el("small", { class: "soft" }, answer[2] ? "right" : `wrong: it is ${labelText(truth)}`,
        ` (${state.r.replaceAll("_", " ")})`)] : [];
    parts.push(el("div", { class: "asking" }, picture(image, "the photograph asked about, " + labelText(truth)),
      el("div", {}, el("div", { class: "verdict" }, verdict), chips(found.words[words], owners)),
      scored ? el("div", { class: "wide" }, el("h4", {}, `Probabilities (${index.rows[scored[0]].replaceAll("_", " ")})`),
        bars(scored[4], truth, hues)) : null));
    parts.push(el("h4", {}, "Shown: the examples, as their words. A coloured word occurs in one class only."),
      el("div", { class: "support", tabindex: "0", "aria-label": "support set" }, item.labels.map((label) =>
        el("div", { class: "class", "--h": String(hues.get(label)) }, el("h3", {}, labelText(label)),
          item.support.filter((tile) => tile[1] === label).map((tile) => el("div", { class: "shot" },
            picture(tile[0], "example of " + labelText(label)), chips(found.words[tile[2]], owners)))))));
    parts.push(el("h4", {}, "What every row answered"), el("ul", { class: "verdicts" }, item.answers.map(
      ([row, label, right, , , calls]) => el("li", { class: row === chosen ? "chosen" : null }, mark(right), " ",
        index.rows[row].replaceAll("_", " "), ": ", labelText(label),
        calls ? el("small", {}, ` ${calls} call${calls === 1 ? "" : "s"}`) : null)),
      Object.entries(item.notes).map(([row, note]) => el("li", { class: "soft" }, `${row.replaceAll("_", " ")}: ${note}`))));
    const raw = new Map();
    for (const [row, , , text] of item.answers) {
      if (text !== null) raw.set(text, [...(raw.get(text) || []), index.rows[row].replaceAll("_", " ")]);
    }
    for (const [text, rows] of raw) {
      parts.push(el("h4", {}, `Written by the LLM, as it came (${rows.join(", ")})`),
        el("pre", {}, text === "" ? "(nothing)" : text));
    }
    Object.entries(item.prompts).forEach(([name, text], at) => {
      parts.push(el("details", { open: at === 0 ? "" : null }, el("summary", {}, `Prompt as sent: ${name}`), el("pre", {}, text)));
    });
    const spent = Object.entries(item.usage).map(([name, value]) => `${name.replaceAll("_", " ")} ${value}`).join(", ");
    if (spent) parts.push(el("p", { class: "small soft" }, `Spent on this question: ${spent}.`));
    target.replaceChildren(...parts);
  }

  function render(first) {
    const before = state;
    state = readState();
    const filtered = KEYS.slice(0, 5).some((key) => before[key] !== state[key]);
    if (filtered || first) {
      shown = matching(true);
      page = 0;
      renderFilters();
      renderMatrix();
    }
    const wanted = state.i === "" ? -1 : shown.indexOf(Number(state.i));
    if (wanted >= 0) page = Math.floor(wanted / PAGE);
    else state.i = shown.length ? String(shown[0]) : "";
    renderList();
    const done = renderDetail(state.i === "" ? null : Number(state.i));
    if (location.hash.includes("=")) {
      const moved = filtered || first ? document.querySelector(".filters.second") : byId("detail");
      const box = moved.getBoundingClientRect();
      if (filtered || first || box.top < 0 || box.top > innerHeight * 0.6) moved.scrollIntoView({ block: "start" });
    }
    return done;
  }

  function turn(by) {
    page += by;
    renderList();
    byId("items").scrollTop = 0;
  }

  async function start() {
    if (!("DecompressionStream" in self)) return;
    const [header, numbers] = texts("index")[0].textContent.split("\n");
    index = await unpackJson(header);
    const data = await unpack(numbers);
    columns = new Map(index.columns.map((name, place) =>
      [name, new Uint32Array(data.buffer, place * 4 * index.items, index.items)]));
    const episode = columns.get("episode"), setting = columns.get("setting");
    order = Array.from({ length: index.items }, (_, item) => item);
    order.sort((one, other) => episode[one] - episode[other] || setting[one] - setting[other]);
    byId("state").hidden = true;
    byId("tool").hidden = false;
    for (const key of KEYS.slice(0, 5)) {
      byId(key).addEventListener("change", (event) => { location.hash = link({ [key]: event.target.value, i: "" }); });
    }
    byId("before").addEventListener("click", () => turn(-1));
    byId("after").addEventListener("click", () => turn(1));
    addEventListener("hashchange", () => { if (location.hash === "" || location.hash.includes("=")) render(false); });
    await render(true);
    document.documentElement.dataset.ready = "yes";
  }

  start().catch((error) => {
    byId("state").hidden = false;
    byId("state").textContent = "The questions cannot be shown: " + error;
  });
})();
