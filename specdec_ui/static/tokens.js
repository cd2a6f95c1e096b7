// The token view: the tokens of one answer, and on request those of an earlier one. Each answer is sent once; the
// lines of earlier ones are kept here.
import { make, pinToEnd, showBox } from "./dom.js";
import { followLines } from "./lines.js";
import { roundPanel } from "./round_panel.js";
import { isEmitted, labelOf } from "./token_kinds.js";
import { fill, percent, quoted, tokenOf } from "./token_text.js";

const ANSWERS_KEPT = 20;

export default function mount(view) {
  tokenView(view.element, (...handlers) => followLines(view, ...handlers));
}

// The view in `element`. `feed` gets the handlers onReset, onLine and onDone of followLines and calls them.
export function tokenView(element, feed) {
  const section = element.querySelector(".token-section");
  const flow = element.querySelector(".token-flow");
  const empty = element.querySelector(".token-empty");
  const tip = element.querySelector(".token-tip");
  const hide = element.querySelector(".token-hide input");
  const chooser = element.querySelector(".token-answers");
  const rule = element.querySelector(".round-rule");
  const follow = pinToEnd(flow);
  const facts = new WeakMap();
  let answers = [];
  let current = null;
  let hasBegun = false;
  let tabStop = null;
  let tipped = null;

  // Tokens

  function addRound(line) {
    const round = make("span", "round");
    let breaksAfter = false;
    for (const token of line.tokens) {
      const span = make("span", "token");
      span.dataset.kind = token.kind;
      span.setAttribute("role", "button");
      span.tabIndex = -1;
      if (breaksAfter) round.append("\n");
      fill(span, token, isEmitted(token.kind));
      breaksAfter = isEmitted(token.kind) && token.text.endsWith("\n");
      facts.set(span, { token, round: line.round });
      round.append(span);
    }
    // Line breaks are outside of tokens and rounds, whose outlines would go on in the next line.
    flow.append(round, ...(breaksAfter ? ["\n"] : []));
    if (!tabStop) stopAt(round.firstChild);
  }

  function stopAt(span) {
    if (tabStop) tabStop.tabIndex = -1;
    tabStop = span;
    tabStop.tabIndex = 0;
  }

  // Marks the token that ended the answer, and drafts of it.
  function markEnd() {
    const tokens = current.rounds.flatMap((line) => line.tokens);
    const last = tokens.findLast((token) => isEmitted(token.kind));
    if (current.end !== "eos" || !last || last.id === undefined) return;
    const others = current.rounds.flatMap((line) => line.alternatives.flat());
    for (const token of [...tokens, ...others]) token.ends = token.id === last.id;
    for (const span of flow.querySelectorAll(".token")) {
      const { token } = facts.get(span);
      if (!token.ends) continue;
      span.replaceChildren();
      fill(span, token, false);
    }
  }

  // Answers

  function show(answer) {
    hideTip();
    closePanel();
    current = answer;
    flow.replaceChildren();
    tabStop = null;
    rule.textContent = answer ? answer.rule : "";
    if (!answer) return;
    answer.rounds.forEach(addRound);
    markEnd();
  }

  function begin(line) {
    answers = answers.filter((answer) => answer.number < line.answer).slice(1 - ANSWERS_KEPT);
    answers.push({ number: line.answer, asked: line.asked || "", rule: line.rule || "", rounds: [], end: null });
    hasBegun = true;
    show(answers.at(-1));
  }

  function forget() {
    answers = [];
    show(null);
    listAnswers();
  }

  // The growing answer; a view without answer lines has one too.
  function growing() {
    if (!answers.length) begin({ answer: 1 });
    return answers.at(-1);
  }

  function listAnswers() {
    if (!chooser) return;
    const options = answers.map(({ number, asked }) => {
      const option = make("option", "", asked ? `Answer ${number} · ${asked}` : `Answer ${number}`);
      option.value = number;
      return option;
    });
    chooser.replaceChildren(...options);
    if (current) chooser.value = current.number;
    chooser.hidden = answers.length < 2;
  }

  function choose(number) {
    const answer = answers.find((each) => each.number === number);
    if (!answer) return;
    show(answer);
    if (answer.end === null) follow(true);
    else flow.scrollTop = 0;
    listAnswers();
  }

  if (chooser) chooser.addEventListener("change", () => choose(Number(chooser.value)));

  // The round panel

  const panel = roundPanel(element.querySelector(".round-panel"), (at, from) => {
    if (at !== null) {
      pick(at);
      return;
    }
    closePanel();
    const round = flow.children[from];
    if (!round) return;
    const target = round.contains(tabStop) ? tabStop : round.querySelector(".token");
    target.focus({ preventScroll: true });
  });

  function pick(at) {
    for (const open of flow.querySelectorAll(".is-open")) open.classList.remove("is-open");
    const round = flow.children[at];
    round.classList.add("is-open");
    const [line, box] = [round.getBoundingClientRect(), flow.getBoundingClientRect()];
    if (line.top < box.top + 16) flow.scrollTop -= box.top + 16 - line.top;
    else if (line.bottom > box.bottom - 16) flow.scrollTop += Math.min(line.bottom - box.bottom, line.top - box.top) + 16;
  }

  function openPanel(round) {
    hideTip();
    const wasOpen = panel.isOpen();
    const at = [...flow.children].indexOf(round);
    section.classList.add("has-panel");
    panel.show(current.rounds, at);
    pick(at);
    if (wasOpen) return;
    const box = element.querySelector(".round-panel");
    box.focus({ preventScroll: true });
    box.scrollIntoView({ block: "nearest" });
  }

  function closePanel() {
    panel.hide();
    section.classList.remove("has-panel");
    for (const open of flow.querySelectorAll(".is-open")) open.classList.remove("is-open");
  }

  // Both models' probabilities of the token under the pointer or with the focus

  function showTip(span) {
    hideTip();
    const { token, round } = facts.get(span);
    const { kind, p, q } = token;
    tip.replaceChildren(make("strong", "", labelOf(kind)), make("span", "token-tip-text", quoted(token)));
    const rows = make("dl");
    const add = (name, value) => rows.append(make("dt", "", name), make("dd", "", value));
    if (p !== null) add("target, p", percent(p));
    if (q !== null) add("drafter, q", percent(q));
    add("round", round > 0 ? String(round) : "before the first");
    tip.append(rows);
    showBox(tip, span.getClientRects()[0]);
    tipped = span;
    tipped.setAttribute("aria-describedby", tip.id);
  }

  function hideTip() {
    tip.hidden = true;
    if (tipped) tipped.removeAttribute("aria-describedby");
    tipped = null;
  }

  function spanOf(event) {
    const span = event.target.closest ? event.target.closest(".token") : null;
    return span && facts.has(span) ? span : null;
  }

  flow.addEventListener("pointerover", (event) => {
    const span = event.pointerType === "touch" ? null : spanOf(event);
    if (span) showTip(span);
    else hideTip();
  });
  flow.addEventListener("pointerleave", hideTip);
  flow.addEventListener("focusin", (event) => {
    const span = spanOf(event);
    if (!span) return;
    stopAt(span);
    if (span.matches(":focus-visible")) showTip(span);
    if (panel.isOpen()) openPanel(span.parentNode);
  });
  flow.addEventListener("focusout", hideTip);
  flow.addEventListener("scroll", hideTip);
  flow.addEventListener("click", (event) => {
    const round = event.target.closest(".round");
    if (round && window.getSelection().isCollapsed) openPanel(round);
  });
  flow.addEventListener("keydown", (event) => {
    const span = spanOf(event);
    if (event.key === "Escape") {
      if (tip.hidden && panel.isOpen()) panel.leave();
      hideTip();
    }
    if (!span) return;
    if (event.key === "Enter" || event.key === " ") {
      event.preventDefault();
      openPanel(span.parentNode);
      element.querySelector(".round-panel").focus({ preventScroll: true });
    }
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    const ends = { Home: 0, End: -1 }[event.key];
    if (step === undefined && ends === undefined) return;
    const all = [...flow.querySelectorAll(".token")].filter((token) => token.offsetParent !== null);
    const to = step === undefined ? all.at(ends) : all[all.indexOf(span) + step];
    if (to) {
      event.preventDefault();
      to.focus();
    }
  });
  hide.addEventListener("change", () => flow.classList.toggle("only-kept", hide.checked));

  feed(
    (value) => {
      if (!chooser || !value) forget();
    },
    (line) => {
      if (line.answer !== undefined) begin(line);
      if (line.tokens && line.tokens.length) {
        const round = { ...line, tokens: line.tokens.map(tokenOf) };
        // Alternatives are tokens too, of a kind of their own.
        const others = (list) => list.map((known) => tokenOf(["alternative", ...known]));
        round.alternatives = (line.alternatives || []).map(others);
        growing().rounds.push(round);
        if (growing() === current) addRound(round);
      }
      if (line.end !== undefined) {
        growing().end = line.end;
        if (growing() === current) markEnd();
      }
    },
    () => {
      empty.hidden = flow.childElementCount > 0;
      if (hasBegun) listAnswers();
      panel.count();
      // An answer that comes as a whole is read from its top; one that grows, where it grows.
      if (hasBegun && current && current.end !== null) flow.scrollTop = 0;
      else if (!panel.isOpen()) follow(hasBegun);
      hasBegun = false;
    },
  );
}
