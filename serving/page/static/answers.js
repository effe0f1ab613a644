// Answers as people look at them: a function for each kind.

import { css, numbered } from "./colours.js";
import { copyButton, el, number, percent } from "./dom.js";
import { boxOver, paintMask, pictureWith } from "./picture.js";

const FIRST_NUMBERS = 8; // of an embedding

/** Return the answer of one task. asked: {url, text} it was asked about. task: what is known of it, undefined where nothing is. */
export function showAnswer(name, answer, asked, task) {
  const show = KINDS[answer.kind] ?? unknownKind;
  return section(name, `${answer.kind}, version ${answer.version}`, ...show(answer, asked, task));
}

/** Return the sentence that stands in the place of an answer. */
export const showFailure = (name, sentence) => section(name, "", el("p", { class: "error" }, sentence));

function section(name, about, ...children) {
  return el("section", { class: "answer", "data-task": name }, el("h3", {}, name, " ", el("span", { class: "dim" }, about)), ...children);
}

const KINDS = { classes, labels, values, embedding, mask, boxes, tokens };

function classes({ labels: found }) {
  return [bars(found)];
}

function labels({ labels: found }, asked, task) {
  const thresholds = task?.kind.thresholds ?? [0.5];
  const least = (label) => (thresholds.length === 1 ? thresholds[0] : thresholds[task.labels.indexOf(label)]);
  if (found.length) return [bars(found, least)];
  return [el("p", { class: "dim" }, "No label reaches its threshold.")];
}

/** Return a bar for each label. least: of a label, its threshold, which is marked. */
function bars(found, least = () => undefined) {
  return el("ul", { class: "bars" }, ...found.map(({ label, score }) => {
    const threshold = least(label);
    const about = threshold === undefined ? null : el("span", { class: "dim" }, ` of at least ${number(threshold)}`);
    return el("li", {}, el("span", { class: "label" }, label), bar(score, threshold), el("span", { class: "number" }, number(score), about));
  }));
}

/** Return a bar for a score from 0 to 1; an empty one of any other. */
function bar(score, threshold) {
  const track = el("span", { class: "bar", "aria-hidden": "true" });
  if (score !== null && score >= 0 && score <= 1) {
    const full = el("span", { class: "full" });
    full.style.width = `${100 * score}%`;
    track.append(full);
  }
  if (threshold !== undefined) {
    const mark = el("span", { class: "mark" });
    mark.style.left = `${100 * threshold}%`;
    track.append(mark);
  }
  return track;
}

function values({ values: found }) {
  const row = ({ name, value, unit }) =>
    el("tr", {}, el("th", { scope: "row" }, name), el("td", { class: "number" }, number(value)), el("td", {}, unit));
  return [el("table", { class: "values" }, el("tbody", {}, ...found.map(row)))];
}

function embedding({ size, vector }) {
  const length = Math.hypot(...vector.map((value) => value ?? NaN));
  const first = vector.slice(0, FIRST_NUMBERS).map(number).join(", ");
  const more = size > FIRST_NUMBERS ? ", \u2026" : "";
  return [
    el("p", {}, `${size} numbers of the length ${Number.isNaN(length) ? "not finite" : number(length)} `,
      copyButton("the vector", () => JSON.stringify(vector))),
    el("p", {}, el("code", {}, `${first}${more}`)),
  ];
}

function mask(answer, { url }) {
  const clear = answer.areas.find(({ index, label }) => index === 0 && /^(0|background|nothing)$/i.test(label));
  const canvas = el("canvas", { role: "img", "aria-label": `A mask with ${answer.areas.map(({ label }) => label).join(", ")}` });
  paintMask(canvas, answer.png, clear?.index);
  const rows = answer.areas.map(({ label, index, pixels, share }) => legendRow(label, index === clear?.index ? "clear" : css(index), pixels, percent(share)));
  if (answer.unknown_pixels) rows.push(legendRow("not seen by the network (255)", "unknown", answer.unknown_pixels, ""));
  return [pictureWith(url, [canvas]), el("table", { class: "legend" }, el("tbody", {}, ...rows))];
}

/** colour: of CSS, "clear" or "unknown". */
function legendRow(label, colour, pixels, share) {
  const swatch = el("span", { class: `swatch ${/^\w+$/.test(colour) ? colour : ""}`, "aria-hidden": "true" });
  if (colour.startsWith("rgb")) swatch.style.backgroundColor = colour;
  return el("tr", {}, el("th", { scope: "row" }, swatch, label), el("td", { class: "number" }, share),
    el("td", { class: "number dim" }, `${pixels.toLocaleString("en")} pixels`));
}

function boxes({ boxes: found }, { url }) {
  if (!found.length) return [pictureWith(url, []), el("p", { class: "dim" }, "Nothing was found.")];
  const colours = numbered(found.map(({ label }) => label));
  const over = found.map((box) => boxOver(box, colours.get(box.label)));
  const rows = found.map(({ label, score, box }) => {
    const swatch = el("span", { class: "swatch", "aria-hidden": "true" });
    swatch.style.backgroundColor = css(colours.get(label));
    return el("tr", {}, el("th", { scope: "row" }, swatch, label), el("td", { class: "number" }, number(score)),
      el("td", { class: "number dim" }, box.map((value) => value.toFixed(0)).join(", ")));
  });
  return [pictureWith(url, over), el("table", { class: "legend" }, el("tbody", {}, ...rows))];
}

function tokens({ spans }, { text }) {
  const characters = Array.from(text); // the server counts characters, and JavaScript halves of some
  const colours = numbered(spans.map(({ label }) => label));
  const parts = [];
  let place = 0;
  for (const { label, score, start, end } of spans) {
    parts.push(characters.slice(place, start).join(""));
    const tag = el("span", { class: "tag" }, `${label} ${number(score)}`);
    tag.style.backgroundColor = css(colours.get(label));
    const mark = el("mark", {}, characters.slice(start, end).join(""), tag);
    mark.style.borderColor = css(colours.get(label));
    parts.push(mark);
    place = end;
  }
  parts.push(characters.slice(place).join(""));
  return [el("p", { class: "spans" }, ...parts), spans.length ? null : el("p", { class: "dim" }, "No span was found.")];
}

function unknownKind(answer) {
  return [el("pre", {}, JSON.stringify(answer, null, 1))];
}
