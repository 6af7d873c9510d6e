// Numbers as text.

export function shown(value) {
  if (!Number.isFinite(value)) return String(value);
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size < 1e-3 || size >= 1e5) return value.toExponential(1).replaceAll("-", "−");
  return value.toFixed(size < 0.1 ? 4 : size < 10 ? 3 : 1).replaceAll("-", "−");
}

export function duration(seconds) {
  return seconds < 1e-3 ? `${(seconds * 1e6).toFixed(0)} µs` : `${(seconds * 1e3).toPrecision(3)} ms`;
}

export function nameOf(row) {
  return `${row.runtime} ${row.precision}`;
}

export function shapeOf(shape) {
  return shape.join(" × ");
}

// Lowest and highest of what is finite; spread into Math.min, a large code would be too many arguments.
export function extent(values, [low, high] = [Infinity, -Infinity]) {
  for (const value of values) {
    if (!Number.isFinite(value)) continue;
    if (value < low) low = value;
    if (value > high) high = value;
  }
  return [low, high];
}
