// The conversation. Text of people and models only ever becomes text nodes: nothing in it can run or fetch.
import { actionButton, copy, copyButton, openEditor } from "./actions.js";
import { make, pinToEnd, term } from "./dom.js";
import { followLines } from "./lines.js";
import { markdownText } from "./markdown.js";

export default function mount(view) {
  const { element, trigger } = view;
  const log = element.querySelector(".conversation-log");
  const empty = element.querySelector(".conversation-empty");
  const follow = pinToEnd(log);
  const texts = new WeakMap();
  let question = null;
  let answer = null;
  let editor = null;
  let edited = null;
  let hadFocus = false;

  function turn(who, label, whose) {
    const article = make("article", "turn turn-" + who);
    const text = make("div", "turn-text");
    const actions = make("div", "turn-actions");
    text.dir = "auto";
    actions.append(copyButton(whose));
    article.append(make("h3", "turn-who", label), text, actions);
    log.append(article);
    return { article, text, actions };
  }

  function edit(text) {
    if (editor) editor.close();
    editor = openEditor(question.text, text, (changed) => trigger("edit", { text: changed }));
  }

  // A message that could not be answered leaves the turn unchanged: the editor opens again with its text.
  function editAgain() {
    if (!edited || log.hasAttribute("aria-busy")) return;
    const { before, text } = edited;
    edited = null;
    if (question && question.whole === before && text !== before) edit(text);
  }

  // Only the last turn can be repeated or undone, and only after the end of its answer.
  function offerChanges() {
    const changes = [
      [question, "Edit", "your message", () => edit(question.whole)],
      [answer, "Retry", "for another answer", () => trigger("retry")],
      [answer, "Undo", "the last message and its answer", () => trigger("undo")],
    ];
    for (const [where, name, rest, act] of changes) {
      const button = actionButton(name, rest, "turn-action change");
      // A double click asks once.
      button.addEventListener("click", (event) => event.detail < 2 && act());
      where.actions.append(button);
    }
  }

  function withdrawChanges() {
    for (const button of log.querySelectorAll(".change")) button.remove();
    if (editor) editor.close();
    editor = null;
  }

  log.addEventListener("click", (event) => {
    const button = event.target.closest(".copy");
    if (!button) return;
    const code = button.closest(".md-code");
    copy(code ? code.querySelector("code").textContent : texts.get(button.closest(".turn")).whole, button);
  });

  function figureList(names) {
    const list = make("dl", "figures");
    for (const [name, meaning] of names) {
      const figure = make("div", "figure");
      figure.append(make("dt", ""), make("dd", "", "–"));
      figure.firstChild.append(term(name, meaning));
      list.append(figure);
    }
    return list;
  }

  // What the model thought before the answer, folded away. Only ever text.
  function thoughtOf(turn) {
    if (!turn.thought) {
      const box = make("details", "turn-thought");
      turn.thought = make("div", "turn-thought-text");
      turn.thought.dir = "auto";
      box.append(make("summary", "", "Thinking…"), turn.thought);
      turn.text.before(box);
    }
    return turn.thought;
  }

  function endThought(turn) {
    if (turn.thought) turn.thought.previousSibling.textContent = "Thought";
  }

  const handle = {
    user(line) {
      withdrawChanges();
      question = turn("user", "You", "your message");
      question.whole = question.text.textContent = line.text;
      texts.set(question.article, question);
      follow(true);
    },
    answer(line) {
      answer = turn("answer", line.who, "the answer");
      answer.markdown = markdownText(answer.text);
      answer.figures = figureList(line.figures);
      answer.actions.before(answer.figures);
      texts.set(answer.article, answer.markdown);
      answer.article.classList.add("is-streaming");
      log.setAttribute("aria-busy", "true");
    },
    thought(line) {
      thoughtOf(answer).append(line.text);
    },
    text(line) {
      endThought(answer);
      answer.markdown.append(line.text);
      answer.grown = true;
    },
    figures(line) {
      line.values.forEach((value, at) => {
        answer.figures.children[at].lastChild.textContent = value;
      });
    },
    end(line) {
      endThought(answer);
      answer.markdown.show(true);
      answer.grown = false;
      answer.article.classList.remove("is-streaming");
      for (const remark of line.remarks) answer.actions.before(make("p", "turn-why", remark));
      log.removeAttribute("aria-busy");
      offerChanges();
    },
    note(line) {
      log.append(make("p", "turn-note", line.text));
    },
  };

  followLines(
    view,
    () => {
      hadFocus ||= log.contains(document.activeElement) && document.activeElement !== log;
      if (editor) edited = { before: question.whole, text: editor.area.value };
      log.replaceChildren();
      log.removeAttribute("aria-busy");
      question = answer = editor = null;
    },
    (line) => handle[line.event](line),
    () => {
      if (answer && answer.grown) answer.markdown.show(false);
      if (answer) answer.grown = false;
      empty.hidden = log.childElementCount > 0;
      log.hidden = !empty.hidden;
      follow(false);
      // The element with the focus was removed with the turns before.
      if (hadFocus) (log.hidden ? document.querySelector("#message textarea") : log).focus({ preventScroll: true });
      hadFocus = false;
      editAgain();
    },
  );
}
