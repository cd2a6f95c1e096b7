// Elements and boxes: helpers that several views share.

export function make(tag, className, text) {
  const node = document.createElement(tag);
  if (className) node.className = className;
  if (text !== undefined) node.textContent = text;
  return node;
}

// A technical term whose meaning is shown on hover, tap or focus (terms.js).
export function term(name, meaning) {
  const button = make("button", "term", name);
  button.type = "button";
  button.dataset.meaning = meaning;
  return button;
}

// Shows a box of fixed position above the rectangle `at`, or below it if there is no room above.
export function showBox(box, at) {
  box.hidden = false;
  const { width, height } = box.getBoundingClientRect();
  box.style.left = Math.max(8, Math.min(at.left, document.documentElement.clientWidth - width - 8)) + "px";
  box.style.top = (at.top - height - 6 > 8 ? at.top - height - 6 : at.bottom + 6) + "px";
}

// Keeps the end of a box in sight unless the reader has scrolled up.
export function pinToEnd(box) {
  let pinned = true;
  box.addEventListener("scroll", () => {
    pinned = box.scrollHeight - box.scrollTop - box.clientHeight < 48;
  });
  return (force) => {
    if (force) pinned = true;
    if (pinned) box.scrollTop = box.scrollHeight;
  };
}
