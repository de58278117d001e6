// The last events, and what one says.

import { byID, el, parties, put, sync, when } from "./dom.js";
import { get } from "./api.js";

const good = new Set(["delivered"]);
const quiet = new Set(["declined", "not selected"]);
const bad = new Set(["dead letter", "when failed", "given up"]);

// fate says in a few words what has become of an event.
export function fate(e) {
  switch (e.fate) {
    case "dropped": return { kind: "soft", text: `dropped by ${e.by}` };
    case "failed": return { kind: "bad", text: `dropped, since ${e.by} has failed` };
    case "dead letter": return { kind: "bad", text: e.by ? `dead letter: ${e.by} has failed` : "dead letter: it cannot be read" };
    case "unwanted": return { kind: "soft", text: "no destination wants it" };
    case "not accepted": return { kind: "bad", text: "not accepted by the outbox" };
  }
  const all = (e.destinations ?? []).filter((d) => !quiet.has(d.state));
  if (all.length === 0) return { kind: "soft", text: "declined by every destination" };
  const text = all.map((d) => `${d.name}: ${d.state}`).join(", ");
  if (all.some((d) => bad.has(d.state))) return { kind: "bad", text };
  return { kind: all.every((d) => good.has(d.state)) ? "good" : "warn", text };
}

// textButton shows what an event says, if it is asked to.
export function textButton(path, allowed) {
  const out = el("div", { "aria-live": "polite" });
  const button = el("button", {
    type: "button", disabled: !allowed,
    onclick: async () => {
      try {
        const t = await get(path);
        const metadata = Object.entries(t.metadata ?? {}).map(([k, v]) => `${k} = ${JSON.stringify(v)}`).join("\n");
        const parts = [["Text", t.body], ["Metadata", metadata], ["Stanza", t.packet]].filter(([, text]) => text);
        out.replaceChildren(...parts.flatMap(([title, text]) => [el("p", {}, `${title}:`), el("pre", {}, text)]));
        if (t.cut) out.replaceChildren(el("p", {}, "It is too large to be remembered."));
        else if (parts.length === 0) out.replaceChildren(el("p", {}, "It says nothing."));
      } catch (err) {
        out.replaceChildren(el("p", { class: "bad" }, err.message));
      }
    },
  }, "Show what it says");
  return el("div", {}, button, allowed ? null : el("span", { class: "soft" }, " needs a token: set token or token_file in [admin]"), out);
}

// facts are the lines about an event.
export function facts(e) {
  return [
    el("p", {}, "Event ", el("code", {}, e.id), ...(e.stanza_id ? [", stanza ", el("code", {}, e.stanza_id)] : [])),
    e.feed ? el("p", {}, `Reported by ${e.feed} for ${e.host}`) : null,
  ];
}

function deliveries() {
  const node = el("ul");
  const create = () => {
    const item = el("li");
    item.render = (d) => {
      const tries = d.tries > 1 ? `, attempt ${d.tries}` : "";
      put(item, `${d.name}: ${d.state}${tries}${d.error ? ` - ${d.error}` : ""}`);
    };
    return item;
  };
  node.render = (e) => sync(node, e.destinations ?? [], (d) => d.name, create);
  return node;
}

function row(e, changes) {
  const became = el("span", { class: "wide" });
  const why = el("p", { class: "bad" });
  const places = deliveries();
  const inside = el("div", { class: "inside" });
  const details = el("details", {
    ontoggle: () => { // most are never opened
      if (!inside.hasChildNodes()) inside.append(...facts(e).filter(Boolean), why, places, textButton(`/api/events/text?number=${e.number}`, changes));
    },
  }, el("summary", {}, when(e.time), el("span", {}, e.sort || "push"), el("span", { class: "wide" }, parties(e)), became), inside);
  const node = el("li", { class: "new" }, details);
  node.render = (now) => {
    const { kind, text } = fate(now);
    became.className = `wide ${kind}`;
    put(became, text);
    put(why, now.error ?? "");
    places.render(now);
  };
  return node;
}

// showTail shows the last events.
export function showTail(list, changes) {
  byID("tail-empty").hidden = list.length > 0;
  sync(byID("tail"), list, (e) => e.number, (e) => row(e, changes));
}
