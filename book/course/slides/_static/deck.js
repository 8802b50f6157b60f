// What a deck adds to reveal.js: keys that a figure needs are the figure's, and the keys of a clicker always turn the slide.
"use strict";

function deckMayTurn(event) {
  const focused = document.activeElement;
  if (!focused || !focused.closest(".deck-explorer")) return true;
  if (["PageDown", "PageUp"].includes(event.key)) {
    focused.blur(); // reveal.js turns no slide while the focus is in an input
    return true;
  }
  if (event.key === "Escape") {
    focused.blur(); // back to the slides; the next Escape shows all of them
    return false;
  }
  if (focused.matches("input, select")) return false;
  return ![" ", "Enter"].includes(event.key); // they press the button that has the focus
}
