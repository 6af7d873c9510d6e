// What the server is asked, and its arrays: base64 of little-endian float32.

export function floats(base64) {
  const bytes = Uint8Array.from(atob(base64), (c) => c.charCodeAt(0));
  return new Float32Array(bytes.buffer);
}

function base64(values) {
  const bytes = new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
  let text = "";
  // A call takes so many arguments, and no more.
  for (let i = 0; i < bytes.length; i += 8192) {
    text += String.fromCharCode(...bytes.subarray(i, i + 8192));
  }
  return btoa(text);
}

async function answer(request) {
  let response;
  try {
    response = await request;
  } catch {
    throw new Error("the server does not answer: was it closed?");
  }
  const found = await response.json();
  if (!response.ok) {
    const words = [found.got && `got ${found.got}`, found.expected && `expected ${found.expected}`];
    throw new Error([found.reason, ...words.filter(Boolean)].join("; "));
  }
  return found;
}

export function model() {
  return answer(fetch("api/model"));
}

async function ask(verb, row, values) {
  const body = JSON.stringify({
    runtime: row.runtime, precision: row.precision, values: base64(values),
  });
  const headers = { "Content-Type": "application/json" };
  return answer(fetch(`api/${verb}`, { method: "POST", headers, body }));
}

export async function reconstruct(row, sample) {
  const found = await ask("reconstruct", row, sample);
  return {
    reconstruction: floats(found.reconstruction),
    code: floats(found.code),
    latency: found.latency_s,
  };
}

export async function decode(row, code) {
  const found = await ask("decode", row, code);
  return floats(found.reconstruction);
}

// Of calls that follow each other faster than they are answered, the last one counts: at most one
// is under way, and what came in between is dropped.
export function latest(work) {
  let running = false;
  let waiting = null;
  return async function call(...given) {
    waiting = given;
    if (running) return;
    running = true;
    try {
      while (waiting) {
        const now = waiting;
        waiting = null;
        await work(...now);
      }
    } finally {
      running = false;
    }
  };
}
