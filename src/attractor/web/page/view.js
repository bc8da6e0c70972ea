// The image, in tiles, and over it a canvas of label tiles: pixels, not shapes, so that cost depends on what is in view.

import { address, bytes } from "./api.js";

const RIM = 2;  // a tile of labels has one row or column more on each side
const MOST_TILES = 64;
const AT_ONCE = 6;  // requests for tiles of labels under way
const DRAWING = 6;  // milliseconds of a frame in which tiles are made into pictures
const LINES = 4;  // screen pixels a pixel from which outlines are lines between pixels

export function colourOf(label) {  // bright, and far apart for neighbours; the order does not depend on red and green alone
  const hue = (label * 137.508) % 360, light = 55 + 20 * ((label * 7) % 3 - 1);
  return [hue, light];
}

function rgb(label) {
  const [hue, light] = colourOf(label), l = light / 100, a = 0.85 * Math.min(l, 1 - l);
  const f = (n) => { const k = (n + hue / 30) % 12; return Math.round(255 * (l - a * Math.max(-1, Math.min(k - 3, 9 - k, 1)))); };
  return [f(0), f(8), f(4)];
}

export class View {
  constructor(element, moved) {
    this.element = element;
    this.moved = moved;
    this.viewer = OpenSeadragon({
      element, drawer: "canvas", showNavigationControl: false, animationTime: 0.25, maxZoomPixelRatio: 32, zoomPerScroll: 1.2,
      gestureSettingsMouse: { clickToZoom: false, dblClickToZoom: false }, gestureSettingsTouch: { dblClickToZoom: false },
      crossOriginPolicy: false, minZoomImageRatio: 0.5, visibilityRatio: 0.3, imageSmoothingEnabled: true,
    });
    this.viewer.innerTracker.keyHandler = null;  // keys belong to the tools
    this.viewer.innerTracker.keyDownHandler = null;
    this.canvas = document.createElement("canvas");
    this.canvas.className = "labels";
    this.viewer.canvas.appendChild(this.canvas);
    this.context = this.canvas.getContext("2d");
    this.tiles = new Map();
    this.wanted = [];  // keys of tiles in view that are to be fetched, most wanted last
    this.asked = 0;  // requests under way
    this.frame = 0;
    this.mode = "outlines";
    this.opacity = { outlines: 1, filled: 0.45, hidden: 1 };
    this.look = "";  // channels, colours and contrast, as the address of a tile has them
    this.chosen = new Set();
    this.sketch = null;  // { points, radius, closed } of what is being drawn
    this.cursor = null;  // of the keyboard: { row, column }
    for (const name of ["update-viewport", "open", "resize"]) this.viewer.addHandler(name, () => this.draw());
    this.viewer.addHandler("zoom", () => this.sharpen());
  }

  open(info, side) {
    this.info = info;
    this.side = side;
    this.tiles.clear();
    this.chosen.clear();
    this.sketch = this.cursor = null;
    this.viewer.open(this.source());
  }

  source() {
    const { info, side, look } = this, top = info.levels - 1;
    return {
      width: info.width, height: info.height, tileSize: side, minLevel: 0, maxLevel: top,
      getTileUrl: (level, column, row) =>
        address("tile", { name: info.image, level: top - level, row, column, channels: look, mark: info.mark }),
    };
  }

  relook(look) {  // the image with other channels or contrast, over the old one until it is all there
    if (!this.info || look === this.look) return;
    this.look = look;
    const { world } = this.viewer, isNow = (info) => info === this.info && look === this.look;
    const { info } = this;
    this.viewer.addTiledImage({ tileSource: this.source(), success: ({ item }) => item.whenFullyLoaded(() => {
      if (!isNow(info)) return;
      const others = Array.from({ length: world.getItemCount() }, (_, k) => world.getItemAt(k)).filter((one) => one !== item);
      for (const one of others) world.removeItem(one);
    }) });
  }

  close() {
    this.info = null;
    this.viewer.close();
    this.draw();
  }

  sharpen() {  // smoothing far in would show the borders of tiles
    const item = this.viewer.world.getItemAt(0);
    if (item) this.viewer.drawer.setImageSmoothingEnabled(this.scale() < 4);
  }

  // ---- places: image pixels are (row, column), whole numbers being their edges

  bounds() {
    return this.viewer.viewport.getBounds(true);
  }

  scale() {  // screen pixels of a pixel
    return this.canvas.clientWidth / (this.bounds().width * this.info.width);
  }

  place(event) {
    const box = this.canvas.getBoundingClientRect(), b = this.bounds(), s = this.scale();
    return { row: (event.clientY - box.top) / s + b.y * this.info.width, column: (event.clientX - box.left) / s + b.x * this.info.width };
  }

  onScreen({ row, column }) {
    const b = this.bounds(), s = this.scale();
    return [(column - b.x * this.info.width) * s, (row - b.y * this.info.width) * s];
  }

  fly([top, left, bottom, right]) {
    const w = this.info.width, rim = Math.max(40, bottom - top, right - left);
    this.viewer.viewport.fitBounds(
      new OpenSeadragon.Rect((left - rim) / w, (top - rim) / w, (right - left + 2 * rim) / w, (bottom - top + 2 * rim) / w));
  }

  centre() {
    const c = this.viewer.viewport.getCenter(true), w = this.info.width;
    return { row: Math.floor(c.y * w) + 0.5, column: Math.floor(c.x * w) + 0.5 };
  }

  show({ row, column }) {  // bring a place into view, if it is not
    const [x, y] = this.onScreen({ row, column });
    if (x < 20 || y < 20 || x > this.canvas.clientWidth - 20 || y > this.canvas.clientHeight - 20) {
      this.viewer.viewport.panTo(new OpenSeadragon.Point(column / this.info.width, row / this.info.width));
    }
  }

  labelAt({ row, column }) {  // from the finest tile that is up to date, else from the finest
    let fresh = null, old = null;
    for (let level = this.info.levels - 1; level >= 0; level--) {
      const f = 2 ** level, r = Math.floor(row / f), c = Math.floor(column / f);
      const tile = this.tiles.get(this.keyAt({ row, column }, level));
      const label = tile?.labels?.[(r % this.side + 1) * (this.side + RIM) + (c % this.side) + 1];
      if (label === undefined) continue;
      if (tile.stale || tile.asked) old = label;
      else fresh = label;
    }
    return fresh ?? old ?? 0;
  }

  async find(place) {  // as labelAt, but never from a tile that is coarser than the screen: that one is fetched
    const { info } = this, { level } = this.resolution();
    const keys = Array.from({ length: level + 1 }, (_, k) => this.keyAt(place, k));
    const isThere = () => keys.some((key) => { const tile = this.tiles.get(key); return tile?.labels && !tile.stale && !tile.asked; });
    if (!isThere() && place.row >= 0 && place.column >= 0 && place.row < info.height && place.column < info.width) {
      const tile = this.tiles.get(keys[level]);
      await (tile?.asked ? tile.coming : this.load(keys[level]));
    }
    return info === this.info ? this.labelAt(place) : 0;
  }

  resolution() {  // the level whose pixels are about as large as the screen's, and how many of the image's they are
    const level = Math.max(0, Math.min(this.info.levels - 1, Math.floor(-Math.log2(this.scale()) + 0.5)));
    return { level, f: 2 ** level };
  }

  keyAt({ row, column }, level) {
    const size = this.side * 2 ** level;
    return `${level}/${Math.floor(row / size)}/${Math.floor(column / size)}`;
  }

  // ---- tiles of labels

  fetchWanted() {
    while (this.asked < AT_ONCE && this.wanted.length) this.load(this.wanted.pop());
  }

  load(key) {
    const tile = this.tiles.get(key) ?? {};
    tile.asked = true;
    tile.stale = false;
    this.tiles.set(key, tile);
    return (tile.coming = this.fill(tile, key));
  }

  async fill(tile, key) {
    const [level, row, column] = key.split("/").map(Number), { info } = this;
    this.asked++;
    try {
      const labels = new Uint32Array(await bytes("labels", { name: info.image, level, row, column }));
      if (info !== this.info) return;
      tile.labels = labels;
      tile.old = tile.drawn ?? tile.old;
      tile.drawn = null;
      tile.asked = false;
    } catch {
      tile.asked = false;
      tile.stale = true;
    } finally {
      this.asked--;
      this.drawSoon();
    }
  }

  changed([top, left, bottom, right]) {  // what lies in a box is fetched anew; the old pixels stay until then
    for (const [key, tile] of this.tiles) {
      const [level, row, column] = key.split("/").map(Number), size = this.side * 2 ** level;
      if (row * size <= bottom && (row + 1) * size >= top && column * size <= right && (column + 1) * size >= left) tile.stale = true;
    }
    this.draw();
  }

  picture(tile) {  // the labels of a tile as pixels
    const { side } = this, wide = side + RIM, { labels } = tile, filled = this.mode === "filled";
    const canvas = new OffscreenCanvas(side, side), context = canvas.getContext("2d");
    const image = context.createImageData(side, side), out = new Uint32Array(image.data.buffer);
    const known = new Map(), fill = Math.round(255 * this.opacity.filled), lit = filled ? Math.min(255, fill + 90) : 150;
    let last = 0;
    tile.has = new Set();
    for (let r = 0; r < side; r++) {
      for (let c = 0, k = (r + 1) * wide + 1; c < side; c++, k++) {
        const label = labels[k];
        if (!label) continue;
        if (label !== last) tile.has.add((last = label));
        const isEdge = labels[k - 1] !== label || labels[k + 1] !== label || labels[k - wide] !== label || labels[k + wide] !== label;
        const isChosen = this.chosen.has(label);
        if (!isEdge && !filled && !isChosen) continue;
        let colour = known.get(label);
        if (colour === undefined) {
          const [red, green, blue] = rgb(label);
          known.set(label, (colour = (blue << 16) | (green << 8) | red));
        }
        out[r * side + c] = ((isEdge ? 255 : isChosen ? lit : fill) << 24) | colour;
      }
    }
    context.putImageData(image, 0, 0);
    return canvas;
  }

  repaint() {
    for (const tile of this.tiles.values()) [tile.old, tile.drawn] = [tile.drawn ?? tile.old, null];
    this.draw();
  }

  choose(labels) {  // only tiles with an object that was chosen, or is no more, are painted anew
    const changed = [...this.chosen].filter((label) => !labels.has(label)).concat([...labels].filter((label) => !this.chosen.has(label)));
    this.chosen = labels;
    for (const tile of this.tiles.values()) {
      if (tile.drawn && changed.some((label) => tile.has.has(label))) [tile.old, tile.drawn] = [tile.drawn, null];
    }
    this.draw();
  }

  fade(opacity) {  // of the objects as they are shown now
    this.opacity[this.mode] = opacity;
    if (this.mode === "filled") this.repaint();
    else this.draw();
  }

  drawSoon() {
    this.frame ||= requestAnimationFrame(() => { this.frame = 0; this.draw(); });
  }

  ready(tile, until) {  // the picture of a tile, if there is time to make it; else an older one
    if (!tile?.labels) return null;
    if (!tile.drawn && performance.now() < until) [tile.drawn, tile.old] = [this.picture(tile), null];
    if (!tile.drawn) this.drawSoon();
    return tile.drawn ?? tile.old ?? null;
  }

  standIn(level, row, column) {  // the part of a coarser tile that shows what a tile will
    for (let up = 1; level + up < this.info.levels; up++) {
      const tile = this.tiles.get(`${level + up}/${row >> up}/${column >> up}`), part = this.side >> up;
      if (tile?.drawn) return [tile.drawn, (column % 2 ** up) * part, (row % 2 ** up) * part, part, part];
    }
    return null;
  }

  draw() {
    const { canvas, context, info } = this, ratio = window.devicePixelRatio || 1;
    const width = this.element.clientWidth, height = this.element.clientHeight;
    if (canvas.width !== width * ratio || canvas.height !== height * ratio) [canvas.width, canvas.height] = [width * ratio, height * ratio];
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, width, height);
    if (!info || !this.viewer.world.getItemCount()) return;
    const b = this.bounds(), scale = this.scale();
    const { level, f } = this.resolution(), size = this.side * f;
    const rows = Math.ceil(info.height / size), columns = Math.ceil(info.width / size);
    const first = (x) => Math.max(0, Math.floor((x * info.width) / size));
    const last = (x, n) => Math.min(n - 1, Math.floor((x * info.width) / size));
    context.imageSmoothingEnabled = scale * f < 1;
    const used = [], wanted = [], until = performance.now() + DRAWING;
    context.globalAlpha = this.mode === "outlines" ? this.opacity.outlines : 1;
    for (let row = first(b.y); row <= last(b.y + b.height, rows); row++) {
      for (let column = first(b.x); column <= last(b.x + b.width, columns); column++) {
        const key = `${level}/${row}/${column}`, tile = this.tiles.get(key);
        used.push(key);
        if (!tile || (tile.stale && !tile.asked) || !(tile.labels || tile.asked)) wanted.push(key);
        if (this.mode === "hidden") continue;
        const [x, y] = this.onScreen({ row: row * size, column: column * size });
        if (tile?.labels && scale * f >= LINES && this.mode === "outlines") {
          this.lines(tile, x, y, scale * f, width, height);
          continue;
        }
        const drawn = this.ready(tile, until), other = drawn ? null : this.standIn(level, row, column);
        if (drawn) context.drawImage(drawn, x, y, size * scale, size * scale);
        else if (other) context.drawImage(...other, x, y, size * scale, size * scale);
      }
    }
    context.globalAlpha = 1;
    this.wanted = wanted.reverse();
    this.fetchWanted();
    for (const key of used) {  // those used last are kept longest
      const tile = this.tiles.get(key);
      if (tile) { this.tiles.delete(key); this.tiles.set(key, tile); }
    }
    const most = Math.max(MOST_TILES, used.length);
    for (const key of this.tiles.keys()) { if (this.tiles.size <= most) break; this.tiles.delete(key); }
    this.drawSketch(scale);
    this.moved?.();
  }

  lines(tile, x, y, s, width, height) {  // zoomed in: lines between pixels, as thin as the screen allows
    const { context, side } = this, wide = side + RIM, { labels } = tile;
    const r0 = Math.max(0, Math.floor(-y / s)), r1 = Math.min(side - 1, Math.ceil((height - y) / s));
    const c0 = Math.max(0, Math.floor(-x / s)), c1 = Math.min(side - 1, Math.ceil((width - x) / s));
    const plain = new Path2D(), chosen = new Path2D();
    for (let r = r0; r <= r1; r++) {
      for (let c = c0; c <= c1; c++) {
        const k = (r + 1) * wide + c + 1, label = labels[k];
        const left = labels[k - 1], above = labels[k - wide];
        if (label !== left) {
          const path = this.chosen.has(label) || this.chosen.has(left) ? chosen : plain;
          path.moveTo(x + c * s, y + r * s); path.lineTo(x + c * s, y + (r + 1) * s);
        }
        if (label !== above) {
          const path = this.chosen.has(label) || this.chosen.has(above) ? chosen : plain;
          path.moveTo(x + c * s, y + r * s); path.lineTo(x + (c + 1) * s, y + r * s);
        }
      }
    }
    for (const [path, colour, width] of [[plain, "#000a", 3], [plain, "#ffd84d", 1.5], [chosen, "#000", 4.5], [chosen, "#4dd2ff", 3]]) {
      context.strokeStyle = colour;
      context.lineWidth = width;
      context.stroke(path);
    }
  }

  drawSketch(scale) {
    const { context, sketch, cursor } = this;
    if (sketch?.points.length) {
      const radius = (sketch.radius ?? 0) * scale;
      context.beginPath();
      sketch.points.forEach((point, index) => context[index ? "lineTo" : "moveTo"](...this.onScreen(point)));
      if (sketch.points.length === 1) context.lineTo(...this.onScreen(sketch.points[0]));
      if (sketch.closed) context.closePath();
      context.lineCap = context.lineJoin = "round";
      context.lineWidth = radius ? 2 * radius : 2;
      context.strokeStyle = radius ? "#ffffff66" : "#ffffff";
      context.stroke();
    }
    if (sketch?.hover && sketch.radius) {
      context.beginPath();
      context.arc(...this.onScreen(sketch.hover), Math.max(1, sketch.radius * scale), 0, 7);
      context.lineWidth = 1;
      context.strokeStyle = "#fff";
      context.stroke();
    }
    if (cursor) {
      const [x, y] = this.onScreen(cursor);
      context.beginPath();
      context.moveTo(x - 10, y); context.lineTo(x + 10, y); context.moveTo(x, y - 10); context.lineTo(x, y + 10);
      for (const [colour, width] of [["#000", 3], ["#fff", 1.5]]) {
        context.strokeStyle = colour;
        context.lineWidth = width;
        context.stroke();
      }
    }
  }
}
