// Streamed markdown as DOM nodes. Only markdown-it's parser is used, none of its HTML: its tokens become the elements
// listed below with text nodes in them, so that nothing in a text can run or fetch. Images, links, HTML and formulas
// are disabled and stay text.
import { copyButton } from "./actions.js";
import { make } from "./dom.js";
import "./vendor/markdown-it.umd.min.js";

const DEEPEST = 100;
const DEEPEST_LIST = 8;
const REST = 4;
const parser = globalThis.markdownit({ html: false, breaks: true, maxNesting: DEEPEST });
parser.disable(["image", "link", "autolink", "html_inline", "html_block", "reference", "entity"]);

const ELEMENTS = {
  paragraph_open: "p",
  blockquote_open: "blockquote",
  bullet_list_open: "ul",
  ordered_list_open: "ol",
  list_item_open: "li",
  thead_open: "thead",
  tbody_open: "tbody",
  tr_open: "tr",
  th_open: "th",
  td_open: "td",
  em_open: "em",
  strong_open: "strong",
  s_open: "s",
};
const READ_IN_THEIR_OWN_DIRECTION = new Set(["p", "ul", "ol", "th", "td"]);

// --- parsing ---------------------------------------------------------------------------------

const FORMULA =
  /\$\$[^]{1,2000}?\$\$|\$(?![\s$])(?:[^$\n]{0,500}?[^\s$\\])?\$(?!\d)|\\\([^]{1,2000}?\\\)|\\\[[^]{1,2000}?\\\]/y;

function passOver(state, silent, length) {
  if (!silent) state.pending += state.src.slice(state.pos, state.pos + length);
  state.pos += length;
  return true;
}

parser.inline.ruler.before("escape", "formula", (state, silent) => {
  FORMULA.lastIndex = state.pos;
  const formula = FORMULA.exec(state.src);
  if (formula) return passOver(state, silent, formula[0].length);
  const begun = state.tokens === state.env.open && /^(\\[([]|\$\$)/.test(state.src.slice(state.pos, state.pos + 2));
  return begun && passOver(state, silent, state.posMax - state.pos);
});

// In a growing answer, code and emphasis that are open at its end are treated as closed there. `env.open` is the list
// of tokens of the last text.
parser.core.ruler.before("inline", "open_end", (state) => {
  const last = state.tokens.findLast((token) => token.nesting >= 0);
  const growing = state.env.growing && last && last.type === "inline" && !/\n[ \t]*\n\s*$/.test(state.src);
  state.env.open = growing ? last.children : null;
});

parser.inline.ruler.before("backticks", "open_code", (state, silent) => {
  if (state.tokens !== state.env.open || state.src[state.pos] !== "`") return false;
  const [marks] = /^`+/.exec(state.src.slice(state.pos));
  const rest = state.src.slice(state.pos + marks.length);
  if (!rest.trim() || rest.split(/(?<!`)(?=`)/).some((part) => /^`*/.exec(part)[0] === marks)) return false;
  if (!silent) state.push("code_inline", "code", 0).content = rest;
  state.pos = state.posMax;
  return true;
});

parser.inline.ruler2.after("balance_pairs", "open_emphasis", (state) => {
  if (state.tokens !== state.env.open) return;
  const open = [];
  let paired = -1;
  state.delimiters.forEach((mark, at) => {
    paired = Math.max(paired, mark.end);
    const before = state.tokens[mark.token - 1];
    const inWord = mark.length === 1 && before && /\w$/.test(before.content);
    if (mark.open && mark.end < 0 && at > paired && !inWord) open.push(mark);
  });
  for (const mark of open.reverse()) {
    state.push("text", "", 0).content = String.fromCharCode(mark.marker);
    mark.end = state.delimiters.length;
    state.delimiters.push({ ...mark, token: state.tokens.length - 1, end: -1, open: false, close: true });
  }
});

// --- nodes ----------------------------------------------------------------------------------------------

function codeBlock(token) {
  const block = make("div", "md-code");
  const head = make("div", "md-code-head");
  head.append(make("span", "", token.info.trim().split(/\s/)[0]), copyButton("the code"));
  const frame = make("pre");
  frame.tabIndex = 0;
  frame.append(make("code", "", token.content.replace(/\n$/, "")));
  block.append(head, frame);
  return block;
}

function opened(token, into, lists) {
  if (token.hidden) return into;
  if (token.type === "table_open") {
    const frame = make("div", "md-table");
    frame.tabIndex = 0;
    into.append(frame);
    into = frame;
  }
  // The page has headings of its own above those of an answer.
  const level = token.type === "heading_open" ? Number(token.tag[1]) : 0;
  const tag = level ? "h" + Math.min(level + 3, 6) : token.type === "table_open" ? "table" : ELEMENTS[token.type];
  const node = make(tag, level ? "md-h" + level : lists > DEEPEST_LIST ? "md-deep" : "");
  if (level || READ_IN_THEIR_OWN_DIRECTION.has(tag)) node.dir = "auto";
  if (tag === "ol" && token.attrGet("start") !== null) node.start = Number(token.attrGet("start"));
  const align = /^text-align:(left|center|right)$/.exec(token.attrGet("style") || "");
  if (align) node.style.textAlign = align[1];
  into.append(node);
  return node;
}

function fill(into, tokens) {
  const outer = [];
  let at = into;
  let lists = 0;
  for (const token of tokens) {
    const listed = /^(bullet_list|ordered_list|blockquote)_/.test(token.type) ? token.nesting : 0;
    lists += listed;
    if (token.nesting > 0) {
      outer.push(at);
      at = opened(token, at, lists);
    } else if (token.nesting < 0) at = outer.pop();
    else if (token.type === "inline") fill(at, token.children);
    else if (token.type === "hr") at.append(make("hr"));
    else if (token.type === "softbreak" || token.type === "hardbreak") at.append(make("br"));
    else if (token.type === "fence" || token.type === "code_block") at.append(codeBlock(token));
    else if (token.type === "code_inline") at.append(make("code", "", token.content));
    else if (token.content) at.append(token.content);
  }
  return into;
}

// Updates the children of `old`, from the one at `from`, to those of `fresh`. Equal nodes stay, and with them a
// selection, the focus and the scroll position.
function patch(old, fresh, from = 0) {
  const had = [...old.childNodes].slice(from);
  const wanted = [...fresh.childNodes];
  wanted.forEach((node, at) => {
    const known = had[at];
    if (!known) old.append(node);
    else if (known.nodeName !== node.nodeName || known.className !== node.className) known.replaceWith(node);
    else if (node.nodeType === Node.TEXT_NODE) {
      if (node.data.startsWith(known.data)) known.appendData(node.data.slice(known.data.length));
      else known.data = node.data;
    } else {
      known.style.textAlign = node.style.textAlign;
      if (known.start !== node.start) known.start = node.start;
      patch(known, node);
    }
  });
  for (const node of had.slice(wanted.length)) node.remove();
}

// --- an answer ------------------------------------------------------------------------------------------

// The text without an end that later text may change: trailing marks, or a last line of nothing but marks.
function settled(text) {
  return text.replace(/(^|\n)[ \t>]*(?:[-+*_=#`~|:]+|\d{1,9}[.)]?)[ \t]*$/, "$1").replace(/[*_~`]+$/, "");
}

function offsetOfLine(text, line) {
  let at = 0;
  for (; line > 0; line--) at = text.indexOf("\n", at) + 1;
  return at;
}

// An answer's text in `box`. Blocks that later text cannot change, those before a block with a complete first line,
// are made once. Only the rest is parsed again for new text, with pauses of REST times its duration: a very long list
// would block the page otherwise.
export function markdownText(box) {
  let whole = "";
  let source = "";
  let fixedText = 0;
  let fixedNodes = 0;
  let due = 0;
  let later = null;
  return {
    get whole() {
      return whole;
    },
    append(text) {
      whole += text;
      source += text.replaceAll("\r", "");
    },
    show(ended) {
      const began = performance.now();
      if (!ended && began < due) {
        later ??= setTimeout(() => this.show(false), due - began);
        return;
      }
      clearTimeout(later);
      later = null;
      const rest = source.slice(fixedText);
      const text = ended ? rest : settled(rest);
      const tokens = parser.parse(text, { growing: !ended });
      if (tokens.some((token) => token.level >= DEEPEST - 1)) {
        patch(box, make("div", "", text), fixedNodes);
        return;
      }
      patch(box, fill(make("div"), tokens), fixedNodes);
      const starts = tokens.filter((token) => token.level === 0 && token.map && token.nesting >= 0);
      const wholeLines = text.split("\n").length - 1;
      const kept = starts.findLastIndex((token) => token.map[0] < wholeLines);
      if (kept > 0) {
        fixedText += offsetOfLine(text, starts[kept].map[0]);
        fixedNodes += kept;
      }
      due = performance.now() + REST * (performance.now() - began);
    },
  };
}
