// What is asked of the server. Every address is relative: a proxy may show the page below a path of its own.

/** Return the JSON at `path`. Throws an Error with a sentence. */
export async function get(path) {
  return (await answerOf(fetch(path, { headers: { Accept: "application/json" } }))).json();
}

/** Return what tasks answer. about: {file} or {text}. signal: ends it. Throws an Error with a sentence, an AbortError when it was ended. */
export async function predict(about, tasks, signal) {
  const query = new URLSearchParams({ tasks: tasks.join(","), partial_results: true });
  const isText = about.text !== undefined;
  const body = isText ? JSON.stringify({ text: about.text }) : about.file;
  const headers = { "Content-Type": isText ? "application/json" : "application/octet-stream" };
  return (await answerOf(fetch(`predict?${query}`, { method: "POST", body, headers, signal }))).json();
}

async function answerOf(request) {
  let response;
  try {
    response = await request;
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Error("The server does not answer, or has not taken all of the request.");
  }
  if (response.ok) return response;
  const said = await response.json().catch(() => ({}));
  throw new Error(said.error ?? `The server has answered ${response.status}, and no sentence.`);
}
