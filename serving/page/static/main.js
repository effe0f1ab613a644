// Puts the page together, and asks the server what is new while somebody looks.

import { byId } from "./dom.js";
import { get } from "./server.js";
import { chosenTab, startTabs } from "./tabs.js";
import { loadTree } from "./tree.js";
import { offerTasks, startTry } from "./try.js";
import { knowTasks, showNumbers } from "./watch.js";

const POLL_MS = 2000;
let known = ""; // the tasks, as the server wrote them
let names = null;
let waiting = 0;

async function refresh() {
  const found = await get("page/tasks");
  const written = JSON.stringify(found);
  if (written !== known) {
    const news = whatIsNew(found.tasks.map(({ name }) => name));
    knowTasks(found.tasks);
    offerTasks(found.tasks);
    await loadTree(found.no_tree);
    known = written; // not before: a picture that did not come is asked for again
    byId("state").textContent = news;
  }
  if (chosenTab() === "watch") showNumbers(await get("page/numbers"));
  if (byId("state").classList.contains("error")) {
    byId("state").classList.remove("error");
    byId("state").textContent = count(names.length);
  }
}

const count = (number) => `${number} ${number === 1 ? "task" : "tasks"}`;

/** Return a sentence on which tasks there are now. */
function whatIsNew(now) {
  const before = names ?? now;
  names = now;
  const came = now.filter((name) => !before.includes(name)), went = before.filter((name) => !now.includes(name));
  const said = [came.length ? `${came.join(", ")} came` : "", went.length ? `${went.join(", ")} went` : ""].filter(Boolean);
  return [count(now.length), ...said].join("; ");
}

async function poll() {
  clearTimeout(waiting);
  if (document.hidden) return; // nothing is asked while nobody looks
  try {
    await refresh();
  } catch (error) {
    byId("state").classList.add("error");
    byId("state").textContent = error.message;
  }
  clearTimeout(waiting);
  waiting = setTimeout(poll, POLL_MS);
}

startTry();
startTabs(poll);
document.addEventListener("visibilitychange", poll);
