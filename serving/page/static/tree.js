// The tree of segments: the picture that `espalier inspect --plot` draws, with what ran lit up.

import { byId, el, ms } from "./dom.js";

const SVG = "http://www.w3.org/2000/svg";
let last = null; // what is lit up

/** Show the tree of the tasks that are served now. why: there is none; "": there is one. */
export async function loadTree(why) {
  const place = byId("tree");
  byId("no-tree").textContent = why;
  byId("no-tree").hidden = !why;
  place.hidden = Boolean(why);
  if (why) return;
  const response = await fetch("page/tree.svg");
  if (!response.ok) return;
  const drawn = new DOMParser().parseFromString(await response.text(), "image/svg+xml").documentElement;
  drawn.removeAttribute("width");
  drawn.removeAttribute("height");
  drawn.style.minWidth = `${Math.round(0.8 * drawn.viewBox.baseVal.width)}px`; // words stay readable: what is wider scrolls
  place.replaceChildren(document.importNode(drawn, true));
  if (last) lightTree(...last);
}

/** Light up what ran. runs: [{segment, rows, milliseconds}]; tasks: that were asked. */
export function lightTree(runs, tasks) {
  last = [runs, tasks];
  const took = new Map();
  for (const { segment, milliseconds } of runs) took.set(segment, (took.get(segment) ?? 0) + milliseconds);
  const svg = byId("tree").querySelector("svg");
  const drawn = new Set(svg ? [...svg.querySelectorAll("[data-segment]")].map((part) => part.dataset.segment) : []);
  if (svg) {
    svg.classList.add("lit");
    svg.querySelectorAll(".ms").forEach((text) => text.remove());
    for (const part of svg.querySelectorAll("[data-segment]")) part.classList.toggle("ran", took.has(part.dataset.segment));
    for (const part of svg.querySelectorAll("[data-tasks]")) part.classList.toggle("ran", part.dataset.tasks.split(" ").some((task) => tasks.includes(task)));
    for (const part of svg.querySelectorAll("[data-output]")) {
      part.classList.toggle("ran", tasks.some((task) => part.dataset.output === task || part.dataset.output.startsWith(`${task}.`)));
    }
    for (const box of svg.querySelectorAll("g.box.ran")) svg.append(timeBeside(box, took.get(box.dataset.segment)));
  }
  byId("runs").replaceChildren(...runs.map(({ segment, rows, milliseconds }) =>
    el("li", {}, el("code", {}, segment), ` ${ms(milliseconds)}`, rows > 1 ? el("span", { class: "dim" }, `, ${rows} rows`) : null,
      svg && !drawn.has(segment) ? el("span", { class: "dim" }, ", not in the picture") : null))); // a canary's
}

/** Return the milliseconds, to stand behind a box. */
function timeBeside(box, milliseconds) {
  const { x, y, width, height } = box.querySelector("rect").getBBox();
  const text = document.createElementNS(SVG, "text");
  text.setAttribute("class", "ms");
  text.setAttribute("x", x + width + 4);
  text.setAttribute("y", y + height / 2);
  text.setAttribute("dy", "0.35em");
  text.setAttribute("font-size", "10");
  text.textContent = ms(milliseconds);
  return text;
}
