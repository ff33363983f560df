// Sorting, searching and filtering of tables. Without it everything is readable; the order is then the one of the file.
"use strict";
for (const table of document.querySelectorAll("table[data-sortable]")) {
  const body = table.tBodies[0];
  const rows = [...body.rows];
  const heads = [...table.tHead.rows[0].cells];
  const tools = document.querySelector(`.tools[data-for="${table.id}"]`);
  const value = (row, column) => {
    const cell = row.cells[column];
    return cell.dataset.value ?? cell.textContent.trim();
  };
  const compare = (a, b) => {
    return !isNaN(a) && !isNaN(b) ? a - b : a.localeCompare(b, "en", { numeric: true, sensitivity: "base" });
  };
  const sort = (column, down) => { // what is not known comes last, whichever way
    const known = rows.filter((row) => value(row, column) !== "");
    const unknown = rows.filter((row) => value(row, column) === "");
    known.sort((a, b) => (down ? -1 : 1) * compare(value(a, column), value(b, column)));
    body.append(...known, ...unknown);
    heads.forEach((head, place) => {
      if (place === column) head.setAttribute("aria-sort", down ? "descending" : "ascending");
      else head.removeAttribute("aria-sort");
    });
  };
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const now = head.getAttribute("aria-sort");
      sort(column, now ? now === "ascending" : head.dataset.first === "down");
    });
  });
  if (!tools) continue;
  const search = tools.querySelector("input[type=search]");
  const picks = [...tools.querySelectorAll("select[data-tag]")];
  const by = tools.querySelector("select[data-by]");
  const said = tools.querySelector("output");
  const words = new Map(rows.map((row) => [row, `${row.textContent} ${row.dataset.words ?? ""}`.toLowerCase()]));
  const filter = () => {
    const wanted = (search ? search.value : "").toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const row of rows) {
      const tags = (row.dataset.tags ?? "").split(" ");
      const fits = wanted.every((word) => words.get(row).includes(word)) && picks.every((pick) => !pick.value || tags.includes(pick.value));
      row.hidden = !fits;
      shown += fits;
    }
    if (said) said.textContent = `${shown} of ${rows.length} shown`;
  };
  for (const one of [search, ...picks]) if (one) one.addEventListener("input", filter);
  if (search) search.addEventListener("keydown", (event) => {
    if (event.key === "Escape") { search.value = ""; filter(); }
  });
  if (by) {
    heads.forEach((head, column) => by.add(new Option(head.textContent, column)));
    by.addEventListener("input", () => by.value !== "" && sort(Number(by.value), heads[by.value].dataset.first === "down"));
  }
  tools.hidden = false;
  const asked = new URLSearchParams(location.search).get("q");
  if (search && asked) search.value = asked;
  filter();
}
