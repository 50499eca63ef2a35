// The sequence itself: above, all of it with what is left of the chosen token's influence; below, the tokens near the head.

const THUMB = 28;

class Ribbon {
  constructor(canvas, view, page) {
    this.canvas = canvas;
    this.ctx = canvas.getContext('2d');
    this.view = view;
    this.page = page;
  }

  fit() {
    const scale = Math.min(2, window.devicePixelRatio || 1);
    this.width = Math.max(80, this.canvas.getBoundingClientRect().width);
    this.height = 84;
    this.canvas.width = Math.round(this.width * scale);
    this.canvas.height = Math.round(this.height * scale);
    this.scale = scale;
    this.pitch = this.width / Math.floor(this.width / THUMB);
    this.ground = null;
  }

  x(rank) { return (rank + .5) * this.width / this.view.path.rank.length; }

  // Light frames first, dark frames last; the curve of influence under them.
  background() {
    const canvas = sheet(this.canvas.width, this.canvas.height), ctx = canvas.getContext('2d');
    const {order} = this.view.path, {t, h, w} = this.page.state.size, columns = Math.ceil(this.width);
    ctx.scale(this.scale, this.scale);
    for (let x = 0; x < columns; x++) {
      const place = order[Math.min(order.length - 1, Math.floor(x * order.length / columns))];
      ctx.fillStyle = this.page.time(Math.floor(place / (h * w)), t);
      ctx.fillRect(x, 8, 1.2, 12);
    }
    this.curve(ctx, columns);
    return canvas;
  }

  curve(ctx, columns) {
    const {state, theme} = this.page, {rank} = this.view.path, from = rank[state.token];
    ctx.fillStyle = theme.line;
    ctx.fillRect(0, 42, columns, 1);
    ctx.fillStyle = this.view.color;
    for (let x = 0; x < columns; x++) {
      const left = influence(from, Math.floor(x * rank.length / columns), state);
      if (left > .01) ctx.fillRect(x, 42 - 20 * left, 1.2, 20 * left);
    }
  }

  compose() {
    const {ctx, page} = this;
    if (!this.ground) this.ground = this.background();
    ctx.setTransform(1, 0, 0, 1, 0, 0);
    ctx.clearRect(0, 0, this.canvas.width, this.canvas.height);
    ctx.drawImage(this.ground, 0, 0);
    ctx.setTransform(this.scale, 0, 0, this.scale, 0, 0);
    const {rank} = this.view.path, {ink} = page.theme;
    for (const o of neighbours(page.state.token, page.state.size))
      if (o.place !== null) this.tick(this.x(rank[o.place]), 3, ink, 1);
    this.tick(this.x(rank[page.state.token]), 5, ink, 3);
    this.view.heads.forEach((place, i) => this.pin(rank[place], i === 1 || page.state.direction === 'backward'));
    this.thumbs();
  }

  tick(x, rise, color, width) {
    this.ctx.fillStyle = color;
    this.ctx.fillRect(x - width / 2, 8 - rise, width, 12 + 2 * rise);
  }

  pin(rank, hollow) {
    const {ctx} = this;
    ctx.beginPath();
    ctx.arc(this.x(rank), 14, 5, 0, 7);
    ctx.fillStyle = hollow ? this.page.theme.paper : this.view.color;
    ctx.strokeStyle = hollow ? this.view.color : this.page.theme.paper;
    ctx.lineWidth = 2;
    ctx.fill();
    ctx.stroke();
  }

  // Which ranks the lower row shows: [first, how many].
  window() {
    const {rank, order} = this.view.path, n = Math.min(Math.round(this.width / this.pitch), order.length);
    const head = rank[this.view.heads[0]];
    return [Math.max(0, Math.min(order.length - n, head - Math.floor(n / 2))), n];
  }

  thumbs() {
    const [first, n] = this.window();
    for (let i = 0; i < n; i++) this.thumb(this.view.path.order[first + i], i * this.pitch);
  }

  thumbAt(x) {
    const [first, n] = this.window(), i = Math.floor(x / this.pitch);
    return i < n ? this.view.path.order[first + i] : null;
  }

  thumb(place, x) {
    const {ctx, page, view} = this, [f, r, c] = split(place, page.state.size), d = view.cell, side = this.pitch - 3, y = 51;
    ctx.fillStyle = page.theme.cell;
    ctx.fillRect(x, y, side, 26);
    const picture = view.planes[f].picture;
    if (picture) ctx.drawImage(picture, c * d, r * d, d, d, x, y, side, 26);
    ctx.fillStyle = page.time(f, page.state.size.t);
    ctx.fillRect(x, 79, side, 4);
    const head = view.heads.indexOf(place), chosen = place === page.state.token;
    if (head < 0 && !chosen) return;
    ctx.strokeStyle = head < 0 ? page.theme.ink : view.color;
    ctx.lineWidth = 3;
    ctx.strokeRect(x + 1.5, y + 1.5, side - 3, 23);
  }

  rankAt(x) {
    const n = this.view.path.rank.length;
    return Math.max(0, Math.min(n - 1, Math.floor(x * n / this.width)));
  }
}
