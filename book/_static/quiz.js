/* The questions of a chapter: says what an answer is, and how many are right. Which text shows is CSS's affair, see quiz.css. */
(() => {
  "use strict";

  function said(quiz, chosen) {
    const right = quiz.querySelectorAll("input[value=right]:checked").length;
    const line = quiz.querySelector(".jfb-quiz-said");
    const verdict = chosen.value === "right" ? "Right." : "Not yet; below the answer stands why.";
    line.textContent = `${verdict} ${right} of ${line.dataset.questions} right.`;
  }

  document.addEventListener("change", (event) => {
    const quiz = event.target.closest?.(".jfb-quiz");
    if (quiz && event.target.type === "radio") said(quiz, event.target);
  });

  // a browser that restores forms would show answers of another day
  addEventListener("pageshow", () => {
    for (const input of document.querySelectorAll(".jfb-quiz input")) input.checked = false;
  });
})();
