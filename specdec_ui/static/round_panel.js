// All that is known of one round, below the tokens. Knows round lines, not where they come from.
const GAMMA_REASONS = {
  fixed: "as the settings ask",
  baseline: "plain decoding: nothing is drafted",
  prefill: "the prompt is being read",
};
const DRAFTED = new Set(["accepted", "rejected", "untested"]);

function reasonInWords(reason) {
  const [, first, rest] = /^(?:auto: )?([^,]*)(.*)$/s.exec(reason);
  const words = (GAMMA_REASONS[first] || first) + rest;
  return (reason.startsWith("auto: ") ? "chosen for this round: " + words : words).slice(0, 200);
}

// The round in a sentence or two.
function roundInWords(tokens) {
  const of = (kind) => tokens.filter(([each]) => each === kind);
  const [stood, rejected, untested] = ["accepted", "rejected", "untested"].map(of);
  const drafted = stood.length + rejected.length + untested.length;
  const own = tokens.find(([kind]) => !DRAFTED.has(kind));
  const named = ([, text]) => quoted(text.trim() || text);
  const drafts = (count) => (count === 1 ? "1 draft" : count + " drafts");
  if (!drafted) return `Nothing was drafted: the target gave ${named(own)} in a step of its own.`;
  if (rejected.length) {
    const kept = stood.length ? `${stood.length} of ${drafts(drafted)} stood` : "No draft stood";
    const instead = own ? ` and put ${named(own)} in its place` : "";
    const rest = untested.length ? ` So ${drafts(untested.length)} after it never came to be tested.` : "";
    return `${kept}: the target rejected ${named(rejected[0])}${instead}.${rest}`;
  }
  const all = drafted === 1 ? "The draft stood" : `All ${drafted} drafts stood`;
  return own ? `${all}, and the target added ${named(own)}.` : `${all}; the answer ended there.`;
}

// `onMove(at, from)`: round `at` is shown now; null when the panel was closed, by the keyboard or a button.
function roundPanel(box, onMove) {
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
    const drafted = line.tokens.filter(([kind]) => DRAFTED.has(kind)).length;
    const given = line.tokens.filter(([kind]) => KEPT.has(kind)).length;
    add("tokens given", "Tokens that this round added to the answer.", String(given));
    if (line.gamma) {
      const [gamma, reason] = line.gamma;
      const fewer = gamma > drafted ? `, ${drafted} proposed` : "";
      add("gamma", "How many drafts the round asks for.", `${gamma}${fewer}`, make("small", "", reasonInWords(reason)));
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
    line.tokens.forEach(([kind, text, p, q], which) => {
      const row = make("tr");
      const token = make("span", "token-sample");
      token.dataset.kind = kind;
      fill(token, text, false);
      row.append(make("td", "", DRAFTED.has(kind) ? String(which + 1) : ""), make("td"));
      row.lastChild.append(token);
      row.append(make("td", "", percent(p)), make("td", "", percent(q)), make("td", "", kind));
      rows.append(row);
    });
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
