// A small chart of the last two minutes.

import { el, put } from "./dom.js";

const svg = "http://www.w3.org/2000/svg";
const points = 120; // one a second
const height = 40;

// chart returns a node and add, which takes one more value. what says what is drawn, write
// how a value is written.
export function chart(what, write) {
  const area = document.createElementNS(svg, "path");
  area.setAttribute("class", "area");
  const line = document.createElementNS(svg, "path");
  const picture = document.createElementNS(svg, "svg");
  picture.setAttribute("class", "chart");
  picture.setAttribute("viewBox", `0 0 ${points - 1} ${height}`);
  picture.setAttribute("preserveAspectRatio", "none");
  picture.setAttribute("role", "img");
  picture.append(area, line);
  const highest = el("span");
  const values = [];
  const add = (value) => {
    values.push(Math.max(0, value));
    if (values.length > points) values.shift();
    const top = Math.max(...values, 1e-9);
    const first = points - values.length;
    const path = values.map((v, i) => `${i ? "L" : "M"}${first + i} ${(height - 2 - (v / top) * (height - 5)).toFixed(1)}`).join("");
    line.setAttribute("d", path);
    area.setAttribute("d", `${path}L${points - 1} ${height}L${first} ${height}Z`);
    put(highest, `highest ${write(Math.max(...values))}`);
    picture.setAttribute("aria-label", `${what}, last two minutes: now ${write(value)}, highest ${write(Math.max(...values))}`);
  };
  return { node: el("div", {}, picture, el("p", { class: "caption" }, el("span", {}, `${what}, last 2 min`), highest)), add };
}
