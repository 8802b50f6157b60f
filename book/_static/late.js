/* An explorer that has a megabyte to load waits until it is asked for: a button in its place says how much it is. Then its
   parameters come from a file that book/_ext/page_weight.py has written, and its script, which stands behind it, runs. */
(() => {
  "use strict";

  const folder = document.currentScript.src;

  function load(figure) {
    return new Promise((done, failed) => {
      const script = document.createElement("script");
      script.src = new URL(figure.dataset.late, folder).href;
      script.onload = done;
      script.onerror = failed;
      document.head.append(script);
    });
  }

  function start(figure) {
    figure.dataset.parameters = new DOMParser().parseFromString(window.jfbLate, "text/html").body.textContent;
    delete window.jfbLate;
    delete figure.dataset.ready;
    const waiting = figure.parentNode.querySelector("script.jfb-late");
    const script = document.createElement("script");
    script.textContent = waiting.textContent;
    waiting.replaceWith(script);
  }

  function offer(figure) {
    const controls = figure.querySelector(".jfb-controls");
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = `Load the network (${figure.dataset.size})`;
    button.addEventListener("click", async () => {
      button.disabled = true;
      try {
        await load(figure);
      } catch {
        button.disabled = false;
        button.textContent = "It did not load; try again";
        return;
      }
      button.remove();
      start(figure);
      figure.querySelector(".jfb-controls :is(input, button)")?.focus();
    });
    controls.append(button);
  }

  document.addEventListener("DOMContentLoaded", () => document.querySelectorAll(".jfb-explorer[data-late]").forEach(offer));
})();
