// Sorting, filters, the choice of columns, and the slider. Without this script everything is shown, unsorted.
"use strict";
(() => {
  document.documentElement.classList.add("js");
  const all = (selector, root = document) => Array.from(root.querySelectorAll(selector));
  const json = (id) => JSON.parse(document.getElementById(id).textContent);

  // --- sorting: within each group of rows, so that tracks and controls never mix
  const key = (row, column) => {
    const cell = row.querySelector(`[data-column="${column}"]`);
    if (!cell || cell.dataset.value === undefined) return null;
    if (column === "method") return cell.dataset.value;
    return cell.dataset.value === "inf" ? Infinity : Number(cell.dataset.value);
  };
  const compare = (a, b, sign) => {
    if (a === null || b === null) return (a === null) - (b === null); // what is missing comes last either way
    if (typeof a === "string") return sign * a.localeCompare(b);
    return a === b ? 0 : sign * (a < b ? -1 : 1);
  };
  const sort = (table, head) => {
    const other = head.dataset.first === "ascending" ? "descending" : "ascending";
    const way = head.getAttribute("aria-sort") === head.dataset.first ? other : head.dataset.first;
    all("thead th", table).forEach((each) => each.setAttribute("aria-sort", each === head ? way : "none"));
    const sign = way === "ascending" ? 1 : -1;
    all("tbody", table).forEach((body) => {
      const rows = all("tr:not(.group)", body).map((row) => [key(row, head.dataset.column), row]);
      rows.sort((a, b) => compare(a[0], b[0], sign)).forEach(([, row]) => body.append(row));
    });
  };

  // --- columns
  const show = (board, column, shown) => {
    all(`[data-column="${CSS.escape(column)}"]`, board).forEach((cell) => { cell.hidden = !shown; });
    const width = all("thead th", board).filter((head) => !head.hidden).length;
    all("tr.group th", board).forEach((cell) => { cell.colSpan = width; });
  };
  all(".board").forEach((board) => {
    const table = board.querySelector("table.results");
    if (!table) return;
    all("thead th", table).forEach((head) => {
      head.querySelector("button").addEventListener("click", () => sort(table, head));
    });
    const boxes = all("[data-toggle]", board);
    const apply = () => boxes.forEach((box) => show(board, box.dataset.toggle, box.checked));
    boxes.forEach((box) => box.addEventListener("change", apply));
    all("[data-show]", board).forEach((button) => button.addEventListener("click", () => {
      boxes.forEach((box) => {
        box.checked = button.dataset.show === "all" ||
          table.querySelector(`th[data-column="${CSS.escape(box.dataset.toggle)}"]`).hasAttribute("data-essential");
      });
      apply();
    }));
    apply();
  });

  // --- filters
  const filters = all("[data-filter]");
  const passes = (element) => filters.every((filter) => {
    const own = element.dataset[filter.dataset.filter];
    return filter.value === "*" || own === undefined || own === "" && filter.dataset.filter === "task" ||
      own === filter.value;
  });
  const filter = () => {
    all(".scoped").forEach((element) => { element.hidden = !passes(element); });
    all("tbody[data-track]").forEach((body) => { body.hidden = !passes(body); });
    const boards = all(".board");
    const shown = boards.filter((board) => !board.hidden && !board.closest(".task").hidden).length;
    const output = document.querySelector(".filters output");
    if (output) output.textContent = shown === boards.length ? "" : `${shown} of ${boards.length} tables`;
    // A figure or gallery of a task that has no table left goes with it.
    const alive = new Set(all(".task").filter((task) => !task.hidden).map((task) => task.dataset.task));
    all(".of, .gallery, .zoom").forEach((element) => {
      if (element.dataset.task && !alive.has(element.dataset.task)) element.hidden = true;
    });
  };
  filters.forEach((each) => each.addEventListener("change", filter));

  // --- the numbers behind a figure, as a file
  all("[data-numbers]").forEach((button) => button.addEventListener("click", () => {
    const text = document.getElementById(`data-${button.dataset.numbers}`).textContent;
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([text], { type: "application/json" }));
    link.download = `${button.dataset.numbers}.json`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  }));

  // --- two versions of one image
  const root = document.querySelector(".compare");
  if (!root) return;
  const { sizes, galleries } = json("data-compare");
  const choose = Object.fromEntries(all("[data-choose]", root).map((each) => [each.dataset.choose, each]));
  const stage = root.querySelector(".stage");
  const slider = root.querySelector("input[type=range]");
  const gallery = () => galleries[choose.gallery ? Number(choose.gallery.value) : 0];
  const image = () => gallery().images[Number(choose.image.value)];
  const fill = (select, names, wanted) => {
    select.replaceChildren(...names.map((name, at) => {
      const option = new Option(name, String(at));
      option.dir = "auto";
      return option;
    }));
    select.value = String(Math.max(0, Math.min(wanted, names.length - 1)));
  };
  const draw = () => {
    ["left", "right"].forEach((side) => {
      const [name, picture, below] = image().versions[Number(choose[side].value)];
      const svg = stage.querySelector(`.${side}`);
      svg.setAttribute("viewBox", `0 0 ${sizes[picture].join(" ")}`);
      svg.setAttribute("aria-label", name);
      svg.setAttribute("preserveAspectRatio", "none");
      svg.querySelector("use").setAttribute("href", `#${picture}`);
      const under = root.querySelector(`[data-under=${side}]`);
      const bold = document.createElement("b");
      const text = document.createElement("bdi");
      [bold.textContent, text.textContent] = [name, below];
      under.replaceChildren(bold, document.createElement("br"), text);
    });
    const [, first] = image().versions[0];
    stage.querySelector(".left").style.aspectRatio = sizes[first].join(" / ");
  };
  const versions = (left, right) => {
    const names = image().versions.map(([name]) => name);
    fill(choose.left, names, left);
    fill(choose.right, names, right);
    draw();
  };
  const keep = () => {
    const before = ["left", "right"].map((side) => choose[side].selectedOptions[0].textContent);
    const names = image().versions.map(([name]) => name);
    versions(...before.map((name, at) => (names.includes(name) ? names.indexOf(name) : at + 1)));
  };
  const images = () => fill(choose.image, gallery().images.map((each) => each.name), 0);
  images();
  const start = image().versions.map(([name]) => name);
  const plain = ["bicubic", "bilinear"].map((name) => start.indexOf(name)).find((at) => at >= 0);
  const left = plain === undefined ? 0 : plain;
  const right = start.findIndex((_, at) => at >= 2 && at !== left); // after the original and LR
  versions(left, Math.max(right, 0));
  if (choose.gallery) choose.gallery.addEventListener("change", () => { images(); keep(); });
  choose.image.addEventListener("change", keep);
  [choose.left, choose.right].forEach((each) => each.addEventListener("change", draw));
  const slide = () => stage.style.setProperty("--at", `${slider.value}%`);
  slider.addEventListener("input", slide);
  slide();
})();
