// The request that the page sends, to be copied: as curl, and as Python.

import { byId, copyButton, el } from "./dom.js";

const here = () => new URL(".", location.href).href.replace(/\/$/, "");
const shell = (text) => `'${text.replaceAll("'", "'\\''")}'`;

/** Show it. about: {file} or {text}; tasks: their names. */
export function showRequest(about, tasks) {
  byId("request").replaceChildren(block("curl", curl(about, tasks)), block("Python", python(about, tasks)));
}

function curl(about, tasks) {
  const address = shell(`${here()}/predict?tasks=${tasks.map(encodeURIComponent).join(",")}`);
  if (about.text === undefined) return `curl --data-binary ${shell(`@${about.file.name}`)} ${address}`;
  return `curl -H 'Content-Type: application/json' -d ${shell(JSON.stringify({ text: about.text }))} ${address}`;
}

function python(about, tasks) {
  const what = about.text === undefined ? JSON.stringify(about.file.name) : `text=${JSON.stringify(about.text)}`;
  const names = `[${tasks.map((name) => JSON.stringify(name)).join(", ")}]`;
  const order = about.text === undefined ? `${what}, ${names}` : `tasks=${names}, ${what}`;
  return `import espalier\n\nclient = espalier.Client(${JSON.stringify(here())})\nanswer = client.predict(${order})\nprint(answer["tasks"])`;
}

function block(language, code) {
  return el("div", { class: "code" }, el("p", {}, el("b", {}, language), " ", copyButton(language, () => code)),
    el("pre", { tabindex: "0", "aria-label": language }, el("code", {}, code)));
}
