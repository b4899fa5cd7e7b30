/* Sorting, filtering and links to a view. The page is complete without it; the state lives in the address's
   fragment, such as #track=speed&valid=1&sort=speed-tinytalks-open.size.asc, and nowhere else. */
(() => {
  "use strict";
  const all = (where, what) => [...where.querySelectorAll(what)];
  const form = document.getElementById("filters");
  const status = document.getElementById("status");
  const link = document.getElementById("link");
  const root = document.documentElement;
  const tables = all(document, "table.ranking");
  const sorted = new Map(); // table's id -> [column, "asc" or "desc"]
  const slug = (text) => text.toLowerCase().replace(/[^a-z0-9]+/g, "-");

  /* What a cell sorts by: its number, else its text; null for a figure that there is not. */
  const value = (cell) => {
    if (cell.dataset.v !== undefined) return Number(cell.dataset.v);
    const text = cell.textContent.trim();
    if (text === "-" || text === "") return null;
    return cell.cellIndex !== 1 && /^-?[\d.,]+$/.test(text) ? Number(text.replaceAll(",", "")) : text.toLowerCase();
  };

  const compare = (a, b) =>
    typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b));

  const prepare = (table) => {
    const rows = [...table.tBodies[0].rows];
    rows.forEach((row, at) => { row.at = at; });
    all(table, "thead th").forEach((th, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = th.textContent;
      th.replaceChildren(button);
      button.addEventListener("click", () => {
        const id = table.id.slice(2), name = slug(th.textContent), now = sorted.get(id);
        const turn = now && now[0] === name ? (now[1] === "asc" ? "desc" : "asc") : first(table, column);
        sorted.set(id, [name, turn]);
        sort(table);
        say(`${table.caption.textContent.split(":")[0]}: sorted by ${th.textContent}, ` +
            `${turn === "asc" ? "ascending" : "descending"}.`);
        keep();
      });
    });
    /* as cards on a narrow screen the parts would lose their roles */
    table.setAttribute("role", "table");
    all(table, "thead, tbody").forEach((part) => part.setAttribute("role", "rowgroup"));
    all(table, "tr").forEach((row) => row.setAttribute("role", "row"));
    all(table, "thead th").forEach((th) => th.setAttribute("role", "columnheader"));
    all(table, "tbody th").forEach((th) => th.setAttribute("role", "rowheader"));
    all(table, "td").forEach((td) => td.setAttribute("role", "cell"));
  };

  /* The turn that a first click gives: best first where more is better, and text from A to Z. */
  const first = (table, column) => {
    const heading = slug(table.tHead.rows[0].cells[column].textContent);
    if (/^(rank|size|memory|parameters|training|lost|bits-byte|perplexity|p50|p90|first-token)$/.test(heading)) return "asc";
    const found = [...table.tBodies[0].rows].map((row) => value(row.cells[column])).find((v) => v !== null);
    return typeof found === "number" ? "desc" : "asc";
  };

  const sort = (table) => {
    const heads = all(table, "thead th"), body = table.tBodies[0];
    const [name, turn] = sorted.get(table.id.slice(2)) || ["rank", "asc"];
    const column = heads.findIndex((th) => slug(th.textContent) === name);
    if (column < 0) return;
    heads.forEach((th, at) => {
      if (at === column) th.setAttribute("aria-sort", turn === "asc" ? "ascending" : "descending");
      else th.removeAttribute("aria-sort");
    });
    const rows = [...body.rows];
    const asRanked = name === "rank" && turn === "asc";
    const keys = new Map(rows.map((row) => [row, value(row.cells[column])]));
    rows.sort((a, b) => {
      if (asRanked) return a.at - b.at; // entries out of competition stand among the others
      const x = keys.get(a), y = keys.get(b);
      if (x === null || y === null) return (x === null) - (y === null) || a.at - b.at;
      return (turn === "asc" ? compare(x, y) : compare(y, x)) || a.at - b.at;
    });
    body.append(...rows);
  };

  const field = (name) => form.elements.namedItem(name);
  const chosen = (name) => (field(name) ? field(name).value : "");

  const filter = () => {
    const words = chosen("q").trim().toLowerCase();
    const badge = chosen("badge"), valid = field("valid").checked;
    const group = field("class") && field("class").selectedIndex > 0 ? field("class").selectedOptions[0].dataset.c : "";
    root.classList.toggle("all", field("all").checked);
    const hides = (part, name) => chosen(name) !== "" && part.dataset[name] !== chosen(name);
    all(document, "section.track").forEach((part) => { part.hidden = hides(part, "track"); });
    all(document, "section.dataset").forEach((part) => { part.hidden = hides(part, "dataset"); });
    all(document, "section.board").forEach((part) => { part.hidden = hides(part, "division"); });
    let shown = 0, total = 0;
    const off = new Set();
    tables.forEach((table) => {
      const board = table.id !== "t-overall";
      let here = 0;
      [...table.tBodies[0].rows].forEach((row) => {
        const fits = (!words || row.cells[1].textContent.toLowerCase().includes(words)) &&
          (!group || row.dataset.c === group) &&
          (!board || ((!badge || row.querySelector(".badge").textContent === badge) &&
            !(valid && row.classList.contains("invalid"))));
        row.hidden = !fits;
        if (!fits && row.dataset.e) off.add(row.dataset.e);
        if (fits) here += 1;
        if (board) {
          total += 1;
          if (fits && !table.closest("[hidden]")) shown += 1;
        }
      });
      empty(table, here === 0);
    });
    all(document, "svg [data-e]").forEach((mark) => mark.classList.toggle("off", off.has(mark.dataset.e)));
    root.classList.toggle("part", off.size > 0);
    return `${shown} of ${total} entries shown.`;
  };

  const empty = (table, none) => {
    let line = table.parentElement.querySelector(".empty");
    if (!line) {
      line = document.createElement("p");
      line.className = "empty";
      line.textContent = "No entry fits the filter.";
      table.parentElement.append(line);
    }
    line.hidden = !none;
  };

  const say = (text) => { status.textContent = text; };

  const fragment = () => {
    const state = new URLSearchParams();
    ["q", "track", "division", "dataset", "badge", "class"].forEach((name) => {
      if (chosen(name).trim()) state.set(name, chosen(name).trim());
    });
    ["valid", "all"].forEach((name) => { if (field(name).checked) state.set(name, "1"); });
    const order = [...sorted].map(([id, [column, turn]]) => `${id}.${column}.${turn}`);
    if (order.length) state.set("sort", order.join(","));
    return state.toString();
  };

  /* The filters in words, for paper, where nobody can look at them. */
  const choices = () => {
    const set = (part) => (part.type === "checkbox" ? part.checked : part.name && part.value.trim());
    return [...form.elements].filter(set).map((part) => {
      if (part.type === "checkbox") return `${part.labels[0].textContent.trim()}.`;
      const text = part.selectedOptions ? part.selectedOptions[0].textContent : part.value;
      return `${part.labels[0].firstChild.textContent.trim()}: ${text.trim()}.`;
    });
  };

  const address = () => location.href.split("#")[0] + (fragment() ? "#" + fragment() : "");
  const keep = () => {
    link.hidden = true;
    history.replaceState(null, "", address());
  };

  /* Show what a link on the page leads to, where the filter hides it. */
  const uncover = (target) => {
    if (!target || !target.closest("[hidden]")) return;
    ["track", "dataset", "division"].forEach((name) => { if (field(name)) field(name).value = ""; });
    say(filter());
    target.scrollIntoView();
  };

  /* The view that the fragment tells; a plain anchor such as #speed tells none. */
  const restore = () => {
    const said = location.hash.slice(1);
    if (said && !said.includes("=")) {
      uncover(document.getElementById(said));
      return;
    }
    const state = new URLSearchParams(said);
    form.reset();
    ["q", "track", "division", "dataset", "badge", "class"].forEach((name) => {
      const input = field(name);
      if (!input || !state.has(name)) return;
      input.value = state.get(name);
      if (input.tagName === "SELECT" && input.selectedIndex < 0) input.selectedIndex = 0;
    });
    ["valid", "all"].forEach((name) => { field(name).checked = state.get(name) === "1"; });
    sorted.clear();
    (state.get("sort") || "").split(",").forEach((part) => {
      const found = /^([a-z0-9-]+)\.([a-z0-9-]+)\.(asc|desc)$/.exec(part);
      if (found) sorted.set(found[1], [found[2], found[3]]);
    });
    tables.forEach(sort);
    say(filter());
  };

  const copy = async () => {
    const text = address();
    try {
      await navigator.clipboard.writeText(text);
      say("The link to this view was copied.");
    } catch {
      link.hidden = false;
      const box = link.querySelector("input");
      box.value = text;
      box.focus();
      box.select();
      say("The browser does not let the page copy: the link stands in the field, selected.");
    }
  };

  root.classList.add("js");
  tables.forEach(prepare);
  form.hidden = false;
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("input", () => { say(filter()); keep(); });
  form.addEventListener("keydown", (event) => {
    if (event.key !== "Escape") return;
    if (!link.hidden && link.contains(event.target)) {
      link.hidden = true;
      document.getElementById("copy").focus();
      say("");
    } else if (event.target === field("q") && field("q").value) {
      event.preventDefault();
      field("q").value = "";
      say(filter());
      keep();
    }
  });
  form.addEventListener("reset", () => setTimeout(() => {
    sorted.clear();
    tables.forEach(sort);
    say(filter());
    keep();
  }));
  document.getElementById("copy").addEventListener("click", copy);
  window.addEventListener("hashchange", restore);
  window.addEventListener("beforeprint", () => say([filter(), ...choices()].join(" ")));
  restore();
  if (location.hash && !location.hash.includes("=")) {
    tables.forEach(sort);
    say(filter());
  }
})();
