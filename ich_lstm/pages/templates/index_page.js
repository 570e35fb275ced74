"use strict";
(() => {
  const byId = (id) => document.getElementById(id);
  const body = byId("rows"), rows = [...body.rows], heads = [...document.querySelectorAll("[data-sort]")];
  const columns = heads.map((head) => head.dataset.sort).filter((name) => name !== "rank" && name !== "title");
  const facts = new Map(rows.map((row, place) => {
    const cells = [...row.querySelectorAll("td.p")].map((cell) => Number(cell.style.getPropertyValue("--p")));
    return [row, {
      rank: place, title: row.dataset.title, called: row.dataset.called.split(" "), flags: row.dataset.flags.split(" "),
      status: row.dataset.status, text: row.textContent.replace(/\s+/g, " ").toLowerCase(),
      ...Object.fromEntries(columns.map((name, k) => [name, cells.length ? cells[k] : -1])),
    }];
  }));
  byId("page").classList.remove("plain");

  const chosen = (id) => { const field = byId(id); return field ? field.value : ""; };

  function filter() {
    const words = chosen("text").toLowerCase().split(/\s+/).filter(Boolean);
    const called = chosen("called"), status = chosen("status"), flag = chosen("flag");
    let shown = 0;
    rows.forEach((row) => {
      const fact = facts.get(row);
      const fits = words.every((word) => fact.text.includes(word))
        && (!called || fact.called.includes(called === "-" ? "" : called))
        && (!(called === "-") || fact.any >= 0)
        && (!status || (status === "-" ? fact.any < 0 : fact.status === status))
        && (!flag || fact.flags.includes(flag));
      row.hidden = !fits;
      shown += fits;
    });
    const all = rows.length.toLocaleString("en");
    byId("shown").textContent = shown === rows.length ? `all ${all}` : `${shown.toLocaleString("en")} of ${all}`;
    byId("empty").hidden = shown > 0;
  }

  // The first click sorts probabilities in descending order and other columns in ascending order; another click reverses it.
  function sort(name, head) {
    const column = head.closest("th"), first = columns.includes(name) ? "descending" : "ascending";
    const order = column.getAttribute("aria-sort") === first ? (first === "ascending" ? "descending" : "ascending") : first;
    heads.forEach((other) => other.closest("th").removeAttribute("aria-sort"));
    column.setAttribute("aria-sort", order);
    const sign = order === "ascending" ? 1 : -1;
    const compare = (a, b) => {
      const [p, q] = [facts.get(a), facts.get(b)];
      const difference = name === "title" ? p.title.localeCompare(q.title, "en", { numeric: true }) : p[name] - q[name];
      return sign * difference || p.rank - q.rank;
    };
    body.append(...[...rows].sort(compare));
  }

  byId("filters").addEventListener("input", filter);
  byId("filters").addEventListener("submit", (event) => event.preventDefault());
  heads.forEach((head) => head.addEventListener("click", () => sort(head.dataset.sort, head)));
  filter();  // browsers keep the inputs when a page is reloaded
})();
