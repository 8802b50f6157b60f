/* Paper is white and has no folds: before a page is printed it takes the light theme and opens what is closed; after it all is as before. */
(() => {
  "use strict";

  const root = document.documentElement;
  let opened = [], theme;
  addEventListener("beforeprint", () => {
    theme = root.dataset.theme;
    root.dataset.theme = "light";
    opened = [...document.querySelectorAll(".bd-article details:not([open])")];
    for (const details of opened) details.open = true;
  });
  addEventListener("afterprint", () => {
    root.dataset.theme = theme;
    for (const details of opened) details.open = false;
    opened = [];
  });
})();
