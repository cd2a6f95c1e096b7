// A token's text as nodes. It only ever becomes text nodes: nothing in it can run or fetch.
import { make } from "./dom.js";

const INVISIBLE = /[\n\r\t\u0000-\u001f\u007f-\u00a0\u00ad\u200b-\u200f\u2028-\u202f\u2060-\u206f\ufeff]/;
const MARKS = { "\n": "↵", "\r": "␍", "\t": "⇥", "\u00a0": "⍽" };

export const percent = (x) => (x === null || x === undefined ? "–" : (100 * x).toFixed(x > 0 && x < 0.1 ? 2 : 1) + " %");

// The token in a row of a round line; `id` is there for tokens without text. `ends` becomes true for the one that
// ends the answer, and for drafts of it.
export function tokenOf([kind, text, p, q, id]) {
  return { kind, text, p, q, id, ends: false };
}

function mark(sign) {
  return make("span", "token-mark", sign);
}

// Fills a token with its text; spaces without a word and invisible characters are made visible. The space before a
// word is outside of the token's bodies, so that no decoration runs through it at a line break. Where a line ends, so
// does the body: its padding would be a sliver of colour on the next line.
export function fill(span, { text, ends }, breaksLines) {
  const word = text.replace(/^ +/, "");
  if (text === "") {
    span.append(bodyOf(mark(ends ? "end" : "∅")));
  } else if (word === "") {
    span.append(bodyOf(mark("␣".repeat(text.length))));
  } else {
    span.append(text.slice(0, text.length - word.length));
    const lines = breaksLines ? word.split(/(?<=\n)/) : [word];
    lines.forEach((line, at) => {
      if (at) span.append("\n");
      span.append(bodyOf(...[...line].map(visible)));
    });
  }
}

function bodyOf(...parts) {
  const body = make("span", "token-body");
  body.append(...parts);
  body.normalize();
  return body;
}

function visible(char) {
  if (!INVISIBLE.test(char)) return char;
  const code = "U+" + char.codePointAt(0).toString(16).toUpperCase().padStart(4, "0");
  return mark(MARKS[char] || code);
}

// The token in a sentence.
export function quoted({ text, ends }) {
  if (text === "") return ends ? "the end of the answer" : "a token without text";
  return "“" + text.replace(/\n/g, "↵") + "”";
}
