// The tab "Watch": what is served, and what was counted. It changes nothing.

import { byId, el, ms, percent } from "./dom.js";

const LAST_BOUND_MS = 10_000; // of the histogram: what took longer is only known to have
let facts = new Map();

/** Know `tasks`, which are served now. */
export function knowTasks(tasks) {
  facts = new Map(tasks.map((task) => [task.name, task]));
}

/** Show what was counted. */
export function showNumbers({ tasks, deploys }) {
  const rows = tasks.filter(({ name, requests, failures }) => facts.has(name) || requests || failures);
  byId("numbers").tBodies[0].replaceChildren(...rows.map(row));
  byId("no-deploys").hidden = deploys.length > 0;
  const shown = byId("deploys").firstElementChild?.dataset.number;
  if (String(deploys[0]?.number) !== shown) byId("deploys").replaceChildren(...deploys.map(event)); // else nothing is read out again
}

function row(numbers) {
  const task = facts.get(numbers.name);
  const canary = task?.canary?.version === numbers.version ? task.canary : null;
  const share = canary ? canary.share : task?.canary ? 1 - task.canary.share : null;
  const cell = (words, kind = "number") => el("td", { class: kind }, String(words));
  const own = (count) => (task && !canary ? count(task) : "");
  return el("tr", { "data-task": numbers.name, "data-version": numbers.version, class: canary ? "canary" : false },
    el("th", { scope: "row" }, canary ? "\u21b3 canary" : numbers.name),
    cell(numbers.version, ""),
    cell(share === null ? "" : percent(share), ""),
    cell(task ? task.kind.kind : "several tasks", ""),
    cell(own(({ shared }) => shared.length)),
    cell(own(({ own: alone }) => alone.length)),
    cell(numbers.requests.toLocaleString("en")),
    cell(numbers.failures.toLocaleString("en"), numbers.failures ? "number error" : "number"),
    cell(time(numbers.p50_ms)), cell(time(numbers.p95_ms)), cell(time(numbers.wait_p95_ms)),
    cell(numbers.pending), cell(numbers.waiting_rows));
}

function time(value) {
  if (value === null) return "";
  return value >= LAST_BOUND_MS ? "over 10 s" : ms(value);
}

function event({ number, time_ms: when, action, task, version, ok, seconds }) {
  const what = `${task}${version ? ` ${version}` : ""}`;
  const done = action === "load" ? "loaded" : "unloaded";
  const words = ok ? `${what} ${done} in ${seconds.toFixed(2)} s` : `${task}: ${action} failed after ${seconds.toFixed(2)} s; the server's log says why`;
  return el("li", { "data-number": number, class: ok ? false : "error" },
    el("time", { datetime: new Date(when).toISOString() }, new Date(when).toLocaleTimeString("en-GB")), " ", words);
}
