// What the page asks the server for. The token is in this module's memory and nowhere else.

let token = "";
export const setToken = (t) => { token = t; };

export class Refused extends Error {
  constructor(status, text) {
    super(text);
    this.status = status;
  }
}

async function ask(path, options = {}) {
  const headers = { ...options.headers };
  if (token) headers.Authorization = `Bearer ${token}`;
  const answer = await fetch(path, { ...options, headers, credentials: "omit", cache: "no-store" });
  if (answer.ok) return answer;
  const text = await answer.text();
  let reason = text.trim();
  try {
    reason = JSON.parse(text).error;
  } catch { /* it is plain text */ }
  throw new Refused(answer.status, reason || `the server answers ${answer.status}`);
}

export const get = async (path) => (await ask(path)).json();

export const post = async (path, body) =>
  (await ask(path, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) })).json();

// stream calls on(name, data) with each server-sent event until the stream ends. EventSource
// could not send the token.
export async function stream(path, on) {
  const answer = await ask(path);
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const messages = (rest + value).split("\n\n");
    rest = messages.pop();
    for (const message of messages) {
      const fields = Object.fromEntries(message.split("\n").map((line) => {
        const colon = line.indexOf(": ");
        return [line.slice(0, colon), line.slice(colon + 2)];
      }));
      on(fields.event, JSON.parse(fields.data));
    }
  }
}
