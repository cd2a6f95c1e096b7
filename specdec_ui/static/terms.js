// What a word means, in a box beside it: any `button.term` of the page that is pointed at, tapped or has the
// focus. The box holds the button's `data-meaning`, as text.
const box = element.querySelector(".term-tip");
let named = null;

function explain(term) {
  if (named === term) return;
  forgetTerm();
  named = term;
  box.textContent = term.dataset.meaning;
  place(box, term.getBoundingClientRect());
  term.setAttribute("aria-describedby", box.id);
}

function forgetTerm() {
  box.hidden = true;
  if (named) named.removeAttribute("aria-describedby");
  named = null;
}

function termOf(event) {
  return event.target.closest ? event.target.closest(".term") : null;
}

document.addEventListener("pointerover", (event) => {
  const term = termOf(event);
  if (term) explain(term);
  // It stays while the pointer is on it, and where it was tapped or has the focus.
  else if (!box.contains(event.target) && named !== document.activeElement) forgetTerm();
});
document.addEventListener("pointerdown", (event) => !termOf(event) && forgetTerm());
document.addEventListener("click", (event) => {
  const term = termOf(event);
  if (term) explain(term);
});
document.addEventListener("focusin", (event) => {
  const term = termOf(event);
  if (term) explain(term);
  else forgetTerm();
});
document.addEventListener("keydown", (event) => {
  if (event.key !== "Escape" || !named) return;
  event.preventDefault();
  forgetTerm();
}, true);
document.addEventListener("scroll", forgetTerm, true);
