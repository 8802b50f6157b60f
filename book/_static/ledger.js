/* The boxes of the ledger of reproductions: which rows its tables show. */
(() => {
  "use strict";

  document.addEventListener("DOMContentLoaded", () => {
    const glance = document.querySelector(".jfb-glance");
    if (!glance) return;
    const boxes = [...glance.querySelectorAll("input[type=checkbox]")];
    const rows = [...document.querySelectorAll(".jfb-ledger tbody tr")];
    const said = glance.querySelector(".jfb-shown");

    function show() {
      const wanted = new Set(boxes.filter((box) => box.checked).map((box) => `jfb-is-${box.value}`));
      for (const row of rows) row.hidden = ![...row.classList].some((name) => wanted.has(name));
      const shown = rows.filter((row) => !row.hidden).length;
      said.textContent = shown === rows.length ? `${rows.length} rows.` : `${shown} of ${rows.length} rows.`;
      for (const table of document.querySelectorAll("table.jfb-ledger")) {
        const empty = ![...table.querySelectorAll("tbody tr")].some((row) => !row.hidden);
        const whole = table.closest(".pst-scrollable-table-container") ?? table; // the theme's frame
        whole.hidden = empty;
      }
    }

    boxes.forEach((box) => box.addEventListener("change", show));
    show(); // the browser may remember boxes from before
  });
})();
