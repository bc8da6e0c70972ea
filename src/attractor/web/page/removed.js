// The images that were removed, each with a button that brings it back.

import * as api from "./api.js";
import { at } from "./elements.js";

export function showRemoved(names, tried) {
  at("removed").hidden = !names.length;
  at("removed-count").textContent = `${names.length} removed`;
  at("removed-images").replaceChildren(...names.map((name) => {
    const line = document.createElement("li"), words = document.createElement("span"), button = document.createElement("button");
    words.textContent = name;
    button.textContent = "Bring back";
    button.setAttribute("aria-label", `Bring ${name} back`);
    button.onclick = () => tried(() => api.post("images/back", { image: name }));
    line.append(words, button);
    return line;
  }));
  at("removed-empty").onclick = () => {
    const what = names.length === 1 ? "1 image, and its corrections," : `${names.length} images, and their corrections,`;
    if (confirm(`Delete ${what} for good?`)) tried(() => api.remove("trash"));
  };
}
