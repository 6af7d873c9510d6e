// The page: what is entered goes to the chosen runtime, what comes back is shown.

import { decode, floats, latest, model as askModel, reconstruct } from "./api.js";
import { Drawing } from "./drawing.js";
import { Latents } from "./latents.js";
import { parse, plot, table } from "./numbers.js";
import { difference, largest, paint, read, rmse } from "./pictures.js";
import { Runtimes } from "./runtimes.js";
import { duration, nameOf, shapeOf, shown } from "./words.js";

const FACTOR = 4;
const SETTLED_MS = 250;
const MOST_DECODED = 16;
const $ = (id) => document.getElementById(id);

class Page {
  constructor(model) {
    this.model = model;
    this.picture = model.picture;
    this.samples = model.samples.map(floats);
    this.runtimes = new Runtimes($("rows"), $("absent"), model);
    this.latents = new Latents($("sliders"), $("code"), $("code-text"), {
      lowest: floats(model.lowest),
      highest: floats(model.highest),
      byVariance: model.by_variance,
      changed: (code) => this.decode(code),
    });
    this.run = latest((sample) => this.reconstruct(sample));
    this.decode = latest((code) => this.showDecodedBy(code));
    this.introduce();
    this.connect();
    if (this.picture) this.connectPictures();
    else this.connectNumbers();
    this.offerSamples();
    this.take(this.samples[0]);
  }

  get row() {
    return this.model.rows[Number($("runtime").value)];
  }

  introduce() {
    const { name, sample_shape, code_shape, parameters, ties } = this.model;
    document.title = `${name}: tiedexport view`;
    $("name").textContent = name;
    $("summary").textContent =
      `${shapeOf(sample_shape)} → code of ${shapeOf(code_shape)} → ${shapeOf(sample_shape)}, ` +
      `${parameters.toLocaleString("en")} parameters, ${ties} tied ${ties === 1 ? "weight" : "weights"}`;
    $("report").hidden = !this.model.report;
    this.model.rows.forEach((row, place) => {
      if (!row.reason) $("runtime").add(new Option(nameOf(row), place));
    });
    $("runtime").value = this.model.first;
    for (const part of ["input", "output", "decoded"]) {
      $(`picture-${part}`).hidden = !this.picture;
      $(`numbers-${part}`).hidden = Boolean(this.picture);
    }
    $("picture-column").hidden = !this.picture;
    $("latent").max = floats(this.model.lowest).length - 1;
  }

  connect() {
    $("runtime").addEventListener("change", () => this.enter(this.sample));
    $("compare").addEventListener("change", () => this.compareSoon());
    $("reset").addEventListener("click", () => {
      this.latents.take(this.found.code);
      this.showDecoded(this.found.reconstruction);
    });
    $("choose").addEventListener("submit", (event) => {
      event.preventDefault();
      this.latents.add(Number($("latent").value)).focus();
    });
  }

  connectPictures() {
    this.drawing = new Drawing($("drawing"), $("pen"), this.picture, {
      changed: (values) => this.enter(values),
      said: (words) => ($("status").textContent = words),
    });
    $("colour-label").hidden = this.picture.channels !== 3;
    $("clear").addEventListener("click", () => this.drawing.clear());
    $("invert").addEventListener("click", () => this.drawing.invert());
    $("erase").addEventListener("click", () => {
      this.drawing.erasing = !this.drawing.erasing;
      $("erase").setAttribute("aria-pressed", this.drawing.erasing);
    });
    $("pen-size").addEventListener("input", (event) => {
      this.drawing.radius = Number(event.target.value);
    });
    $("colour").addEventListener("input", (event) => {
      const digits = event.target.value.match(/\w\w/g);
      this.drawing.colour = digits.map((two) => parseInt(two, 16) / 255);
    });
    $("open").addEventListener("click", () => $("file").click());
    $("file").addEventListener("change", () => this.takeFile($("file").files[0]));
    this.takeDropped();
  }

  takeDropped() {
    for (const kind of ["dragover", "drop"]) {
      window.addEventListener(kind, (event) => event.preventDefault());
    }
    window.addEventListener("dragover", () => document.body.classList.add("dropping"));
    for (const kind of ["dragleave", "drop"]) {
      window.addEventListener(kind, () => document.body.classList.remove("dropping"));
    }
    window.addEventListener("drop", (event) => this.takeFile(event.dataTransfer.files[0]));
  }

  async takeFile(file) {
    if (!file) return;
    try {
      this.drawing.take(await read(file, this.picture));
    } catch (error) {
      this.fail(error);
    }
  }

  connectNumbers() {
    const count = this.samples[0].length;
    $("numbers-help").textContent =
      `A sample of this bundle is ${count} numbers, and no picture: type them here, with spaces ` +
      "or commas between, or take a golden input below.";
    $("numbers").addEventListener("input", () => {
      try {
        this.enter(parse($("numbers").value, count));
      } catch (error) {
        this.fail(error);
      }
    });
  }

  offerSamples() {
    const buttons = this.samples.map((sample, i) => {
      const button = document.createElement("button");
      button.type = "button";
      button.className = "sample";
      button.setAttribute("aria-label", `Golden input ${i + 1}`);
      if (this.picture) {
        const canvas = document.createElement("canvas");
        canvas.className = "picture thumb";
        paint(canvas, sample, this.picture);
        button.append(canvas);
      } else {
        button.textContent = i + 1;
      }
      button.addEventListener("click", () => this.take(sample));
      return button;
    });
    $("samples").replaceChildren(...buttons);
  }

  // A sample from elsewhere than the drawing or the text.
  take(sample) {
    if (this.picture) {
      this.drawing.take(sample);
    } else {
      $("numbers").value = Array.from(sample, (value) => +value.toPrecision(6)).join(" ");
      this.enter(sample);
    }
  }

  enter(sample) {
    this.sample = Float32Array.from(sample);
    this.runtimes.stop();
    this.busy(true);
    this.run(this.sample);
  }

  // Whether the table is still about an earlier input.
  busy(state) {
    $("table").setAttribute("aria-busy", state);
  }

  async reconstruct(sample) {
    const row = this.row;
    try {
      this.found = await reconstruct(row, sample);
    } catch (error) {
      this.fail(error);
      return;
    }
    $("error").hidden = true;
    this.showFound(sample, row);
    this.latents.take(this.found.code);
    this.showDecoded(this.found.reconstruction);
    this.compareSoon();
  }

  showFound(sample, row) {
    const { reconstruction, latency } = this.found;
    const error = shown(rmse(sample, reconstruction));
    if (this.picture) {
      paint($("reconstruction"), reconstruction, this.picture);
      paint($("difference"), difference(sample, reconstruction, FACTOR), this.picture);
      $("reconstruction").setAttribute("aria-label", `Reconstruction by ${nameOf(row)}`);
      $("difference").setAttribute("aria-label", `Difference, ${FACTOR} times as large, RMSE ${error}`);
    } else {
      plot($("plot"), sample, reconstruction);
      table($("elements"), sample, reconstruction);
    }
    $("rmse").textContent = error;
    $("largest").textContent = shown(largest(sample, reconstruction));
    $("latency").textContent = duration(latency);
    this.words = `Reconstructed by ${nameOf(row)}, RMSE ${error}.`;
  }

  async showDecodedBy(code) {
    const before = this.found;
    try {
      const values = await decode(this.row, code);
      if (this.found !== before) return; // a newer input has come, and its code
      this.showDecoded(values);
      $("error").hidden = true;
      const change = shown(largest(before.reconstruction, values));
      this.tellSoon(`Decoded from the sliders: at most ${change} from the reconstruction.`);
    } catch (error) {
      this.fail(error);
    }
  }

  showDecoded(values) {
    if (this.picture) {
      paint($("decoded"), values, this.picture);
    } else {
      plot($("decoded-plot"), this.found.reconstruction, values);
      const first = Array.from(values.subarray(0, MOST_DECODED), shown);
      $("decoded-numbers").textContent = first.join("  ") + (first.length < values.length ? " …" : "");
    }
  }

  // Once nothing changes any more: while one draws, only the chosen runtime is asked.
  compareSoon() {
    clearTimeout(this.timer);
    this.timer = setTimeout(async () => {
      $("status").textContent = this.words;
      const { sample, row, found } = this;
      if ($("compare").checked) await this.runtimes.compare(sample, row, found.reconstruction);
      if (found === this.found && sample === this.sample) this.busy(false);
    }, SETTLED_MS);
  }

  // Read aloud, and so once a slider rests.
  tellSoon(words) {
    clearTimeout(this.telling);
    this.telling = setTimeout(() => ($("status").textContent = words), SETTLED_MS);
  }

  fail(error) {
    this.busy(false);
    $("error").textContent = error.message;
    $("error").hidden = false;
  }
}

askModel().then(
  (model) => new Page(model),
  (error) => {
    $("error").textContent = error.message;
    $("error").hidden = false;
  },
);
