// A view's value is text that only grows, one JSON object a line. Calls `onLine` for each line not yet
// seen, `onReset` when the text is another one than before, and `onDone` after each batch.
function followLines(onReset, onLine, onDone) {
  let seen = "";
  const read = () => {
    const value = props.value || "";
    if (!value.startsWith(seen)) {
      seen = "";
      onReset();
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
  onReset();
  watch("value", read);
  read();
}

function make(tag, className, text) {
  const node = document.createElement(tag);
  if (className) node.className = className;
  if (text !== undefined) node.textContent = text;
  return node;
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
