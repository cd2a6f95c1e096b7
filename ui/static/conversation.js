// The conversation. Text of people and models only ever becomes text nodes: nothing in it can run or fetch.
const log = element.querySelector(".conversation-log");
const empty = element.querySelector(".conversation-empty");
const follow = pinToEnd(log);
let answer = null;

function turn(who, label) {
  const article = make("article", "turn turn-" + who);
  article.append(make("h3", "turn-who", label));
  const text = make("div", "turn-text");
  text.dir = "auto";
  article.append(text);
  log.append(article);
  return { article, text };
}

function figureList(names) {
  const list = make("dl", "figures");
  for (const [name, meaning] of names) {
    const figure = make("div", "figure");
    figure.title = meaning;
    figure.append(make("dt", "", name), make("dd", "", "–"));
    list.append(figure);
  }
  return list;
}

const handle = {
  user(line) {
    turn("user", "You").text.textContent = line.text;
    follow(true);
  },
  answer(line) {
    answer = turn("answer", line.who);
    answer.node = document.createTextNode("");
    answer.text.append(answer.node);
    answer.figures = figureList(line.figures);
    answer.article.append(answer.figures);
    answer.article.classList.add("is-streaming");
    log.setAttribute("aria-busy", "true");
  },
  text(line) {
    answer.node.appendData(line.text);
  },
  figures(line) {
    line.values.forEach((value, at) => {
      answer.figures.children[at].lastChild.textContent = value;
    });
  },
  end(line) {
    answer.article.classList.remove("is-streaming");
    for (const remark of line.remarks) answer.article.append(make("p", "turn-why", remark));
    log.removeAttribute("aria-busy");
  },
  note(line) {
    log.append(make("p", "turn-note", line.text));
  },
};

followLines(
  () => {
    log.replaceChildren();
    log.removeAttribute("aria-busy");
    answer = null;
  },
  (line) => handle[line.event](line),
  () => {
    empty.hidden = log.childElementCount > 0;
    log.hidden = !empty.hidden;
    follow(false);
  },
);
