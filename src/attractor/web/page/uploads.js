// Images that are added: a few at a time, with one bar for all of them, and what was refused is listed at the end.

import * as api from "./api.js";
import { at } from "./elements.js";

const AT_ONCE = 3;

export class Uploads {
  constructor({ takes, added }) {
    this.takes = takes;  // gives the endings of names that the server takes
    this.added = added;  // is called whenever there are new images
    this.clear();
    at("upload-cancel").onclick = () => this.cancel();
    at("upload-close").onclick = () => { at("uploads").hidden = true; };
  }

  clear() {
    Object.assign(this, { waiting: [], under: new Map(), n: 0, done: 0, bytes: 0, sent: 0, refused: [], abort: new AbortController() });
  }

  add(files) {
    if (!files.length) return;
    if (!this.under.size) this.clear();
    for (const file of files) {
      this.n += 1;
      if (this.takes().some((ending) => file.name.toLowerCase().endsWith(ending))) {
        this.waiting.push(file);
        this.bytes += file.size;
      } else {
        this.refuse(file, "is no image that can be read here.");
      }
    }
    at("uploads").hidden = false;
    while (this.under.size < AT_ONCE && this.waiting.length) this.next();
    this.show();
  }

  async next() {
    const file = this.waiting.shift();
    if (!file) return;
    this.under.set(file, 0);
    try {
      await api.upload(file, (share) => { this.under.set(file, share * file.size); this.show(); }, this.abort.signal);
      this.done += 1;
      this.added();
    } catch (error) {
      if (!this.abort.signal.aborted) this.refuse(file, error.message.replace(`${file.name}: `, ""));
    }
    this.under.delete(file);
    this.sent += file.size;
    this.show();
    await this.next();
  }

  refuse(file, words) {
    this.refused.push([file.webkitRelativePath || file.name, words]);
  }

  cancel() {
    this.waiting = [];
    this.abort.abort();
  }

  show() {
    const isOver = !this.under.size && !this.waiting.length, isCancelled = this.abort.signal.aborted;
    const share = (this.sent + [...this.under.values()].reduce((sum, n) => sum + n, 0)) / Math.max(1, this.bytes);
    const refused = this.refused.length ? `, ${this.refused.length} refused` : "";
    at("upload-words").textContent = `${this.done} of ${this.n} added${refused}${isCancelled ? "; cancelled" : ""}`;
    at("upload-share").value = share;
    at("upload-share").hidden = at("upload-cancel").hidden = isOver;
    at("upload-close").hidden = !isOver;
    if (!isOver) return;
    at("upload-refused").replaceChildren(...this.refused.map(([name, words]) => {
      const line = document.createElement("li"), strong = document.createElement("b");
      strong.textContent = name;
      line.append(strong, ` ${words}`);
      return line;
    }));
    at("upload-refused").hidden = !this.refused.length;
  }
}

// All files of what was dropped, those in folders too. The entries have to be asked for before anything is waited for.
export async function dropped(transfer) {
  const entries = [...transfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
  if (!entries.length) return [...transfer.files];
  const found = [];
  for (const entry of entries) await gather(entry, found);
  return found.filter(isShown);
}

export const isShown = (file) => !file.name.startsWith(".");

async function gather(entry, found) {
  if (entry.isFile) {
    found.push(await new Promise((resolve, reject) => entry.file(resolve, reject)));
    return;
  }
  const reader = entry.createReader();
  for (;;) {  // it gives a hundred at a time
    const some = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
    if (!some.length) return;
    for (const one of some) await gather(one, found);
  }
}
