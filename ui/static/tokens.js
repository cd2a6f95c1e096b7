// The token view. Token text only ever becomes text nodes: nothing in it can run or fetch.
const NAMES = {
  accepted: "accepted draft",
  rejected: "rejected draft",
  untested: "untested draft",
  correction: "correction by the target",
  bonus: "bonus token of the target",
  plain: "token of the target, not drafted",
};
const KEPT = new Set(["accepted", "correction", "bonus", "plain"]);
const flow = element.querySelector(".token-flow");
const empty = element.querySelector(".token-empty");
const tip = element.querySelector(".token-tip");
const hide = element.querySelector(".token-hide input");
const follow = pinToEnd(flow);
const facts = new WeakMap();
let lastEmitted = null;

const INVISIBLE = /[\n\r\t\u0000-\u001f\u007f-\u00a0\u00ad\u200b-\u200f\u2028-\u202f\u2060-\u206f\ufeff]/;
const MARKS = { "\n": "↵", "\r": "␍", "\t": "⇥", "\u00a0": "⍽" };

function mark(sign) {
  return make("span", "token-mark", sign);
}

// Fills a token with its text; a space standing alone and what cannot be seen are made visible. The space
// before a word is no part of its body, so that no mark runs through it where a line ends.
function fill(span, text, kept) {
  const body = make("span", "token-body");
  if (text === "") {
    body.append(mark("∅"));
  } else if (/^ +$/.test(text)) {
    body.append(mark("␣".repeat(text.length)));
  } else {
    const word = text.replace(/^ +/, "");
    span.append(text.slice(0, text.length - word.length));
    for (const char of word) {
      if (!INVISIBLE.test(char)) {
        body.append(char);
        continue;
      }
      const code = "U+" + char.codePointAt(0).toString(16).toUpperCase().padStart(4, "0");
      body.append(mark(MARKS[char] || code));
      if (char === "\n" && kept) body.append("\n");
    }
    body.normalize();
  }
  span.append(body);
}

function addRound(line) {
  const round = make("span", "round");
  for (const [kind, text, p, q] of line.tokens) {
    const span = make("span", "token");
    span.dataset.kind = kind;
    span.tabIndex = -1;
    fill(span, text, KEPT.has(kind));
    facts.set(span, { kind, text, p, q, round: line.round });
    if (KEPT.has(kind)) lastEmitted = span;
    round.append(span);
  }
  flow.append(round);
  if (!flow.querySelector('.token[tabindex="0"]')) {
    const first = flow.querySelector(".token");
    if (first) first.tabIndex = 0;
  }
}

const percent = (x) => (x === null || x === undefined ? null : (100 * x).toFixed(x < 0.1 ? 2 : 1) + " %");

function showTip(span) {
  const { kind, text, p, q, round } = facts.get(span);
  tip.replaceChildren(make("strong", "", NAMES[kind]));
  const shown = text === "" ? "adds no text of its own" : "“" + text.replace(/\n/g, "↵") + "”";
  tip.append(make("span", "token-tip-text", shown));
  const rows = make("dl");
  const add = (name, value) => value !== null && rows.append(make("dt", "", name), make("dd", "", value));
  add("target, p", percent(p));
  add("drafter, q", percent(q));
  add("round", round > 0 ? String(round) : "before the first");
  tip.append(rows);
  tip.hidden = false;
  span.setAttribute("aria-describedby", tip.id);
  const at = span.getClientRects()[0];
  const box = tip.getBoundingClientRect();
  const left = Math.min(Math.max(8, at.left), window.innerWidth - box.width - 8);
  const above = at.top - box.height - 6;
  tip.style.left = left + "px";
  tip.style.top = (above > 8 ? above : at.bottom + 6) + "px";
}

function hideTip() {
  tip.hidden = true;
  for (const span of flow.querySelectorAll("[aria-describedby]")) span.removeAttribute("aria-describedby");
}

function tokenOf(event) {
  const span = event.target.closest ? event.target.closest(".token") : null;
  return span && facts.has(span) ? span : null;
}

flow.addEventListener("mouseover", (event) => {
  hideTip();
  const span = tokenOf(event);
  if (span) showTip(span);
});
flow.addEventListener("mouseleave", hideTip);
flow.addEventListener("focusin", (event) => {
  hideTip();
  const span = tokenOf(event);
  if (!span) return;
  for (const other of flow.querySelectorAll('.token[tabindex="0"]')) other.tabIndex = -1;
  span.tabIndex = 0;
  showTip(span);
});
flow.addEventListener("focusout", hideTip);
flow.addEventListener("scroll", hideTip);
flow.addEventListener("click", (event) => {
  const span = tokenOf(event);
  if (span) span.focus({ preventScroll: true });
});
flow.addEventListener("keydown", (event) => {
  const span = tokenOf(event);
  if (event.key === "Escape") hideTip();
  const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
  const ends = { Home: 0, End: -1 }[event.key];
  if (!span || (step === undefined && ends === undefined)) return;
  const all = [...flow.querySelectorAll(".token")].filter((token) => token.offsetParent !== null);
  const to = step === undefined ? all.at(ends) : all[all.indexOf(span) + step];
  if (to) {
    event.preventDefault();
    to.focus();
  }
});
hide.addEventListener("change", () => flow.classList.toggle("only-kept", hide.checked));

followLines(
  () => {
    flow.replaceChildren();
    hideTip();
    lastEmitted = null;
  },
  (line) => {
    if (line.tokens) addRound(line);
    if (line.end === "eos" && lastEmitted && facts.get(lastEmitted).text === "") {
      lastEmitted.firstChild.replaceChildren(mark("end"));
    }
  },
  () => {
    empty.hidden = flow.childElementCount > 0;
    follow(false);
  },
);
