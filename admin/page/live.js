// The live page: it asks for the token where one is needed, follows the stream of the server
// and hands what comes to its parts.

import { byID, el, put, sync } from "./dom.js";
import { setToken, stream } from "./api.js";
import { overview } from "./overview.js";
import { showTail } from "./events.js";
import { setUpTrial } from "./trial.js";
import { load as loadLetters, setUpLetters } from "./letters.js";

const longestPause = 10_000; // ms between two attempts to connect

const showSample = overview();
const letters = setUpLetters();
setUpTrial();

let changes = false; // there is a token, so that dead letters can be changed
let paused = false;
let latest = {};     // what has come while the page is paused

function state(kind, text) {
  const p = byID("state");
  if (p.textContent === text && p.firstElementChild?.className === kind) return;
  p.replaceChildren(el("span", { class: kind }, text));
}

// reason makes an item of the list of reasons.
function reason() {
  const node = el("li", { class: "bad" });
  node.render = (text) => put(node, text);
  return node;
}

function sample(s) {
  const reasons = s.not_ready ?? [];
  if (reasons.length) state("bad", "Not ready");
  else state("good", s.state === "ready" ? "Ready" : s.state);
  document.title = `eventpusher: ${reasons.length ? "not ready" : "ready"}`;
  byID("reasons").hidden = reasons.length === 0;
  sync(byID("reasons"), reasons, (r) => r, reason);
  showSample(s);
  const backends = s.status.pusher.backends ?? [];
  letters.choices(backends.map((b) => b.name));
  mourn("sample", [...backends.map((b) => b.dead_letters), ...(s.status.pusher.filters ?? []).map((f) => f.failed)].join());
}

function tail(list) {
  showTail(list, changes);
  mourn("tail", list.find((e) => e.fate === "dead letter")?.number ?? "");
}

// mourn reads the dead letters again if there may be new ones.
const known = {};
function mourn(where, what) {
  if (where in known && known[where] !== what) loadLetters();
  known[where] = what;
}

function hello(h) {
  changes = h.changes;
  byID("sign-in")?.remove();
  byID("live").hidden = false;
  byID("pause").hidden = false;
  const figures = document.querySelector("#status details");
  if (figures) figures.open = false;
  letters.start(changes);
}

const parts = { hello, sample, tail };

function receive(name, data) {
  if (paused && name !== "hello") latest[name] = data;
  else parts[name]?.(data);
}

const pause = (ms) => new Promise((resolve) => { setTimeout(resolve, ms); });

// follow follows the stream for as long as the page is there; it returns the reason if the
// token is refused.
async function follow() {
  for (let wait = 1000; ;) {
    try {
      await stream("/api/live", (name, data) => { wait = 1000; receive(name, data); });
      state("bad", "The connection has ended; trying again");
    } catch (err) {
      if (err.status === 401) return err;
      state("bad", `No connection: ${err.message}; trying again`);
    }
    await pause(wait);
    wait = Math.min(2 * wait, longestPause);
  }
}

byID("pause").addEventListener("click", (e) => {
  paused = !paused;
  e.target.setAttribute("aria-pressed", paused);
  if (paused) return;
  for (const [name, data] of Object.entries(latest)) receive(name, data);
  latest = {};
});

const form = byID("sign-in");
if (form) {
  byID("token").focus();
  form.addEventListener("submit", async (e) => {
    e.preventDefault();
    setToken(byID("token").value);
    await follow();
    if (form.isConnected) put(byID("sign-in-error"), "This is not the token of [admin].");
    else state("bad", "The token is not accepted any more. Load the page again.");
  });
} else {
  await follow();
  state("bad", "A token is needed now. Load the page again."); // it was set meanwhile
}
