// Meanings of technical terms: a box beside the `button.term` that is under the pointer, was tapped or has the focus.
// The box shows the button's `data-meaning` as text.
import { showBox } from "./dom.js";

export default function mount({ element }) {
  const box = element.querySelector(".term-tip");
  let current = null;

  function showMeaning(term) {
    if (current === term) return;
    hideMeaning();
    current = term;
    box.textContent = term.dataset.meaning;
    showBox(box, term.getBoundingClientRect());
    term.setAttribute("aria-describedby", box.id);
  }

  function hideMeaning() {
    box.hidden = true;
    if (current) current.removeAttribute("aria-describedby");
    current = null;
  }

  function termOf(event) {
    return event.target.closest ? event.target.closest(".term") : null;
  }

  document.addEventListener("pointerover", (event) => {
    const term = termOf(event);
    if (term) showMeaning(term);
    // The box stays under the pointer, and for a term that was tapped or has the focus.
    else if (!box.contains(event.target) && current !== document.activeElement) hideMeaning();
  });
  document.addEventListener("pointerdown", (event) => !termOf(event) && hideMeaning());
  document.addEventListener("click", (event) => {
    const term = termOf(event);
    if (term) showMeaning(term);
  });
  document.addEventListener("focusin", (event) => {
    const term = termOf(event);
    if (term) showMeaning(term);
    else hideMeaning();
  });
  document.addEventListener("keydown", (event) => {
    if (event.key !== "Escape" || !current) return;
    event.preventDefault();
    hideMeaning();
  }, true);
  document.addEventListener("scroll", hideMeaning, true);
}
