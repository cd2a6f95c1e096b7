// The panel with all facts of one round, below the tokens. Knows round lines, not their source.
import { counted } from "./counts.js";
import data from "./data.js";
import { make, term } from "./dom.js";
import { fill, percent, quoted } from "./token_text.js";
import { isDrafted, isEmitted } from "./token_kinds.js";

const REASONS = new Map(Object.entries(data.gammaReasons));
const SOURCES = new Map(Object.entries(data.draftSources));

// The reason for a round's gamma. Traces of early versions have a text in place of a code; it is shown unchanged.
function reasonInWords(reason, gain, cut, source) {
  const words = REASONS.get(reason);
  if (words === undefined) return reason;
  return words.replace("{gain}", gain === null ? "–" : gain.toFixed(2)) + (cut ? data.gammaCut : "") + (SOURCES.get(source) ?? "");
}

// A round in a sentence or two.
function roundInWords(tokens) {
  const of = (kind) => tokens.filter((token) => token.kind === kind);
  const [accepted, rejected, untested] = ["accepted", "rejected", "untested"].map(of);
  const drafted = accepted.length + rejected.length + untested.length;
  const own = tokens.find((token) => !isDrafted(token.kind));
  const named = (token) => quoted({ ...token, text: token.text.trim() || token.text });
  const drafts = (count) => counted(count, "draft");
  if (!drafted) return `Nothing was drafted: the target gave ${named(own)} in a step of its own.`;
  if (rejected.length) {
    const kept = accepted.length ? `${accepted.length} of ${drafts(drafted)} stood` : "No draft stood";
    const instead = own ? ` and put ${named(own)} in its place` : "";
    const rest = untested.length ? ` So ${drafts(untested.length)} after it never came to be tested.` : "";
    return `${kept}: the target rejected ${named(rejected[0])}${instead}.${rest}`;
  }
  const all = drafted === 1 ? "The draft stood" : `All ${drafted} drafts stood`;
  return own ? `${all}, and the target added ${named(own)}.` : `${all}; the answer ended there.`;
}

// Calls `onMove(at, from)` when it shows round `at`; `at` is null when the panel was closed.
export function roundPanel(box, onMove) {
  const part = (name) => box.querySelector(".round-" + name);
  const [title, before, after, close] = ["title", "before", "after", "close"].map(part);
  const milliseconds = (x) => (x < 10 ? x.toFixed(2) : x.toFixed(1)) + " ms";
  let rounds = [];
  let at = null;

  function showFacts(line) {
    const facts = part("facts");
    facts.replaceChildren();
    const add = (name, meaning, ...value) => {
      const row = make("div");
      row.append(make("dt"), make("dd"));
      row.firstChild.append(term(name, meaning));
      row.lastChild.append(...value);
      facts.append(row);
    };
    const drafted = line.tokens.filter((token) => isDrafted(token.kind)).length;
    const emitted = line.tokens.filter((token) => isEmitted(token.kind)).length;
    add("tokens given", "Tokens that this round added to the answer.", String(emitted));
    if (line.gamma) {
      const [gamma, ...reason] = line.gamma;
      const fewer = gamma > drafted ? `, ${drafted} proposed` : "";
      const words = make("small", "", reasonInWords(...reason));
      add("gamma", "How many drafts the round asks for.", `${gamma}${fewer}`, words);
    }
    if (line.ms) {
      const [draft, verify, overhead] = line.ms;
      add("time", "From the start of the round to its end.", milliseconds(draft + verify + overhead));
      add("draft", "Time the drafter took to propose.", milliseconds(draft));
      const verified = line.round ? "Time of the target’s one step over all drafts." : "Time to read the prompt.";
      add("verify", verified, milliseconds(verify));
      add("overhead", "Time of everything else in the round.", milliseconds(overhead));
    }
    const bar = part("bar");
    bar.hidden = !line.ms;
    if (line.ms) line.ms.forEach((share, which) => (bar.children[which].style.flexGrow = share));
  }

  function showTokens(line) {
    const rows = part("tokens").tBodies[0];
    rows.replaceChildren();
    line.tokens.forEach((token, which) => {
      rows.append(rowOf(token, isDrafted(token.kind) ? String(which + 1) : ""));
      for (const other of line.alternatives[which] || []) rows.append(rowOf(other, ""));
    });
  }

  function rowOf(token, place) {
    const { kind, p, q } = token;
    const row = make("tr", kind === "alternative" ? "round-alternative" : "");
    const sample = make("span", "token-sample");
    sample.dataset.kind = kind;
    fill(sample, token, false);
    row.append(make("td", "", place), make("td"));
    row.lastChild.append(sample);
    row.append(make("td", "", percent(p)), make("td", "", percent(q)), make("td", "", kind));
    return row;
  }

  function count() {
    const last = rounds.at(-1).round;
    const { round } = rounds[at];
    title.textContent = round > 0 ? `Round ${round} of ${last}` : "Before the first round";
    before.disabled = at === 0;
    after.disabled = at === rounds.length - 1;
  }

  function show(lines, which) {
    [rounds, at] = [lines, which];
    box.hidden = false;
    part("words").textContent = roundInWords(rounds[at].tokens);
    showFacts(rounds[at]);
    showTokens(rounds[at]);
    count();
  }

  function move(step) {
    if (!rounds[at + step]) return;
    show(rounds, at + step);
    if (document.activeElement.disabled || document.activeElement === document.body) box.focus({ preventScroll: true });
    onMove(at);
  }

  function hide() {
    box.hidden = true;
    at = null;
  }

  function leave() {
    const from = at;
    hide();
    onMove(null, from);
  }

  before.addEventListener("click", () => move(-1));
  after.addEventListener("click", () => move(1));
  close.addEventListener("click", leave);
  box.addEventListener("keydown", (event) => {
    const act = { ArrowLeft: () => move(-1), ArrowRight: () => move(1), Escape: leave }[event.key];
    if (!act || event.defaultPrevented) return;
    event.preventDefault();
    act();
  });
  return { show, hide, leave, count: () => at !== null && count(), isOpen: () => at !== null };
}
