// Kinds of tokens, from the table in parts/trace_words.py.
import data from "./data.js";

const KINDS = new Map(Object.entries(data.tokenKinds));

export const isDrafted = (kind) => KINDS.get(kind).drafted;
export const isEmitted = (kind) => KINDS.get(kind).emitted;
export const labelOf = (kind) => KINDS.get(kind).label;
