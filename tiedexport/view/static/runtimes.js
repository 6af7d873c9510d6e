// The table of every runtime on the same input, and those that cannot run here.

import { reconstruct } from "./api.js";
import { largest, paint, rmse } from "./pictures.js";
import { duration, nameOf, shown } from "./words.js";

export class Runtimes {
  constructor(body, absent, { rows, picture }) {
    Object.assign(this, { picture });
    this.ready = rows.filter((row) => !row.reason);
    this.lines = new Map(this.ready.map((row) => [row, this.line(body, row)]));
    this.turn = 0;
    tellAbsent(absent, rows.filter((row) => row.reason));
  }

  line(body, row) {
    const line = document.createElement("tr");
    const name = document.createElement("th");
    name.scope = "row";
    name.textContent = nameOf(row);
    if (row.remark) {
      const remark = document.createElement("small");
      remark.textContent = row.remark;
      name.append(remark);
    }
    const canvas = document.createElement("canvas");
    canvas.className = "picture thumb";
    canvas.setAttribute("role", "img");
    canvas.setAttribute("aria-label", `Reconstruction by ${nameOf(row)}`);
    if (this.picture) Object.assign(canvas, { width: this.picture.width, height: this.picture.height });
    const picture = document.createElement("td");
    picture.append(canvas);
    picture.hidden = !this.picture;
    const figures = ["", "", ""].map(() => document.createElement("td"));
    for (const cell of figures) cell.className = "number";
    line.append(name, picture, ...figures);
    body.append(line);
    return { line, canvas, figures };
  }

  // Ask one after the other, until a newer input comes. `base` is what the chosen one made of it.
  async compare(sample, chosen, base) {
    const turn = ++this.turn;
    for (const row of this.ready) {
      const { line, canvas, figures } = this.lines.get(row);
      line.classList.toggle("base", row === chosen);
      let found;
      try {
        found = await reconstruct(row, sample);
      } catch (error) {
        figures[0].textContent = `not run: ${error.message}`;
        for (const cell of figures.slice(1)) cell.textContent = "";
        continue;
      }
      if (turn !== this.turn) return;
      if (this.picture) paint(canvas, found.reconstruction, this.picture);
      figures[0].textContent = shown(rmse(sample, found.reconstruction));
      figures[1].textContent = row === chosen ? "chosen" : shown(largest(base, found.reconstruction));
      figures[2].textContent = duration(found.latency);
    }
  }

  stop() {
    this.turn++;
  }
}

function tellAbsent(list, rows) {
  for (const row of rows) {
    const item = document.createElement("li");
    const name = document.createElement("strong");
    name.textContent = [row.runtime, row.precision].filter(Boolean).join(" ");
    item.append(name, ` not run: ${row.reason}`);
    list.append(item);
  }
}
