// Reader of a view's value: text that only grows, with one JSON object a line.

// Calls `onLine` for each new line, `onReset` with the text when it does not continue the text before, and
// `onDone` after each batch.
export function followLines({ props, watch }, onReset, onLine, onDone) {
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
  // One read a frame of the browser: if lines arrive faster than it draws, it skips states and does not lag.
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
