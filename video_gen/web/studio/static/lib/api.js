// Requests to this server. What it refuses is thrown with the line it said.
export class Refused extends Error {
  constructor(message, status) { super(message); this.status = status; }
}

export const get = (address, signal) => ask("GET", address, undefined, signal);
export const post = (address, body = {}, signal) => ask("POST", address, body, signal);

async function ask(method, address, body, signal) {
  const sent = body === undefined ? {} : { body: JSON.stringify(body), headers: { "Content-Type": "application/json" } };
  let answer;
  try {
    answer = await fetch(address, { method, signal, ...sent });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refused("the studio does not answer; is it still running?", 0);
  }
  return read(answer);
}

export async function read(answer) {
  const text = await answer.text();
  let value;
  try { value = text ? JSON.parse(text) : null; } catch { value = { error: text.slice(0, 300) }; }
  if (!answer.ok) throw new Refused((value && value.error) || `${answer.status} ${answer.statusText}`, answer.status);
  return value;
}

// Send a file; `progress` is told the part that has gone, 0 to 1.
export function upload(file, progress = () => {}, signal) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open("POST", `/api/uploads?name=${encodeURIComponent(file.name || "file")}`);
    request.upload.onprogress = (event) => event.lengthComputable && progress(event.loaded / event.total);
    request.onerror = () => reject(new Refused("the file could not be sent", 0));
    request.onload = () => {
      let value = null;
      try { value = JSON.parse(request.responseText); } catch { /* said below */ }
      if (request.status >= 200 && request.status < 300) resolve(value);
      else reject(new Refused((value && value.error) || `refused with ${request.status}`, request.status));
    };
    if (signal) signal.addEventListener("abort", () => request.abort());
    request.send(file);
  });
}
