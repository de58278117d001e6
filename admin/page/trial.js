// The box that tries an expression.

import { byID, el, number, parties, plural, sync, when } from "./dom.js";
import { post } from "./api.js";

let pairs = 0;

// addPair adds a key of metadata with its expression.
function addPair() {
  const id = `try-value-${++pairs}`;
  const fault = el("div", { class: "fault", id: `${id}-fault`, hidden: true });
  const key = el("input", { type: "text", spellcheck: "false", autocapitalize: "off" });
  const value = el("input", { type: "text", id, spellcheck: "false", autocapitalize: "off", "aria-describedby": `${id}-fault` });
  const remove = el("button", { type: "button", onclick: () => { node.remove(); byID("try-add").focus(); } }, "Remove");
  const node = el("div", { class: "one" },
    el("div", { class: "pair" }, el("label", {}, "Metadata", key), el("label", {}, "Expression", value), remove), fault);
  node.parts = { key, value, fault };
  byID("try-metadata").append(node);
  key.focus();
}

// show marks the faults of one expression below its input, with the place.
function show(input, box, faults) {
  box.replaceChildren(...faults.flatMap((f) => {
    const place = f.column ? [el("pre", { "aria-hidden": "true" }, marked(input.value, f.column))] : [];
    const remedy = (f.remedy ?? "").replace(/;? ?expressions can use .*/, ""); // the page lists it below
    return [...place, el("p", {}, `${f.text}${remedy ? `: ${remedy}` : ""}`)];
  }));
  box.hidden = faults.length === 0;
  box.className = faults.every((f) => f.warning) ? "fault warn" : "fault";
  const wrong = faults.find((f) => !f.warning);
  if (!wrong) {
    input.removeAttribute("aria-invalid");
    return;
  }
  input.setAttribute("aria-invalid", "true");
  input.focus();
  if (wrong.column) {
    const at = [...input.value].slice(0, wrong.column - 1).join("").length;
    input.setSelectionRange(at, at);
  }
}

// marked returns the line of a text that has the column-th character, and a caret below it.
function marked(text, column) {
  const before = [...text].slice(0, column - 1).join("");
  const start = before.lastIndexOf("\n") + 1;
  const line = text.slice(start).split("\n", 1)[0];
  return `${line}\n${" ".repeat([...before.slice(start)].length)}^`;
}

const kinds = { passes: "good", dropped: "soft", failed: "bad" };

function row(r) {
  const adds = Object.entries(r.adds ?? {}).map(([k, v]) => `${k} = ${JSON.stringify(v)}`).join(", ");
  const said = [r.verdict, r.why, adds && `adds ${adds}`, r.cut && "judged without its text, which is too large to be remembered"].filter(Boolean).join(": ");
  const node = el("li", {}, el("div", { class: "plain" }, when(r.time), el("span", {}, r.sort || "push"),
    el("span", { class: "wide" }, parties(r)), el("span", { class: `wide ${kinds[r.verdict]}` }, said)));
  node.render = () => {};
  return node;
}

function summary(r) {
  if (r.examined === 0) return "No event is remembered that it would be asked about.";
  const shown = r.rows.length < r.examined ? ` The newest ${r.rows.length} are shown.` : "";
  return `Of ${plural(r.examined, "event", "events")} ${number(r.passed)} pass, ${number(r.dropped)} are dropped, ${number(r.failed)} fail.` +
    (r.more ? " There was no time for the older ones." : "") + shown +
    (r.texts ? "" : " No token is set in [admin], so event.body and texts in metadata are empty here.");
}

async function run(form) {
  const asWhen = form.elements.as.value === "when";
  const all = asWhen ? [] : [...byID("try-metadata").children].map((n) => n.parts);
  const keep = byID("try-keep");
  const out = byID("try-result");
  let result;
  try {
    const metadata = Object.fromEntries(all.map((p) => [p.key.value, p.value.value]));
    result = await post("/api/try", { when: asWhen, keep: keep.value, metadata });
  } catch (err) {
    out.textContent = err.message;
    return;
  }
  const faults = result.faults ?? [];
  for (const p of all.toReversed()) show(p.value, p.fault, faults.filter((f) => f.key === `metadata.${p.key.value}`));
  show(keep, byID("try-keep-fault"), faults.filter((f) => f.key === "keep"));
  const wrong = faults.filter((f) => !f.warning);
  out.textContent = wrong.length ? `The expression is wrong: ${wrong.map((f) => f.text).join("; ")}` : summary({ ...result, rows: result.rows ?? [] });
  const rows = byID("try-rows");
  rows.replaceChildren();
  sync(rows, wrong.length ? [] : result.rows ?? [], (r) => r.number, row);
}

export function setUpTrial() {
  const form = byID("try");
  form.addEventListener("submit", (e) => { e.preventDefault(); run(form); });
  form.addEventListener("keydown", (e) => { if (e.key === "Enter" && (e.ctrlKey || e.metaKey)) run(form); });
  form.addEventListener("change", () => {
    const asWhen = form.elements.as.value === "when";
    byID("try-add").hidden = byID("try-metadata").hidden = asWhen;
  });
  byID("try-add").addEventListener("click", addPair);
}
