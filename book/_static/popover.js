/* Hovering a link within the book, or reaching it by keyboard, shows what it points to. What is shown is in previews.js, which
   book/_ext/previews.py writes and the first such link loads. As WCAG 1.4.13 asks: Escape sends it away and leaves the focus
   where it is, the pointer may move onto it, and it stays until pointer and focus have left. A finger gets none: it follows the link. */
(() => {
  "use strict";

  const LINKS = ".bd-article a.reference.internal:not(.image-reference)";
  const LISTS = ".toctree-wrapper, .tableofcontents-wrapper";
  const WAIT = { show: 200, hide: 300 }; // milliseconds: passing over a link shows nothing, and there is time to reach the preview
  const folder = document.currentScript.src;

  let loading; // a promise that the previews are there
  let wanted = null; // the link whose preview is shown, or is about to be
  let focused = false; // whether it was reached by keyboard
  let timer = 0;

  const tip = document.createElement("div");
  tip.className = "jfb-preview";
  tip.id = "jfb-preview";
  tip.setAttribute("role", "tooltip");
  tip.hidden = true;

  function load(file) {
    return new Promise((done) => {
      const script = document.createElement("script");
      script.src = new URL(file, folder).href;
      script.onload = script.onerror = done;
      document.head.append(script);
    });
  }

  async function previews() {
    loading ??= load("previews.js");
    await loading;
    return window.jfbPreviews ?? {};
  }

  function name(link) {
    const page = link.pathname.split("/").pop().replace(/\.html$/, "") || "index";
    return `${page}#${decodeURIComponent(link.hash.slice(1))}`;
  }

  const linkAt = (element) => {
    const link = element.closest?.(LINKS);
    return link && !link.closest(LISTS) ? link : null;
  };

  async function show(link) {
    hide();
    wanted = link;
    const html = (await previews())[name(link)];
    if (!html || wanted !== link) return;
    tip.innerHTML = html;
    tip.hidden = false;
    link.setAttribute("aria-describedby", tip.id);
    place(link);
    if (tip.querySelector(".math")) await typeset(link);
  }

  async function typeset(link) {
    // a page without a formula of its own has no MathJax
    if (!window.MathJax) {
      const options = { processHtmlClass: "tex2jax_process|mathjax_process|math|output_area" };
      window.MathJax = { options, startup: { typeset: false } };
      await load("../mathjax/tex-mml-chtml.js");
    }
    await window.MathJax.startup?.promise;
    await window.MathJax.typesetPromise?.([tip]);
    for (const formula of tip.querySelectorAll("mjx-container")) {
      formula.removeAttribute("tabindex"); // nothing in a tooltip takes the focus
      const fits = formula.clientWidth / formula.scrollWidth;
      if (fits < 1) formula.style.setProperty("font-size", `${Math.floor(95 * fits)}%`, "important");
    }
    if (wanted === link) place(link);
  }

  function hide() {
    clearTimeout(timer);
    wanted?.removeAttribute("aria-describedby");
    wanted = null;
    focused = false;
    tip.hidden = true;
  }

  /* Below the link, or above it where there is more room; never beyond the page's sides. */
  function place(link) {
    const at = link.getClientRects()[0];
    const origin = tip.offsetParent.getBoundingClientRect();
    const below = innerHeight - at.bottom >= Math.min(tip.offsetHeight + 6, at.top);
    const left = Math.max(8, Math.min(at.left, document.documentElement.clientWidth - tip.offsetWidth - 8));
    tip.style.left = `${left - origin.left}px`;
    tip.style.top = `${(below ? at.bottom + 6 : at.top - tip.offsetHeight - 6) - origin.top}px`;
  }

  document.addEventListener("pointerover", (event) => {
    if (event.pointerType === "touch") return;
    const link = linkAt(event.target);
    if (tip.contains(event.target) || (link && link === wanted)) {
      clearTimeout(timer);
      if (link && tip.hidden) timer = setTimeout(show, WAIT.show, link);
    } else if (link) {
      clearTimeout(timer);
      timer = setTimeout(show, WAIT.show, link);
    } else if (!focused) {
      clearTimeout(timer);
      timer = setTimeout(hide, WAIT.hide);
    }
  });
  document.addEventListener("focusin", (event) => {
    const link = linkAt(event.target);
    if (!link?.matches(":focus-visible")) return;
    show(link);
    focused = true;
  });
  document.addEventListener("focusout", (event) => {
    if (event.target === wanted) hide();
  });
  document.addEventListener("click", hide);
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape") hide();
  });
  document.addEventListener("DOMContentLoaded", () => document.body.append(tip));
})();
