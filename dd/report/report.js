// What the reader does with report.html: sort, choose columns, look at a class, compare. No library, no network.
"use strict";
const all = (selector, within = document) => [...within.querySelectorAll(selector)];
const make = (tag, text, given = {}) => Object.assign(document.createElement(tag), { textContent: text, ...given });

// ---- a click on a title sorts the table by it; what was not measured comes last
function sort(table, key, up) {
  const value = row => {
    const cell = row.querySelector(`[data-key="${key}"]`);
    return cell.dataset.value === undefined ? cell.textContent : Number(cell.dataset.value);
  };
  const rows = all("tbody tr", table).map(row => [value(row), row]);
  rows.sort(([a], [b]) => {
    const numbers = [a, b].filter(one => typeof one === "number").length;
    if (numbers === 1) return typeof a === "number" ? -1 : 1;
    return (numbers ? a - b : a.localeCompare(b)) * (up ? 1 : -1);
  });
  for (const [, row] of rows) table.tBodies[0].append(row);
}

function sortable(table) {
  for (const head of all("thead th[data-key]", table)) {
    const button = make("button", head.textContent, { title: "sort by this column" });
    head.replaceChildren(button);
    button.onclick = () => {
      const up = head.getAttribute("aria-sort") !== "ascending";
      for (const other of all("thead th", table)) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      sort(table, head.dataset.key, up);
    };
  }
}

// ---- the columns of the tables at the top
function chooser(results) {
  const heads = new Map(all("thead th[data-key]", results).map(head => [head.dataset.key, head]));
  const box = make("details", "", { className: "chooser" });
  box.append(make("summary", "Columns"));
  for (const [key, head] of heads) {
    if (key === "label") continue;
    const tick = make("input", "", { type: "checkbox", checked: !head.classList.contains("off") });
    const label = make("label", "");
    tick.onchange = () => {
      for (const cell of all(`[data-key="${key}"]`, results)) cell.classList.toggle("off", !tick.checked);
    };
    label.append(tick, ` ${key === "value" ? "distance" : head.textContent}`);
    box.append(label);
  }
  results.querySelector("h3").before(box);
}

// ---- larger grids: all images of one class by every sampler
function classes(grid) {
  const names = all("thead th", grid).slice(1).map(head => head.textContent), each = Number(grid.dataset.each);
  if (each < 2) return;
  const first = grid.innerHTML, side = Number(grid.dataset.side);
  const labels = all("tbody th", grid).map(head => head.textContent);
  const choice = make("select", "");
  choice.append(...["one of each class", ...names].map((name, i) => make("option", name, { value: i - 1 })));
  choice.onchange = () => {
    const column = Number(choice.value);
    if (column < 0) { grid.innerHTML = first; return; }
    const body = make("tbody", "");
    labels.forEach((label, line) => {
      const row = make("tr", "");
      row.append(make("th", label));
      for (let i = 0; i < each; i++) {
        const tile = make("i", "", { className: `tile ${grid.dataset.sheet}` });
        tile.style.backgroundPosition = `${-(column * each + i) * side}px ${-line * side}px`;
        const cell = make("td", "");
        cell.append(tile);
        row.append(cell);
      }
      body.append(row);
    });
    const table = make("table", "", { className: "large" });
    table.append(body);
    grid.replaceChildren(table);
  };
  const label = make("label", "Show ");
  label.append(choice);
  grid.before(label);
}

// ---- two experiments or revisions beside each other
function compare(place, rows) {
  const sets = [...new Set(rows.map(row => row.set))];
  if (sets.length < 2) return;
  const keys = { value: "distance", quality_ratio: "of teacher", diversity: "diversity", precision: "precision",
    recall: "recall", latency_seconds: "latency", seconds_per_image: "per image", caption_accuracy: "caption acc." };
  const select = (options, chosen) => {
    const made = make("select", "");
    made.append(...options.map(([value, text]) => make("option", text, { value, selected: value === chosen })));
    made.onchange = draw;
    return made;
  };
  const a = select(sets.map(name => [name, name]), sets[0]), b = select(sets.map(name => [name, name]), sets[1]);
  const key = select(Object.entries(keys), "value"), out = make("div", "", { className: "scroll" });
  const show = value => (value == null ? "–" : Number(value.toPrecision(3)).toString());
  function draw() {
    const of = set => new Map(rows.filter(row => row.set === set).map(row => [row.label, row]));
    const [left, right] = [of(a.value), of(b.value)], table = make("table", "");
    const line = (cells, tag) => {
      const row = make("tr", "");
      cells.forEach((text, i) => row.append(make(i && tag === "td" ? "td" : "th", text)));
      return row;
    };
    table.createTHead().append(line(["sampler", a.value, b.value, "change", "beyond 2 errors"], "th"));
    const body = table.createTBody();
    for (const label of new Set([...left.keys(), ...right.keys()])) {
      const [x, y] = [left.get(label), right.get(label)];
      const [from, to] = [x?.[key.value], y?.[key.value]];
      const alike = key.value !== "value" || !x || !y || x.metric === y.metric;
      const known = from != null && to != null && alike, errors = [x, y].map(row => row?.[`${key.value}_error`]);
      const judged = known && errors.every(error => error != null);
      const change = known ? `${to >= from ? "+" : "−"}${show(Math.abs(to - from))}` : alike ? "" : "another metric";
      const verdict = judged ? (Math.abs(to - from) > 2 * Math.hypot(...errors) ? "yes" : "no") : "";
      body.append(line([label, show(from), show(to), change, verdict], "td"));
    }
    out.replaceChildren(table);
  }
  const bar = make("p", "", { className: "chosen" });
  bar.append(key, " of ", a, " and ", b, "; change: from the first to the second");
  place.append(bar, out);
  place.hidden = false;
  draw();
}

for (const table of all(".sortable table")) sortable(table);
chooser(document.querySelector("#results"));
for (const grid of all(".tiles")) classes(grid);
compare(document.querySelector("#compare"), JSON.parse(document.querySelector("#rows").textContent));
