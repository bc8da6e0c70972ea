// Which model is used, and what each round of training has changed: its scores, and pictures side by side.

import { address, post } from "./api.js";
import { at, made } from "./elements.js";

const nameOf = (model) => model.replace(/^models\/round-(\d+)\.safetensors$/, "round $1").replace(/^.*[\\/]/, "");
const number = (value) => value.toFixed(3).replace(/^0/, "");
const score = ({ value, low, high }) => `${number(value)} (${number(low)}–${number(high)})`;

export function listModels({ models, in_use }) {
  const known = models.includes(in_use) ? models : [in_use, ...models];  // none, or one that is not offered any more
  at("model").replaceChildren(...known.map((model) => {
    const option = made("option", { value: model, textContent: nameOf(model) || "none", title: model });
    option.selected = model === in_use;
    option.disabled = !models.includes(model);
    return option;
  }));
  at("model").disabled = !models.length;
}

export function whenChosen(tried, done) {
  at("model").onchange = async () => {
    const model = at("model").value;
    if (await tried(() => post("model", { model }))) done(`Segment uses ${nameOf(model)} now.`);
  };
}

export function listRounds({ rounds, in_use }) {
  at("rounds").replaceChildren(...[...rounds].reverse().map((round) => {
    const isUsed = in_use === `models/round-${round.number}.safetensors`;
    const words = round.before ? `${score(round.before)} before, ${score(round.after)} after` : `${score(round.after)}`;
    const line = made("div", { className: "bar" },
      made("b", { textContent: `Round ${round.number}` }),
      made("span", { className: "faint", textContent: isUsed ? "in use" : round.kept ? "was better" : "not better" }),
      made("span", { className: "space" }));
    if (round.shown?.length) line.append(made("button", { textContent: "Compare", title: "Where the old and the new model differ most", onclick: () => show(round) }));
    return made("div", { className: "job" }, line, made("div", { className: "faint", textContent: `AP at IoU .50 on ${round.held_out.length} held out: ${words}` }));
  }));
}

function show(round) {
  const picture = (name, which, words) => made("figure", {},
    made("img", { src: address("difference", { number: round.number, name, which }), alt: `${name}, ${words}`, loading: "lazy" }),
    made("figcaption", { textContent: words }));
  at("differences").replaceChildren(
    made("div", { className: "bar" },
      made("h2", { textContent: `Round ${round.number}: where the models differ most` }),
      made("span", { className: "space" }),
      made("button", { textContent: "Close", autofocus: true, onclick: () => at("differences").close() })),
    ...round.shown.map((name) => made("section", {},
      made("h3", { textContent: name + (round.held_out.includes(name) ? " (held out)" : "") }),
      made("div", { className: "pair" }, picture(name, "before", "before"), picture(name, "after", "after")))));
  at("differences").showModal();
}
