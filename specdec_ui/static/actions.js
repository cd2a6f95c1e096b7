// What can be done with a turn: its buttons, and the copying of text. Knows nothing of where turns come from.
const SAID_FOR_MS = 2000;

// A button whose name goes on for who cannot see what it stands beside.
function actionButton(name, rest, className) {
  const button = make("button", className, name);
  button.type = "button";
  button.append(make("span", "only-read-out", " " + rest));
  return button;
}

function copyButton(rest) {
  return actionButton("Copy", rest, "turn-action copy");
}

function say(button, text) {
  const name = button.firstChild;
  const before = button.dataset.name || name.data;
  button.dataset.name = before;
  name.data = text;
  setTimeout(() => (name.data = before), SAID_FOR_MS);
}

async function copy(text, button) {
  say(button, (await copied(text, button)) ? "Copied" : "Not copied: select the text");
}

// Pages that are not served over https have no clipboard of their own; a selected text area does there.
async function copied(text, button) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    const area = make("textarea", "only-read-out");
    area.value = text;
    document.body.append(area);
    area.select();
    const done = document.execCommand("copy");
    area.remove();
    button.focus({ preventScroll: true });
    return done;
  }
}

// A text that can be changed in place of `shown`. Calls `onSend` with it; it stays until it is closed.
function openEditor(shown, text, onSend) {
  const form = make("form", "turn-edit");
  const area = make("textarea");
  area.value = text;
  area.dir = "auto";
  area.setAttribute("aria-label", "Your message");
  const send = make("button", "turn-action", "Send");
  const cancel = make("button", "turn-action", "Cancel");
  cancel.type = "button";
  const buttons = make("div", "turn-actions");
  buttons.append(send, cancel);
  form.append(area, buttons);
  const close = () => {
    form.remove();
    shown.hidden = false;
  };
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    onSend(area.value);
  });
  cancel.addEventListener("click", close);
  area.addEventListener("keydown", (event) => {
    if (event.key === "Escape") close();
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    onSend(area.value);
  });
  shown.hidden = true;
  shown.after(form);
  area.focus();
  return { area, close };
}
