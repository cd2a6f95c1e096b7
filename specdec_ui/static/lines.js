// A view's value is text that only grows, one JSON object a line. Calls `onLine` for each line not yet
// seen, `onReset` with the text when it is another one than before, and `onDone` after each batch.
function followLines(onReset, onLine, onDone) {
  let seen = "";
  const read = () => {
    const value = props.value || "";
    if (!value.startsWith(seen)) {
      seen = "";
      onReset(value);
    }
    const end = value.lastIndexOf("\n") + 1;
    if (end <= seen.length) {
      if (onDone && !end) onDone();
      return;
    }
    for (const line of value.slice(seen.length, end).split("\n")) {
      if (line) onLine(JSON.parse(line));
    }
    seen = value.slice(0, end);
    if (onDone) onDone();
  };
  // What arrives between two frames of the browser is shown at once: where it draws more slowly than lines
  // arrive, it skips states in between and does not fall behind.
  let due = false;
  const readSoon = () => {
    if (due) return;
    due = true;
    requestAnimationFrame(() => {
      due = false;
      read();
    });
  };
  onReset("");
  watch("value", readSoon);
  read();
}

function make(tag, className, text) {
  const node = document.createElement(tag);
  if (className) node.className = className;
  if (text !== undefined) node.textContent = text;
  return node;
}

// A word of the field that says what it means when it is pointed at, tapped or has the focus (terms.js).
function term(name, meaning) {
  const button = make("button", "term", name);
  button.type = "button";
  button.dataset.meaning = meaning;
  return button;
}

// Shows a box of fixed position above `at`, a rectangle of the window, or below where there is no room.
function place(box, at) {
  box.hidden = false;
  const { width, height } = box.getBoundingClientRect();
  box.style.left = Math.max(8, Math.min(at.left, document.documentElement.clientWidth - width - 8)) + "px";
  box.style.top = (at.top - height - 6 > 8 ? at.top - height - 6 : at.bottom + 6) + "px";
}

// Keeps the newest line in sight unless the reader has scrolled up.
function pinToEnd(box) {
  let pinned = true;
  box.addEventListener("scroll", () => {
    pinned = box.scrollHeight - box.scrollTop - box.clientHeight < 48;
  });
  return (force) => {
    if (force) pinned = true;
    if (pinned) box.scrollTop = box.scrollHeight;
  };
}
