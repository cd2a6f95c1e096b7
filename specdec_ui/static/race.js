// Answers side by side, each in a token view: live, or replayed at the measured speeds.
import { counted } from "./counts.js";
import { followLines } from "./lines.js";
import { tokenView } from "./tokens.js";

export default function mount(view) {
  const { element } = view;
  const controls = element.querySelector(".race-controls");
  const skip = element.querySelector(".race-skip");
  const pace = element.querySelector(".race-pace");
  const why = element.querySelector(".race-why");
  const lanes = [...element.querySelectorAll(".race-lane")].map((box) => {
    const lane = { box, lines: [], next: 0 };
    tokenView(box, (onReset, onLine, onDone) => Object.assign(lane, { onReset, onLine, onDone }));
    return lane;
  });
  const still = window.matchMedia("(prefers-reduced-motion: reduce)").matches;
  let race = null;
  let finishedRace = null;
  let wasLive = false;
  let time = 0;
  let last = 0;
  let frame = 0;

  // Shows the lines up to `seconds` of decoding.
  function showUntil(seconds) {
    for (const lane of lanes) {
      const before = lane.next;
      const scale = lane.facts ? lane.facts.scale || 1 : 1;
      while (lane.next < lane.lines.length && scale * lane.lines[lane.next].at <= seconds) {
        lane.onLine(JSON.parse(lane.lines[lane.next].line));
        lane.next += 1;
      }
      if (lane.next !== before) lane.onDone();
      if (lane.facts) showClock(lane, seconds);
    }
  }

  function showClock(lane, seconds) {
    const done = lane.next === lane.lines.length;
    const emitted = lane.next ? lane.lines[lane.next - 1].emitted : 0;
    const tokens = counted(emitted, "token");
    lane.bar.value = emitted / Math.max(lane.facts.most, 1);
    if (race.live) {
      const own = lane.next ? lane.lines[lane.next - 1].at : 0;
      lane.clock.textContent = `${tokens} after ${own.toFixed(2)} s of its own`;
      return;
    }
    lane.clock.textContent = done
      ? `${tokens} in ${lane.facts.seconds.toFixed(2)} s`
      : `${tokens} after ${Math.min(seconds, lane.facts.seconds).toFixed(2)} s`;
    lane.box.classList.toggle("is-done", done);
  }

  function tick(now) {
    time += ((now - last) / 1000) * Number(pace.value);
    last = now;
    showUntil(time);
    if (lanes.some((lane) => lane.next < lane.lines.length)) frame = requestAnimationFrame(tick);
    else stop();
  }

  function stop() {
    cancelAnimationFrame(frame);
    skip.disabled = true;
  }

  function start() {
    cancelAnimationFrame(frame);
    for (const lane of lanes) {
      lane.onReset();
      lane.next = 0;
    }
    skip.disabled = false;
    time = 0;
    last = performance.now();
    if (still) toTheEnd();
    else tick(last);
  }

  function toTheEnd() {
    showUntil(Infinity);
    stop();
  }

  skip.addEventListener("click", toTheEnd);
  element.querySelector(".race-again").addEventListener("click", start);
  element.addEventListener("race:end", toTheEnd);

  followLines(
    view,
    () => {
      cancelAnimationFrame(frame);
      race = finishedRace = null;
      wasLive = false;
      for (const lane of lanes) {
        lane.onReset();
        Object.assign(lane, { lines: [], next: 0, facts: null });
        lane.box.hidden = true;
        lane.box.classList.remove("is-done");
      }
      controls.hidden = true;
    },
    (line) => {
      if (line.lanes) {
        // A live race has a second line of lanes at its end, with their figures.
        wasLive = race !== null && race.live;
        race = line;
        line.lanes.forEach((facts, at) => {
          const lane = lanes[at];
          lane.facts = facts;
          lane.box.hidden = false;
          lane.box.querySelector("h2").textContent = facts.title;
          const note = lane.box.querySelector(".race-note");
          note.textContent = facts.note || "";
          note.hidden = !facts.note;
          lane.box.toggleAttribute("data-peer", Boolean(facts.note));
          lane.clock = lane.box.querySelector(".race-clock");
          lane.bar = lane.box.querySelector("progress");
        });
      } else {
        lanes[line.lane].lines.push(line);
      }
    },
    () => {
      if (race === null || race === finishedRace) return;
      if (race.live) {
        showUntil(Infinity);
        return;
      }
      finishedRace = race;
      controls.hidden = false;
      const longest = Math.max(...race.lanes.map((facts) => facts.seconds));
      const tooFast = longest < 1;
      pace.value = tooFast ? "0.1" : "1";
      if (wasLive) {
        why.textContent = "Seen live. Again replays it.";
        toTheEnd();
        return;
      }
      why.textContent = tooFast
        ? `Slowed down at first: at the true pace it is over in ${longest.toFixed(2)} s.`
        : "Reading the prompt is not counted.";
      start();
    },
  );
}
