// Dead letters: show, replay, drop.

import { byID, el, parties, plural, put, sync, when } from "./dom.js";
import { get, post } from "./api.js";
import { facts, textButton } from "./events.js";

const none = "-"; // stands for the dead letters that no destination has seen
const pageSize = 50;

let changes = false; // there is a token, so that they can be changed
let pages = 1;
let loading = false, again = false;

function say(text, kind = "") {
  const out = byID("letters-result");
  out.className = kind;
  out.textContent = text;
}

// load reads the pages that are shown. Calls while it does so make it read once more.
export async function load() {
  if (loading) {
    again = true;
    return;
  }
  loading = true;
  do {
    again = false;
    try {
      await read();
    } catch (err) {
      say(`The dead letters cannot be read: ${err.message}`, "bad");
    }
  } while (again);
  loading = false;
}

async function read() {
  const backend = byID("letters-backend").value;
  let list = [];
  let more = true;
  for (let n = 0; n < pages && more; n++) {
    const query = new URLSearchParams({ backend, after: list.at(-1)?.number ?? 0 });
    const page = await get(`/api/letters?${query}`);
    list = list.concat(page);
    more = page.length === pageSize;
  }
  byID("letters-more").hidden = !more;
  byID("letters-empty").hidden = list.length > 0;
  sync(byID("letters"), list, (d) => d.number, row);
}

async function change(path, body, done) {
  try {
    const { count } = await post(path, body);
    say(count ? `${plural(count, "dead letter is", "dead letters are")} ${done}.` : `Nothing is ${done}: it is not there any more, its destination is not configured, or it holds no event.`);
  } catch (err) {
    say(`Nothing is ${done}: ${err.message}`, "bad");
  }
  await load();
  if (document.activeElement === document.body) byID("letters-title").focus(); // the button has gone
}

// confirmed asks before something is destroyed.
function confirmed(text) {
  const dialog = byID("confirm");
  put(byID("confirm-text"), text);
  return new Promise((resolve) => {
    let answer = false;
    byID("confirm-yes").onclick = () => { answer = true; dialog.close(); };
    byID("confirm-no").onclick = () => dialog.close();
    dialog.onclose = () => resolve(answer);
    dialog.showModal();
    byID("confirm-no").focus();
  });
}

function row(d) {
  const where = d.backend ?? "the filters";
  const inside = el("div", { class: "inside" });
  const fill = () => {
    if (inside.hasChildNodes()) return;
    const drop = async () => {
      if (await confirmed(`Drop dead letter ${d.number} of ${where}? The event is then lost for good.`)) await change("/api/letters/drop", { number: d.number }, "dropped");
    };
    inside.append(...(d.event ? facts(d.event).filter(Boolean) : []),
      el("p", { class: "bad" }, `${d.error || d.reason}${d.attempts ? `, after ${plural(d.attempts, "attempt", "attempts")}` : ""}`),
      el("p", { class: "buttons" },
        el("button", { type: "button", disabled: !changes, class: "replay", onclick: () => change("/api/letters/replay", { number: d.number }, "replayed") }, "Replay"),
        el("button", { type: "button", disabled: !changes, class: "drop", onclick: drop }, "Drop")),
      textButton(`/api/letters/text?number=${d.number}`, changes));
  };
  const node = el("li", {}, el("details", { ontoggle: fill },
    el("summary", {}, when(d.died), el("span", {}, d.event?.sort || d.reason),
      el("span", { class: "wide" }, d.event?.from ? parties(d.event) : "-"), el("span", { class: "wide bad" }, `${where}: ${d.reason}`)), inside));
  node.render = () => {};
  return node;
}

// setUpLetters shows the dead letters; mayChange says that there is a token.
export function setUpLetters() {
  const backend = byID("letters-backend");
  const all = byID("letters-replay");
  const allowed = () => { all.disabled = !changes || backend.value === ""; };
  backend.addEventListener("change", () => { pages = 1; allowed(); load(); });
  all.addEventListener("click", () => change("/api/letters/replay", { backend: backend.value }, "replayed"));
  byID("letters-more").addEventListener("click", () => { pages++; load(); });
  return {
    start: (mayChange) => { changes = mayChange; allowed(); load(); },
    // choices lists the destinations to choose from.
    choices: (names) => {
      const create = (o) => {
        const node = el("option", { value: o.value }, o.text);
        node.render = () => {};
        return node;
      };
      sync(backend, [{ value: "", text: "all" }, ...names.map((n) => ({ value: n, text: n })), { value: none, text: "none has seen it" }], (o) => o.value, create);
    },
  };
}
