// Samples as pictures: arrays [channels, height, width] in [0, 1], and the pixels of a canvas.

export function paint(canvas, values, { height, width, channels }) {
  if (canvas.width !== width || canvas.height !== height) {
    canvas.width = width;
    canvas.height = height;
  }
  const image = new ImageData(width, height);
  const plane = width * height;
  for (let i = 0; i < plane; i++) {
    for (let c = 0; c < 3; c++) {
      // Uint8ClampedArray rounds, clips, and makes 0 of what is no number.
      image.data[4 * i + c] = 255 * values[(channels === 3 ? c : 0) * plane + i];
    }
    image.data[4 * i + 3] = 255;
  }
  canvas.getContext("2d").putImageData(image, 0, 0);
}

export function difference(one, other, factor) {
  return one.map((value, i) => factor * Math.abs(value - other[i]));
}

export function rmse(one, other) {
  const sum = one.reduce((total, value, i) => total + (value - other[i]) ** 2, 0);
  return Math.sqrt(sum / one.length);
}

export function largest(one, other) {
  return one.reduce((most, value, i) => {
    const error = Math.abs(value - other[i]);
    return error <= most ? most : error; // also what is no number
  }, 0);
}

// An image file as a sample: whole, centred, on black; grey as Pillow weighs the colours.
export async function read(file, { height, width, channels }) {
  let bitmap;
  try {
    bitmap = await createImageBitmap(file);
  } catch {
    throw new Error(`${file.name} is no image that this browser can read`);
  }
  const scale = Math.min(width / bitmap.width, height / bitmap.height);
  const [w, h] = [bitmap.width * scale, bitmap.height * scale];
  const canvas = new OffscreenCanvas(width, height);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.fillRect(0, 0, width, height);
  context.imageSmoothingQuality = "high";
  context.drawImage(bitmap, (width - w) / 2, (height - h) / 2, w, h);
  bitmap.close();
  return sample(context.getImageData(0, 0, width, height).data, width * height, channels);
}

function sample(pixels, plane, channels) {
  const values = new Float32Array(channels * plane);
  for (let i = 0; i < plane; i++) {
    const [r, g, b] = pixels.subarray(4 * i, 4 * i + 3);
    if (channels === 3) {
      values[i] = r / 255;
      values[plane + i] = g / 255;
      values[2 * plane + i] = b / 255;
    } else {
      values[i] = (0.299 * r + 0.587 * g + 0.114 * b) / 255;
    }
  }
  return values;
}
