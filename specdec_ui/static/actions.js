// Actions on a turn: its buttons, copying, and the editor of a message. Knows nothing of the conversation.
import { make } from "./dom.js";

const CONFIRMATION_MS = 2000;

// A button whose name has a `rest` that only screen readers read.
export function actionButton(name, rest, className) {
  const button = make("button", className, name);
  button.type = "button";
  button.append(make("span", "only-read-out", " " + rest));
  return button;
}

export function copyButton(rest) {
  return actionButton("Copy", rest, "turn-action copy");
}

function confirm(button, text) {
  const name = button.firstChild;
  const before = button.dataset.name || name.data;
  button.dataset.name = before;
  name.data = text;
  setTimeout(() => (name.data = before), CONFIRMATION_MS);
}

export async function copy(text, button) {
  confirm(button, (await copied(text, button)) ? "Copied" : "Not copied: select the text");
}

// Pages without https have no clipboard API; there the selection of a text area is copied.
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

// An editor in the place of the element `original`. It calls `onSend` with the text and stays open until it is closed.
export function openEditor(original, text, onSend) {
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
    original.hidden = false;
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
  original.hidden = true;
  original.after(form);
  area.focus();
  return { area, close };
}
