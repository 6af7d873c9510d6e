// Samples that are no pictures: numbers to type, and lines beside each other.

import { extent, shown } from "./words.js";

const MOST_ROWS = 256;

export function parse(text, count) {
  const words = text.split(/[\s,;]+/).filter(Boolean);
  const values = Float32Array.from(words, Number);
  const wrong = words.find((word, i) => !Number.isFinite(values[i]));
  if (wrong !== undefined) throw new Error(`${wrong} is no finite number`);
  if (values.length !== count) {
    throw new Error(`a sample has ${count} numbers; there are ${values.length}`);
  }
  return values;
}

export function plot(svg, one, other) {
  const [low, high] = extent(other, extent(one));
  const range = high - low || 1;
  const line = (values) =>
    Array.from(values, (value, i) => {
      const x = (100 * i) / Math.max(1, values.length - 1);
      return Number.isFinite(value) ? `${x} ${39 - (38 * (value - low)) / range}` : null;
    }).filter(Boolean);
  const path = (values) => `M${line(values).join("L")}`;
  svg.querySelector(".of-input").setAttribute("d", path(one));
  svg.querySelector(".of-output").setAttribute("d", path(other));
}

export function table(body, sample, found) {
  const lines = Array.from(sample.subarray(0, MOST_ROWS), (value, i) => {
    const line = document.createElement("tr");
    const cells = [i, shown(value), shown(found[i])].map((text, column) => {
      const cell = document.createElement(column ? "td" : "th");
      cell.textContent = text;
      if (column) cell.className = "number";
      else cell.scope = "row";
      return cell;
    });
    line.append(...cells);
    return line;
  });
  body.replaceChildren(...lines);
}
