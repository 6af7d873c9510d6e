// The code as bars, and sliders for some of its latents.

import { extent, shown } from "./words.js";

const FIRST = 8;
const STEPS = 200;

export class Latents {
  // changed(code) is called when a slider moves.
  constructor(group, plot, text, { lowest, highest, byVariance, changed }) {
    Object.assign(this, { group, plot, text, lowest, highest, changed });
    this.code = new Float32Array(lowest.length);
    this.sliders = new Map();
    for (const latent of byVariance.slice(0, FIRST)) this.add(latent);
    plot.addEventListener("click", (event) => {
      const box = plot.getBoundingClientRect();
      const place = Math.floor(((event.clientX - box.left) / box.width) * lowest.length);
      this.add(Math.min(place, lowest.length - 1))?.focus();
    });
  }

  // A slider from the lowest to the highest of the golden codes, and as far again on both sides.
  add(latent) {
    if (this.sliders.has(latent)) return this.sliders.get(latent).input;
    const [low, high] = [this.lowest[latent], this.highest[latent]];
    const margin = (high - low) / 2 || 1;
    const input = document.createElement("input");
    const step = (high - low + 2 * margin) / STEPS;
    Object.assign(input, {
      type: "range", id: `latent-${latent}`, min: low - margin, max: high + margin, step,
    });
    const label = document.createElement("label");
    label.htmlFor = input.id;
    label.textContent = `z[${latent}]`;
    const value = document.createElement("output");
    value.htmlFor = input.id;
    const remove = document.createElement("button");
    remove.type = "button";
    remove.textContent = "×";
    remove.setAttribute("aria-label", `Remove the slider of latent ${latent}`);
    const line = document.createElement("div");
    line.className = "slider";
    line.append(label, input, value, remove);
    this.group.append(line);
    this.sliders.set(latent, { input, value, line });
    input.addEventListener("input", () => this.move(latent, Number(input.value)));
    remove.addEventListener("click", () => this.remove(latent));
    this.showSlider(latent);
    this.draw();
    return input;
  }

  remove(latent) {
    this.sliders.get(latent).line.remove();
    this.sliders.delete(latent);
    this.draw();
  }

  move(latent, value) {
    this.code[latent] = value;
    this.showSlider(latent, value);
    this.draw();
    this.changed(this.code);
  }

  take(code) {
    this.code = Float32Array.from(code);
    for (const latent of this.sliders.keys()) this.showSlider(latent);
    this.draw();
  }

  showSlider(latent) {
    const { input, value } = this.sliders.get(latent);
    const now = this.code[latent];
    // A code beyond the golden ones widens its slider, which would clip it otherwise.
    if (now < Number(input.min)) input.min = now;
    if (now > Number(input.max)) input.max = now;
    input.value = now;
    value.textContent = now.toFixed(2).replaceAll("-", "−");
  }

  draw() {
    const [low, high] = extent(this.code, [0, 0]);
    const range = high - low || 1;
    this.plot.setAttribute("viewBox", `0 0 ${this.code.length} 1`);
    const bars = (latents) =>
      latents
        .filter((i) => Number.isFinite(this.code[i]))
        .map((i) => `M${i + 0.1} ${high / range}H${i + 0.9}V${(high - this.code[i]) / range}H${i + 0.1}z`)
        .join("");
    const all = Array.from(this.code.keys());
    const chosen = [...this.sliders.keys()];
    this.plot.querySelector(".bars").setAttribute("d", bars(all.filter((i) => !this.sliders.has(i))));
    this.plot.querySelector(".chosen").setAttribute("d", bars(chosen));
    this.plot.querySelector(".axis").setAttribute("d", `M0 ${high / range}H${this.code.length}`);
    const zeros = this.code.filter((value) => value === 0).length;
    const [least, most] = extent(this.code).map(shown);
    const words = `${this.code.length} latents from ${least} to ${most}, ${zeros} of them 0`;
    this.plot.setAttribute("aria-label", `Code: ${words}`);
    this.text.textContent = `${words}. Click a bar for its slider; those with one are coloured.`;
  }
}
