// Tools: what a press, a drag or a key does on the image. Each works with the mouse, a pen, a finger, or keys alone.

export const TOOLS = [
  { name: "choose", key: "v", title: "Choose objects; drag to move, Shift to add to the choice" },
  { name: "draw", key: "d", title: "Draw around a new object", closed: true },
  { name: "redraw", key: "w", title: "Draw the right outline of an object that is wrong or in pieces", closed: true },
  { name: "brush", key: "b", title: "Paint: on an object to extend it, beside all to begin a new one", brush: true },
  { name: "erase", key: "e", title: "Take pixels away from the objects under the brush", brush: true },
  { name: "split", key: "s", title: "Draw a line across an object" },
];

export class Tools {
  constructor(view, actions) {
    this.view = view;
    this.actions = actions;  // choose(label, add), edit(operation)
    this.tool = TOOLS[0];
    this.radius = 4;
    this.stroke = null;
    this.picking = Promise.resolve();
    view.viewer.addHandler("canvas-press", (event) => this.press(event));
    view.viewer.addHandler("canvas-drag", (event) => this.drag(event));
    view.viewer.addHandler("canvas-release", (event) => this.release(event));
    view.viewer.addHandler("canvas-click", (event) => this.click(event));
    view.element.addEventListener("pointermove", (event) => this.hover(event));
  }

  use(name) {
    this.tool = TOOLS.find((tool) => tool.name === name);
    this.give_up();
  }

  give_up() {
    this.stroke = null;
    this.view.sketch = null;
    this.view.draw();
  }

  get isDrawing() {
    return this.tool.name !== "choose";
  }

  hover(event) {
    if (!this.tool.brush || !this.view.info) return;
    this.view.sketch = { ...(this.view.sketch ?? { points: [] }), radius: this.radius, hover: this.view.place(event) };
    this.view.draw();
  }

  press(event) {
    if (!this.isDrawing || !this.view.info) return;
    this.begin(this.view.place(event.originalEvent));
  }

  drag(event) {
    if (!this.stroke) return;
    event.preventDefaultAction = true;  // the image stays where it is
    this.add(this.view.place(event.originalEvent));
  }

  release() {
    if (this.stroke) this.finish();
  }

  click(event) {
    event.preventDefaultAction = true;
    if (this.isDrawing || !event.quick || !this.view.info) return;
    this.pick(this.view.place(event.originalEvent), event.shift);
  }

  pick(place, add) {  // one after another, in the order of the clicks
    this.picking = this.picking.then(async () => this.actions.choose(await this.view.find(place), add));
  }

  // ---- strokes, from a pointer or from keys

  begin(point) {
    const target = this.tool.name === "brush" || this.tool.name === "split" ? this.view.labelAt(point) : 0;
    this.stroke = { points: [point], target };
    this.show();
  }

  add(point) {
    const last = this.stroke.points.at(-1);
    if (Math.hypot(point.row - last.row, point.column - last.column) < 0.3) return;
    this.stroke.points.push(point);
    this.show();
  }

  show() {
    const radius = this.tool.brush ? this.radius : 0;
    this.view.sketch = { points: this.stroke.points, radius, closed: this.tool.closed, hover: this.stroke.points.at(-1) };
    this.view.draw();
  }

  finish() {
    const { points, target } = this.stroke, where = points.map(({ row, column }) => [row, column]);
    const image = this.view.info.image;
    this.give_up();
    switch (this.tool.name) {
      case "draw":
      case "redraw":
        if (where.length > 2) this.actions.edit({ kind: this.tool.name, image, outline: where, class_number: this.actions.classNumber() });
        break;
      case "brush":
        this.actions.edit({
          kind: "paint", image, stroke: where, radius: this.radius, label: target || null, class_number: this.actions.classNumber(),
        });
        break;
      case "erase":
        this.actions.edit({ kind: "erase", image, stroke: where, radius: this.radius });
        break;
      case "split":
        if (where.length > 1) this.actions.edit({ kind: "split", image, label: this.lineTarget(points, target), line: where });
    }
  }

  lineTarget(points, first) {  // the object that a line crosses: most of its points lie in it
    const counts = new Map();
    for (let i = 0; i + 1 < points.length; i++) {
      for (let t = 0; t <= 1; t += 0.1) {
        const label = this.view.labelAt({
          row: points[i].row + t * (points[i + 1].row - points[i].row),
          column: points[i].column + t * (points[i + 1].column - points[i].column),
        });
        if (label) counts.set(label, (counts.get(label) ?? 0) + 1);
      }
    }
    return [...counts].sort((a, b) => b[1] - a[1])[0]?.[0] ?? first;
  }

  // ---- keys: arrows move a cursor, Space sets a point, Enter finishes, Escape gives up

  key(event) {
    const { view } = this, step = event.shiftKey ? 10 : 1;
    const way = { ArrowUp: [-step, 0], ArrowDown: [step, 0], ArrowLeft: [0, -step], ArrowRight: [0, step] }[event.key];
    if (!view.info) return false;
    if (way) {
      const from = view.cursor ?? view.centre();
      view.cursor = {
        row: Math.max(0.5, Math.min(view.info.height - 0.5, from.row + way[0])),
        column: Math.max(0.5, Math.min(view.info.width - 0.5, from.column + way[1])),
      };
      if (this.stroke && this.tool.brush) this.add(view.cursor);
      view.show(view.cursor);
      view.draw();
      return true;
    }
    if (event.key === " ") {
      const point = (view.cursor ??= view.centre());
      if (!this.isDrawing) this.pick(point, event.shiftKey);
      else if (this.stroke) this.add(point);
      else this.begin(point);
      view.draw();
      return true;
    }
    if (event.key === "Enter" && this.stroke) {
      if (view.cursor) this.add(view.cursor);
      this.finish();
      return true;
    }
    if (event.key === "Escape") {
      if (this.stroke) this.give_up();
      else this.actions.choose(0, false);
      return true;
    }
    return false;
  }
}
