// Numbers of things in words.

export const counted = (count, noun) => `${count} ${noun}${count === 1 ? "" : "s"}`;
