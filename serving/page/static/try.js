// The tab "Try": a picture or a text, tasks, and their answers.

import { showAnswer, showFailure } from "./answers.js";
import { byId, el, ms } from "./dom.js";
import { asStored } from "./picture.js";
import { showRequest } from "./request.js";
import { predict } from "./server.js";
import { lightTree } from "./tree.js";

const MOST_CHOSEN = 20; // tasks, unless somebody chooses more
const MANY = 12; // tasks from which on one may look for some
const choices = new Map(); // name -> whether it is to be asked, as people or the page have chosen
let tasks = [];
let file = null;
let preview = null; // the address of the picture in this browser
let running = null; // ends the request that is on its way

export function startTry() {
  byId("ask").addEventListener("submit", (event) => (event.preventDefault(), ask()));
  byId("ask").addEventListener("change", ({ target }) => {
    if (target.name === "about") showTasks();
    if (target.id === "file" && target.files.length) take(target.files[0]);
    if (target.name === "task") choices.set(target.value, target.checked);
    refreshRequest();
  });
  byId("words").addEventListener("input", refreshRequest);
  byId("words").addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) ask();
  });
  byId("find").addEventListener("input", showTasks);
  byId("all").addEventListener("click", () => chooseShown(true));
  byId("none").addEventListener("click", () => chooseShown(false));
  document.addEventListener("dragover", (event) => (event.preventDefault(), byId("image").classList.add("over")));
  document.addEventListener("dragleave", () => byId("image").classList.remove("over"));
  document.addEventListener("drop", (event) => {
    event.preventDefault(); // a browser would go to the file
    byId("image").classList.remove("over");
    if (event.dataTransfer.files.length) take(event.dataTransfer.files[0]);
  });
  document.addEventListener("paste", ({ clipboardData }) => clipboardData.files.length && take(clipboardData.files[0]));
  startRequest();
}

/** Offer `found`, the tasks that are served now; what was chosen stays chosen, and what is new is chosen with it. */
export function offerTasks(found) {
  tasks = found;
  const takes = (what) => tasks.some((task) => task.takes === what && task.is_for_people);
  const both = takes("image") && takes("text");
  byId("about").hidden = !both;
  if (!both && (takes("image") || takes("text"))) document.querySelector(`[name=about][value=${takes("image") ? "image" : "text"}]`).checked = true;
  byId("nothing").hidden = takes("image") || takes("text");
  byId("go").hidden = byId("tasks").hidden = !byId("nothing").hidden;
  showTasks();
  refreshRequest();
}

const about = () => document.querySelector("[name=about]:checked").value;
const isOffered = (task) => task.is_for_people && task.takes === about();
const chosen = () => tasks.filter((task) => isOffered(task) && choices.get(task.name)).map((task) => task.name);

function showTasks() {
  byId("image").hidden = about() !== "image" || !byId("nothing").hidden;
  byId("text").hidden = about() !== "text" || !byId("nothing").hidden;
  const offered = tasks.filter(isOffered);
  offered.forEach(({ name }, place) => choices.has(name) || choices.set(name, place < MOST_CHOSEN));
  byId("find").hidden = offered.length < MANY;
  const wanted = byId("find").value.trim().toLowerCase();
  const focused = document.activeElement?.name === "task" ? document.activeElement.value : null;
  byId("choices").replaceChildren(...offered.filter(({ name }) => name.toLowerCase().includes(wanted)).map(choice));
  if (focused) [...byId("choices").querySelectorAll("input")].find((box) => box.value === focused)?.focus();
  const others = tasks.filter((task) => !isOffered(task)).map(whyNot);
  byId("others").textContent = others.length ? `Not asked here: ${others.join("; ")}.` : "";
}

function choice({ name, kind, canary }) {
  const box = el("input", { type: "checkbox", name: "task", value: name, checked: choices.get(name) });
  const more = canary ? `${kind.kind}, canary ${canary.version}` : kind.kind;
  return el("li", {}, el("label", {}, box, " ", name, " ", el("span", { class: "dim" }, more)));
}

function whyNot({ name, takes, is_for_people: isForPeople, kind }) {
  if (!isForPeople) return `${name} (a ${kind.kind}: its values are over v2 only)`;
  return takes ? `${name} (takes ${takes === "text" ? "a text" : "an image"})` : `${name} (takes tensors, over v2)`;
}

function chooseShown(isChosen) {
  for (const box of byId("choices").querySelectorAll("input")) choices.set(box.value, (box.checked = isChosen));
  refreshRequest();
}

/** Ask about a picture that was chosen, dropped or pasted; the server says whether it is one. */
async function take(picture) {
  if (byId("image").hidden && byId("about").hidden) return void say("No task here takes an image.");
  if (about() !== "image") {
    document.querySelector("[name=about][value=image]").checked = true;
    showTasks();
  }
  file = picture;
  const stored = await asStored(picture);
  if (file !== picture) return; // another one has come meanwhile
  if (preview) URL.revokeObjectURL(preview);
  preview = URL.createObjectURL(stored);
  const image = byId("preview");
  image.hidden = true;
  image.onload = () => (image.hidden = false);
  image.src = preview;
  byId("hint").textContent = picture.name;
  refreshRequest();
  await ask();
}

async function ask() {
  const question = asked();
  const names = chosen();
  if (!question) return say(about() === "image" ? "Choose a picture first." : "Type a text first.");
  if (!names.length) return say("Choose a task first.");
  running?.abort();
  const mine = (running = new AbortController());
  say("");
  byId("time").textContent = "Asking \u2026";
  byId("answered").setAttribute("aria-busy", "true");
  try {
    const answer = await predict(question, names, mine.signal);
    if (mine === running) showAll(answer, question, names);
  } catch (error) {
    if (error.name !== "AbortError" && mine === running) fail(error.message);
  } finally {
    if (mine === running) byId("answered").removeAttribute("aria-busy");
  }
}

/** Return what is asked about, null where there is nothing yet. */
function asked() {
  if (about() === "text") return byId("words").value ? { text: byId("words").value } : null;
  return file ? { file } : null;
}

function showAll(answer, question, names) {
  const known = new Map(tasks.map((task) => [task.name, task]));
  const seen = { url: preview, text: question.text };
  byId("answers").replaceChildren(...names.map((name) =>
    answer.tasks[name] ? showAnswer(name, answer.tasks[name], seen, known.get(name)) : showFailure(name, answer.errors[name] ?? "No answer.")));
  const { decode_ms: prepare, queue_ms: wait, compute_ms: compute, total_ms: total } = answer.timings;
  byId("time").textContent = `${ms(total)} in the server: ${ms(prepare)} to read it, ${ms(wait)} waiting, ${ms(compute)} in ` +
    `${answer.segments.length} ${answer.segments.length === 1 ? "run" : "runs"} of segments.`;
  lightTree(answer.segments, names.filter((name) => answer.tasks[name]));
}

function fail(sentence) {
  byId("answers").replaceChildren();
  byId("time").textContent = "No answer.";
  lightTree([], []);
  say(sentence);
}

function say(sentence) {
  byId("error").textContent = sentence;
  byId("error").hidden = !sentence;
}

function startRequest() {
  showRequest({ file: { name: "photo.jpg" } }, []);
}

function refreshRequest() {
  const names = chosen();
  if (about() === "text") showRequest({ text: byId("words").value || "..." }, names);
  else showRequest({ file: { name: file?.name ?? "photo.jpg" } }, names);
}
