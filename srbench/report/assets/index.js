// Search and filters of the site's index; the choice stands in the address. Without this script everything is shown.
"use strict";
(() => {
  document.documentElement.classList.add("js");
  const all = (selector) => Array.from(document.querySelectorAll(selector));
  const form = document.querySelector(".search");
  const search = form.querySelector("input");
  const selects = Array.from(form.querySelectorAll("select"));
  const output = form.querySelector("output");
  const more = document.querySelector("[data-more]");
  const rows = all("tr[data-entry]").map((row) => [row, row.dataset.text, JSON.parse(row.dataset.values)]);
  let most = Number(more.dataset.more);

  const passes = (text, values, words) => words.every((word) => text.includes(word)) && selects.every((select) =>
    select.value === "" || values[select.name].includes(select.value));
  const apply = () => {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    const kept = rows.filter(([, text, values]) => passes(text, values, words));
    const shown = new Set(kept.slice(0, most).map(([row]) => row));
    rows.forEach(([row]) => { row.hidden = !shown.has(row); });
    const entries = new Set(kept.map(([row]) => row.dataset.entry));
    all("[data-name]").forEach((item) => { item.hidden = !entries.has(item.dataset.name); });
    all(".shelf, .shelf section").forEach((shelf) => {
      shelf.hidden = !shelf.querySelector("[data-name]:not([hidden])");
    });
    more.hidden = kept.length <= most;
    more.textContent = `show all ${kept.length} rows`;
    output.textContent = kept.length === rows.length ? "" : `${kept.length} of ${rows.length} rows in ${entries.size} folders`;
    const chosen = new URLSearchParams([["q", search.value], ...selects.map((each) => [each.name, each.value])]
      .filter(([, value]) => value !== ""));
    history.replaceState(null, "", `#${chosen}`);
  };
  const start = () => {
    const chosen = new URLSearchParams(location.hash.slice(1));
    search.value = chosen.get("q") || "";
    selects.forEach((select) => {
      const value = chosen.get(select.name) || "";
      select.value = Array.from(select.options).some((option) => option.value === value) ? value : "";
    });
    if (chosen.size || rows.length > most) apply();
  };
  search.addEventListener("input", apply);
  selects.forEach((select) => select.addEventListener("change", apply));
  form.addEventListener("submit", (event) => event.preventDefault());
  more.addEventListener("click", () => { most = Infinity; apply(); });
  window.addEventListener("hashchange", start);
  start();
})();
