// Channels of the image: which are shown, in what colour, and which values are black and full colour.

import { made } from "./elements.js";

// Far apart for people who do not tell red from green, too: magenta and green, cyan, yellow and so on differ in blue or in lightness.
const COLOURS = {
  grey: "ffffff", magenta: "ff00ff", green: "00ff00", cyan: "00ffff", yellow: "ffff00", orange: "ff9000", blue: "3070ff", red: "ff3030",
};
const OF_SEVERAL = ["magenta", "green", "cyan", "yellow", "orange", "blue", "red", "grey"];
const OF_RGB = ["ff0000", "00ff00", "0000ff"];
const MOST_SHOWN = 3;  // at first
const WAIT = 120;  // milliseconds between two looks while a slider moves

const named = (element, name) => { element.setAttribute("aria-label", name); return element; };

export class Channels {
  constructor(element, changed) {  // an element of kind details, and what to call when something is to look different
    Object.assign(this, { element, changed, channels: [], info: null, timer: 0 });
  }

  open(info) {
    const before = this.info?.channels === info.channels ? this.channels : [];
    this.info = info;
    this.channels = Array.from({ length: info.channels }, (_, k) => ({
      shown: before[k]?.shown ?? (info.channels === 3 || k < MOST_SHOWN),
      colour: before[k]?.colour ?? this.usual(k),
      low: info.low[k], high: info.high[k],
    }));
    if (!before.length && info.channels !== 1 && info.channels !== 3) this.element.open = true;
    this.element.querySelector(".list").replaceChildren(...this.channels.map((_, k) => this.row(k)));
  }

  get isRgb() {
    return this.info.channels === 3;
  }

  usual(k) {
    return this.isRgb ? OF_RGB[k] : COLOURS[this.info.channels === 1 ? "grey" : OF_SEVERAL[k % OF_SEVERAL.length]];
  }

  name(k) {
    return this.info.channels === 1 ? "grey" : this.isRgb ? ["red", "green", "blue"][k] : `channel ${k + 1}`;
  }

  text() {  // for the address of a tile; nothing if all is as the server would show it
    const { channels, info } = this;
    const isUsual = (info.channels === 1 || this.isRgb) &&
      channels.every((one, k) => one.shown && one.colour === this.usual(k) && one.low === info.low[k] && one.high === info.high[k]);
    const part = (one, k) => `${k}:${one.colour}:${one.low}:${one.high}`;
    const shown = channels.map((one, k) => (one.shown ? part(one, k) : "")).filter(Boolean);
    return isUsual ? "" : shown.join(",") || "0:000000::";
  }

  tell() {
    this.timer ||= setTimeout(() => { this.timer = 0; this.changed(); }, WAIT);
  }

  row(k) {
    const one = this.channels[k], name = this.name(k), { info } = this;
    const box = made("input", { type: "checkbox", checked: one.shown, onchange: () => { one.shown = box.checked; this.tell(); } });
    const top = made("div", { className: "line" }, made("label", {}, box, ` ${name}`), made("span", { className: "space" }));
    if (!this.isRgb) top.append(...this.colour(k));
    const set = (from, to) => { [one.low, one.high] = [from, to]; low.update(); high.update(); this.tell(); };
    const button = (words, title, from, to) =>
      named(made("button", { type: "button", textContent: words, title, onclick: () => set(from, to) }), title);
    const low = this.value(k, "low", "Darkest"), high = this.value(k, "high", "Brightest");
    low.line.append(button("auto", `Contrast of ${name} by the values of this image`, info.auto_low[k], info.auto_high[k]));
    high.line.append(button("reset", `Full range of ${name}`, info.least[k], info.greatest[k]));
    const all = made("div", { className: "channel", role: "group" }, top, low.line, high.line);
    return named(all, name);
  }

  colour(k) {
    const one = this.channels[k], swatch = made("span", { className: "swatch" });
    const options = Object.entries(COLOURS).map(([word, value]) => made("option", { value, textContent: word }));
    const choice = named(made("select", {}, ...options), `Colour of ${this.name(k)}`);
    const update = () => { swatch.style.background = `#${one.colour}`; };
    choice.value = one.colour;
    choice.onchange = () => { one.colour = choice.value; update(); this.tell(); };
    update();
    return [swatch, choice];
  }

  value(k, which, word) {  // a slider and a number for one end of the contrast
    const one = this.channels[k], { least, greatest } = this.info, name = this.name(k);
    const isWhole = Number.isInteger(least[k]) && Number.isInteger(greatest[k]) && greatest[k] - least[k] > 20;
    const step = isWhole ? 1 : (greatest[k] - least[k]) / 500 || 1;
    const slider = named(made("input", { type: "range", min: least[k], max: Math.max(greatest[k], least[k] + step), step }), `${word} value of ${name}`);
    const number = named(made("input", { type: "number", step: "any" }), `${word} value of ${name}, as a number`);
    const update = () => { slider.value = one[which]; number.value = Number(one[which].toPrecision(6)); };
    const take = (value) => {
      if (!Number.isFinite(value)) return;
      one[which] = value;
      update();
      this.tell();
    };
    slider.oninput = () => take(Number(slider.value));
    number.onchange = () => take(number.value === "" ? NaN : Number(number.value));
    update();
    return { update, line: made("div", { className: "line" }, made("span", { className: "faint", textContent: word.toLowerCase() }), slider, number) };
  }
}
