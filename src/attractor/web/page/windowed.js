// A long list of which only the rows in view are in the page, so that thousands cost no more than a screenful.

const FEW = 100;  // that are all laid out
const BEYOND = 10;  // rows above and below the view

export class Windowed {
  constructor(scroller, body, make, pad) {  // make(item, index) gives a row; pad(above, below, rows) leaves room, in pixels
    Object.assign(this, { scroller, body, make, pad, items: [], first: 0, height: 0 });
    scroller.addEventListener("scroll", () => this.lay());
    new ResizeObserver(() => this.lay()).observe(scroller);
  }

  show(items) {
    this.items = items;
    this.lay(true);
  }

  part() {  // first row and the one after the last
    const { items, scroller, height } = this;
    if (items.length <= FEW || !height) return [0, Math.min(items.length, FEW)];
    const first = Math.floor(scroller.scrollTop / height) - BEYOND, n = Math.ceil(scroller.clientHeight / height) + 2 * BEYOND;
    const from = Math.max(0, Math.min(first, items.length - n));
    return [from, Math.min(items.length, from + n)];
  }

  lay(anew = false) {
    const [first, last] = this.part();
    if (!anew && first === this.first && last - first === this.rows().length) return;
    const focus = this.rows().findIndex((row) => row.contains(document.activeElement)), focused = focus < 0 ? -1 : focus + this.first;
    this.first = first;
    const rows = this.items.slice(first, last).map((item, k) => this.make(item, first + k));
    this.pad(first * this.height, (this.items.length - last) * this.height, rows);  // before anything asks how high the list is
    this.body.replaceChildren(...rows);
    if (!this.height && rows.length) {  // the first row of a table shares a border with its head, and is lower than the others
      this.height = rows[rows.length >> 1].getBoundingClientRect().height;
      if (this.height && this.items.length > FEW) return this.lay(true);
    }
    if (focused >= first && focused < last) this.focusable(focused)?.focus({ preventScroll: true });
  }

  rows() {
    return [...this.body.children];
  }

  focusable(index) {
    const row = this.rows()[index - this.first];
    return row?.matches("[tabindex]") ? row : row?.querySelector("button");
  }

  reveal(index) {  // scroll as little as brings a row into view
    if (index < 0 || !this.height) return;
    const { scroller, height } = this, top = index * height;
    const head = this.body === scroller ? 0 : this.body.getBoundingClientRect().top - scroller.getBoundingClientRect().top + scroller.scrollTop - this.first * height;
    const room = scroller.clientHeight - Math.max(0, head);
    if (top < scroller.scrollTop) scroller.scrollTop = top;
    else if (top + height > scroller.scrollTop + room) scroller.scrollTop = top + height - room;
    this.lay();
  }

  focus(index) {
    if (index < 0 || index >= this.items.length) return;
    this.reveal(index);
    this.focusable(index)?.focus({ preventScroll: true });
  }
}
