// What the parts of the page share: elements, lists and how figures are written. All text
// goes into text nodes, never into markup.

// el makes an element. Properties that begin with "on" are listeners, others attributes.
export function el(name, properties = {}, ...children) {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(properties)) {
    if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else if (value === true) node.setAttribute(key, "");
    else if (value !== false && value != null) node.setAttribute(key, value);
  }
  node.append(...children.filter((c) => c != null && c !== false));
  return node;
}

export const byID = (id) => document.getElementById(id);

// put sets the text of a node if it differs, so that selections and screen readers are left
// alone.
export function put(node, text) {
  if (node.textContent !== String(text)) node.textContent = text;
}

// sync makes the children of parent stand for items, in their order. create returns an element
// with a method render, which writes an item into it. Elements of items that stay are kept.
export function sync(parent, items, key, create) {
  const have = new Map([...parent.children].map((c) => [c.dataset.key, c]));
  let at = parent.firstElementChild;
  for (const item of items) {
    const k = String(key(item));
    let node = have.get(k);
    if (node) have.delete(k);
    else {
      node = create(item);
      node.dataset.key = k;
    }
    if (node === at) at = at.nextElementSibling;
    else parent.insertBefore(node, at);
    node.render(item);
  }
  for (const node of have.values()) node.remove();
}

// figure is a labelled number; set writes it.
export function figure(label) {
  const value = el("dd");
  const node = el("div", {}, el("dt", {}, label), value);
  return { node, set: (text) => put(value, text) };
}

export const number = (n) => n.toLocaleString("en");
export const plural = (n, one, many) => `${number(n)} ${n === 1 ? one : many}`;

export function rate(perSecond) {
  return `${perSecond >= 10 ? number(Math.round(perSecond)) : perSecond.toFixed(1)}/s`;
}

export function seconds(s) {
  if (!s) return "-";
  if (s < 10) return `${s.toFixed(1)} s`;
  if (s < 120) return `${Math.round(s)} s`;
  if (s < 7200) return `${Math.round(s / 60)} min`;
  return s < 172800 ? `${Math.round(s / 3600)} h` : `${Math.round(s / 86400)} days`;
}

export function bytes(n) {
  if (n < 1024) return `${n} B`;
  return n < 1 << 20 ? `${Math.round(n / 1024)} KiB` : `${(n / (1 << 20)).toFixed(1)} MiB`;
}

const pad = (n) => String(n).padStart(2, "0");

// clock is a time of today as a time, and any other with its date.
export function clock(text) {
  const t = new Date(text);
  const time = `${pad(t.getHours())}:${pad(t.getMinutes())}:${pad(t.getSeconds())}`;
  if (t.toDateString() === new Date().toDateString()) return time;
  return `${t.getFullYear()}-${pad(t.getMonth() + 1)}-${pad(t.getDate())} ${time}`;
}

export const when = (text) => el("time", { datetime: text }, clock(text));

// parties says who an event is about.
export const parties = (e) => (e.to ? `${e.from} → ${e.to}` : e.from);
