// A picture that one draws, pixel by pixel of the model's, with a pointer or with keys.

import { paint } from "./pictures.js";

const STEPS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

export class Drawing {
  // changed(values) is called after each change, said(words) with what a key did.
  constructor(canvas, pen, picture, { changed, said }) {
    Object.assign(this, { canvas, pen, picture, changed, said });
    this.values = new Float32Array(picture.channels * picture.height * picture.width);
    this.radius = 1.3;
    this.colour = [1, 1, 1];
    this.erasing = false;
    this.at = [Math.floor(picture.width / 2), Math.floor(picture.height / 2)];
    this.down = false;
    this.last = null;
    const name = `Drawing, ${picture.width} by ${picture.height} pixels`;
    canvas.setAttribute("aria-label", name);
    canvas.addEventListener("pointerdown", (event) => this.begin(event));
    canvas.addEventListener("pointermove", (event) => this.follow(event));
    for (const end of ["pointerup", "pointercancel"]) {
      canvas.addEventListener(end, () => (this.last = null));
    }
    canvas.addEventListener("keydown", (event) => this.key(event));
    canvas.addEventListener("blur", () => this.lift());
    this.show();
  }

  take(values) {
    this.values = Float32Array.from(values);
    this.show();
    this.changed(this.values);
  }

  clear() {
    this.take(new Float32Array(this.values.length));
  }

  invert() {
    this.take(this.values.map((value) => 1 - value));
  }

  begin(event) {
    this.canvas.setPointerCapture(event.pointerId);
    this.last = this.place(event);
    this.stroke(this.last, this.last);
  }

  follow(event) {
    if (!this.last) return;
    for (const part of event.getCoalescedEvents?.() ?? [event]) {
      const next = this.place(part);
      this.stroke(this.last, next);
      this.last = next;
    }
  }

  // Where in the picture a pointer is; the middle of the first pixel is (0, 0).
  place(event) {
    const box = this.canvas.getBoundingClientRect();
    return [
      ((event.clientX - box.left) / box.width) * this.picture.width - 0.5,
      ((event.clientY - box.top) / box.height) * this.picture.height - 0.5,
    ];
  }

  stroke([x0, y0], [x1, y1]) {
    const { height, width, channels } = this.picture;
    const [dx, dy] = [x1 - x0, y1 - y0];
    const reach = this.radius + 1;
    const rows = [Math.min(y0, y1) - reach, Math.max(y0, y1) + reach];
    const columns = [Math.min(x0, x1) - reach, Math.max(x0, x1) + reach];
    for (let y = Math.max(0, Math.ceil(rows[0])); y <= Math.min(height - 1, rows[1]); y++) {
      for (let x = Math.max(0, Math.ceil(columns[0])); x <= Math.min(width - 1, columns[1]); x++) {
        const along = ((x - x0) * dx + (y - y0) * dy) / (dx * dx + dy * dy || 1);
        const part = Math.min(1, Math.max(0, along));
        const distance = Math.hypot(x - x0 - part * dx, y - y0 - part * dy);
        const ink = Math.min(1, Math.max(0, this.radius + 0.5 - distance));
        for (let c = 0; c < channels; c++) this.mix(c * height * width + y * width + x, c, ink);
      }
    }
    this.show();
    this.changed(this.values);
  }

  mix(i, channel, ink) {
    if (this.erasing) {
      this.values[i] = Math.min(this.values[i], 1 - ink);
    } else if (this.picture.channels === 1) {
      this.values[i] = Math.max(this.values[i], ink); // a second stroke beside the first adds none
    } else {
      this.values[i] += ink * (this.colour[channel] - this.values[i]);
    }
  }

  key(event) {
    if (event.key in STEPS) {
      this.step(STEPS[event.key], event.shiftKey ? 4 : 1);
    } else if (event.key === " " || event.key === "Enter") {
      this.down = !this.down;
      if (this.down) this.stroke(this.at, this.at);
      this.tell();
    } else if (event.key === "Escape") {
      this.lift();
    } else if (event.key === "Delete" || event.key === "Backspace") {
      this.clear();
      this.said("cleared");
    } else {
      return;
    }
    event.preventDefault();
  }

  step([dx, dy], pixels) {
    const from = this.at;
    const within = (value, size) => Math.min(size - 1, Math.max(0, value));
    this.at = [
      within(from[0] + dx * pixels, this.picture.width),
      within(from[1] + dy * pixels, this.picture.height),
    ];
    if (this.down) this.stroke(from, this.at);
    this.tell();
  }

  lift() {
    this.down = false;
    this.movePen();
  }

  tell() {
    this.movePen();
    const [x, y] = this.at;
    this.said(`pen ${this.down ? "down" : "up"}, column ${x + 1}, row ${y + 1}`);
  }

  movePen() {
    const { width, height } = this.picture;
    this.pen.style.left = `${(100 * this.at[0]) / width}%`;
    this.pen.style.top = `${(100 * this.at[1]) / height}%`;
    this.pen.style.width = `${100 / width}%`;
    this.pen.style.height = `${100 / height}%`;
    this.pen.classList.toggle("down", this.down);
  }

  show() {
    paint(this.canvas, this.values, this.picture);
    this.movePen();
  }
}
