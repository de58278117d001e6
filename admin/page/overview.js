// The way of the events: server and feeds, filters, outbox, destinations.

import { byID, bytes, clock, el, figure, number, put, rate, seconds, sync } from "./dom.js";
import { chart } from "./chart.js";

// figures makes a list of labelled numbers; set writes them in their order.
function figures(...labels) {
  const list = labels.map(figure);
  return { node: el("dl", { class: "figures" }, ...list.map((f) => f.node)), set: (...texts) => texts.forEach((t, i) => list[i].set(t)) };
}

// table makes a table whose rows are set as lists of texts; the columns after text are
// numbers.
function table(caption, columns, text) {
  const kind = (i) => (i >= text ? "n" : null);
  const body = el("tbody");
  const node = el("table", { "aria-label": caption },
    el("thead", {}, el("tr", {}, ...columns.map((c, i) => el("th", { scope: "col", class: kind(i) }, c)))), body);
  const create = (cells) => {
    const row = el("tr", {}, ...cells.map((_, i) => (i ? el("td", { class: kind(i) }) : el("th", { scope: "row" }))));
    row.render = (now) => now.forEach((c, i) => put(row.children[i], c));
    return row;
  };
  return {
    node,
    set: (rows) => {
      node.hidden = rows.length === 0;
      sync(body, rows, (r) => r.slice(0, text - (text > 1 ? 1 : 0)).join("\n"), create);
    },
  };
}

function alerts() {
  const node = el("ul", { class: "alerts" });
  const create = () => {
    const text = el("span");
    const remedy = el("span", { class: "soft" });
    const item = el("li", {}, text, " ", remedy);
    item.render = (a) => {
      item.className = a.bad ? "bad" : "warn";
      put(text, a.text);
      put(remedy, a.remedy ? `To do: ${a.remedy}` : "");
    };
    return item;
  };
  return { node, set: (list) => sync(node, list, (a) => a.text, create) };
}

function server() {
  const state = el("p");
  const feeds = table("Which feed counts", ["host", "class", "feed", "since"], 4);
  const sources = table("Sources of the event-feed", ["source", "state", "lost"], 2);
  const wrong = alerts();
  const events = chart("events", rate);
  byID("server").append(state, wrong.node, feeds.node, sources.node, events.node);
  return (now) => {
    const c = now.status.component;
    put(state, c.state === "connected" ? `Connected to ${c.address} as ${c.name} since ${clock(c.since)}.` : `Not connected to ${c.address} (${c.state}): ${c.last_error ?? "the first attempt is under way"}`);
    state.className = c.state === "connected" ? "" : "bad";
    wrong.set((c.alerts ?? []).map((a) => ({ text: a.text, remedy: a.remedy, bad: !a.partial })));
    feeds.set((c.hosts ?? []).flatMap((h) => {
      const classes = Object.keys(h.authority);
      return classes.length ? classes.map((k) => [h.host, k, h.authority[k], clock(h.since[k])]) : [[h.host, "-", "nothing heard yet", "-"]];
    }));
    sources.set((c.sources ?? []).map((s) => [s.name, s.connected_since ? `there since ${clock(s.connected_since)}` : "not there", number(s.lost_events)]));
    events.add(now.rate("events", now.events));
  };
}

function filters() {
  const none = el("p", {}, "There is none: every event passes.");
  const verdicts = table("Verdicts of the filters", ["filter", "kept", "dropped", "failed"], 1);
  byID("filters").append(none, verdicts.node);
  return (now) => {
    const list = now.status.pusher.filters ?? [];
    none.hidden = list.length > 0;
    verdicts.set(list.map((f) => [f.name, number(f.kept), number(f.dropped), number(f.failed)]));
  };
}

function outbox() {
  const sums = figures("waiting", "oldest", "in calls", "parked", "memory");
  const wrong = alerts();
  const waiting = chart("waiting", number);
  byID("outbox").append(sums.node, wrong.node, waiting.node);
  return (now) => {
    const all = now.status.pusher.backends ?? [];
    const sum = (key) => all.reduce((n, b) => n + b[key], 0);
    sums.set(number(sum("waiting")), seconds(Math.max(0, ...all.map((b) => b.oldest_age_seconds))), number(sum("in_flight")), number(sum("parked")), bytes(sum("bytes")));
    wrong.set([
      ...(now.status.pusher.unconfigured ?? []).map((u) => ({
        text: `${number(u.waiting)} events wait for ${u.name}, which is not configured.`,
        remedy: `configure it again, or use eventpusher outbox move ${u.name} NEW, or outbox forget ${u.name}`,
      })),
      ...all.filter((b) => b.shed + b.lost > 0).map((b) => ({
        text: `${b.name}: ${number(b.shed)} events were given up because the outbox was full, ${number(b.lost)} could not be read.`,
        remedy: "raise [outbox] max_size; if events cannot be read, see the log", bad: true,
      })),
    ]);
    waiting.add(sum("waiting") + sum("in_flight"));
  };
}

const breakers = {
  closed: ["good", "delivers", ""],
  open: ["bad", "down", "The service is down. One event tries it again a second later, or when its Retry-After is over."],
  "half-open": ["warn", "probes", "One event tries whether the service is back."],
  paused: ["bad", "paused", "The service refuses every request. Correct its settings as the error says. One event tries it every 1 to 60 s."],
};

function destination(first) {
  const badge = el("span", { class: "badge" });
  const sums = figures("rate", "waiting", "oldest", "delivered", "failed tries", "dead letters");
  const rates = chart("delivered", rate);
  const remedy = el("p", { class: "error" });
  const error = el("p", { class: "error" });
  const node = el("section", { class: "card", "aria-label": `destination ${first.name}` },
    el("div", { class: "title" }, el("h4", {}, first.name), badge), sums.node, rates.node, remedy, error);
  node.render = (b) => {
    const [kind, state, say] = breakers[b.breaker] ?? ["warn", b.breaker, ""];
    badge.className = `badge ${kind}`;
    put(badge, state);
    sums.set(rate(b.rate), number(b.waiting + b.in_flight), seconds(b.oldest_age_seconds), number(b.delivered), number(b.failed_attempts), number(b.dead_letters));
    rates.add(b.rate);
    put(remedy, say);
    put(error, b.last_error ? `Last error, ${clock(b.last_error_time)}: ${b.last_error}` : "");
    error.hidden = !b.last_error;
    remedy.hidden = !say;
    error.className = kind === "good" ? "error soft" : "error bad";
  };
  return node;
}

const smoothing = 5; // samples, one a second, over which a rate is measured

// rates returns a function that begins a sample; what it returns says how much a counter grows
// a second.
function rates() {
  const counts = new Map(); // lists of [ms, count] by key, the oldest first
  return (time) => (key, count) => {
    const list = counts.get(key) ?? [];
    counts.set(key, list);
    list.push([time, count]);
    if (list.length > smoothing + 1) list.shift();
    const [then, before] = list[0];
    return time > then ? Math.max(0, count - before) / ((time - then) / 1000) : 0;
  };
}

// overview returns a function that shows a sample.
export function overview() {
  const parts = [server(), filters(), outbox()];
  const measure = rates();
  return (sample) => {
    const now = { ...sample, rate: measure(Date.parse(sample.time)) };
    for (const part of parts) part(now);
    const list = (now.status.pusher.backends ?? []).map((b) => ({ ...b, rate: now.rate(`backend ${b.name}`, b.delivered) }));
    sync(byID("destinations"), list, (b) => b.name, destination);
  };
}
