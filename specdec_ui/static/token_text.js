// A token's text as nodes. It only ever becomes text nodes: nothing in it can run or fetch.
import { make } from "./dom.js";

const INVISIBLE = /[\n\r\t\u0000-\u001f\u007f-\u00a0\u00ad\u200b-\u200f\u2028-\u202f\u2060-\u206f\ufeff]/;
const MARKS = { "\n": "↵", "\r": "␍", "\t": "⇥", "\u00a0": "⍽" };

export const percent = (x) => (x === null || x === undefined ? "–" : (100 * x).toFixed(x > 0 && x < 0.1 ? 2 : 1) + " %");

export function mark(sign) {
  return make("span", "token-mark", sign);
}

// Fills a token with its text; spaces without a word and invisible characters are made visible. The space before a
// word is outside the token's body, so that no decoration runs through it at a line break.
export function fill(span, text, breaksLines) {
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
      if (char === "\n" && breaksLines) body.append("\n");
    }
    body.normalize();
  }
  span.append(body);
}

// The token in a sentence.
export function quoted(text) {
  return text === "" ? "a token without text" : "“" + text.replace(/\n/g, "↵") + "”";
}
