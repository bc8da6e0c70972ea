// Requests to the server. Every error becomes an Error whose message can be shown.

export class Refused extends Error {}

async function answer(response) {
  if (response.ok) return response;
  let words = `The server answered ${response.status}.`;
  try {
    const { detail } = await response.json();
    words = typeof detail === "string" ? detail : detail.map((part) => `${part.loc.at(-1)}: ${part.msg}`).join(" ");
  } catch { /* it was no JSON */ }
  throw Object.assign(response.status === 401 ? new Refused(words) : new Error(words), { status: response.status });
}

async function sent(path, options) {
  let response;
  try {
    response = await fetch(path, options);
  } catch {
    throw new Error("The server does not answer. Is attractor still running?");
  }
  return answer(response);
}

export const address = (path, values = {}) => `/api/${path}?${new URLSearchParams(values)}`;
export const get = async (path, values) => (await sent(address(path, values))).json();
export const bytes = async (path, values) => (await sent(address(path, values))).arrayBuffer();
export async function save(path, values) {  // as a download; a refusal is an error, where a link would leave the page
  const response = await sent(address(path, values)), link = document.createElement("a");
  link.href = URL.createObjectURL(await response.blob());
  link.download = /filename="(.+?)"/.exec(response.headers.get("content-disposition"))?.[1] ?? path;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}
export const post = async (path, content = {}) =>
  (await sent(`/api/${path}`, { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(content) })).json();
export const remove = async (path) => (await sent(`/api/${path}`, { method: "DELETE" })).json();

export function upload(file, progress, signal) {  // fetch cannot tell how far an upload is
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    const form = new FormData();
    form.append("file", file);
    request.open("POST", "/api/images");
    request.upload.onprogress = (event) => progress(event.loaded / event.total);
    request.onload = () => {
      const content = new Response(request.responseText || "{}", { status: request.status });
      answer(content).then((r) => r.json()).then(resolve, reject);
    };
    request.onerror = () => reject(new Error("The server does not answer. Is attractor still running?"));
    request.onabort = () => reject(new Error("It was cancelled."));
    signal.addEventListener("abort", () => request.abort());
    if (signal.aborted) return reject(new Error("It was cancelled."));
    request.send(form);
  });
}

export async function login() {  // the token stands behind # in the address, which is never sent
  const token = new URLSearchParams(location.hash.slice(1)).get("token");
  if (token) {
    await post("login", { token });
    history.replaceState(null, "", location.pathname);
  }
}

export function events(handlers, again) {
  const source = new EventSource("/api/events");
  let wasLost = false;
  source.onopen = () => { if (wasLost) again(); wasLost = false; };
  source.onerror = () => { wasLost = true; };
  for (const [kind, handle] of Object.entries(handlers)) {
    source.addEventListener(kind, (event) => handle(JSON.parse(event.data)));
  }
}
