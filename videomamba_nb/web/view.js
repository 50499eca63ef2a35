// One order on one canvas. Each frame of tokens has a canvas of its own, a plane. A token that changes is painted there,
// and only the box around it is put together again from the planes. Marks and heads come on top.

const TRAIL = 20; // hops to draw behind the head
const PATCHES = 60; // with more changed tokens than this, everything is put together again

class View {
  constructor(canvas, page) {
    this.canvas = canvas;
    this.page = page;
    this.ctx = canvas.getContext('2d');
    this.planes = [];
    this.changed = []; // tokens painted since the last picture
    this.whole = true; // everything is
    this.heads = []; // the places drawn as heads, forward first
  }

  // ---- size

  fit() {
    const scale = Math.min(2, window.devicePixelRatio || 1), box = this.canvas.getBoundingClientRect();
    this.scale = scale;
    this.width = Math.max(80, box.width);
    this.height = Math.max(80, box.height);
    this.canvas.width = Math.round(this.width * scale);
    this.canvas.height = Math.round(this.height * scale);
    this.base = sheet(this.canvas.width, this.canvas.height).getContext('2d');
    this.place();
    const {u} = this.frames[0], side = this.page.state.layout === 'stack' ? this.zoom : Math.hypot(...u);
    this.cell = Math.max(4, Math.min(28, Math.ceil(side * scale))); // pixels of a plane along a token
    this.build();
  }

  // Where the planes lie: an origin and two edges for each, in pixels of the page.
  place() {
    const {size, layout} = this.page.state;
    this.frames = layout === 'stack' ? this.stack(size) : this.strip(size);
    this.whole = true;
  }

  strip({t, h, w}) {
    let best = {cell: 0};
    for (let cols = 1; cols <= t; cols++) {
      const rows = Math.ceil(t / cols);
      const cell = Math.min((this.width - 8 * (cols + 1)) / (cols * w), (this.height - 8 * (rows + 1)) / (rows * h));
      if (cell > best.cell) best = {cell, cols, rows};
    }
    const {cell, cols, rows} = best.cell > 0 ? best : {cell: 1, cols: t, rows: 1};
    const left = (this.width - cols * w * cell - 8 * (cols - 1)) / 2;
    const top = (this.height - rows * h * cell - 8 * (rows - 1)) / 2;
    return Array.from({length: t}, (_, i) => ({
      o: [left + (i % cols) * (w * cell + 8), top + Math.floor(i / cols) * (h * cell + 8)], u: [cell, 0], v: [0, cell]}));
  }

  stack({t, h, w}) {
    const gap = this.gap({t, h, w}), [x0, x1, y0, y1] = this.bounds(gap * (t - 1), h, w);
    const zoom = this.zoom = Math.min((this.width - 24) / (x1 - x0), (this.height - 24) / (y1 - y0));
    const shift = [(this.width - zoom * (x0 + x1)) / 2, (this.height - zoom * (y0 + y1)) / 2];
    const at = (f, r, c) => this.project(f * gap, r, c).map((x, i) => zoom * x + shift[i]);
    return Array.from({length: t}, (_, i) => {
      const o = at(i, 0, 0), across = at(i, 0, 1), down = at(i, 1, 0);
      return {o, u: [across[0] - o[0], across[1] - o[1]], v: [down[0] - o[0], down[1] - o[1]]};
    });
  }

  // Left, right, top and bottom of the block.
  bounds(deep, h, w) {
    const corners = [0, deep].flatMap(z => [0, h].flatMap(y => [0, w].map(x => this.project(z, y, x))));
    const xs = corners.map(p => p[0]), ys = corners.map(p => p[1]);
    return [Math.min(...xs), Math.max(...xs), Math.min(...ys), Math.max(...ys)];
  }

  gap({t, h, w}) { return t > 1 ? Math.max(.9, 2.2 * Math.max(h, w) / (t - 1)) : 1; }

  // Seen from the side and a little from above; no perspective, so that a plane stays a parallelogram.
  project(z, y, x) {
    const {yaw, pitch} = this.page.state, depth = z * Math.cos(yaw) - x * Math.sin(yaw);
    return [x * Math.cos(yaw) + z * Math.sin(yaw), y * Math.cos(pitch) - depth * Math.sin(pitch)];
  }

  // Frames from the farthest to the nearest.
  depths() {
    const t = this.page.state.size.t, far = Array.from({length: t}, (_, i) => i);
    return this.page.state.layout === 'stack' && Math.cos(this.page.state.yaw) > 0 ? far.reverse() : far;
  }

  // ---- planes

  build() {
    const {t, h, w} = this.page.state.size;
    this.planes = Array.from({length: t}, (_, i) => {
      const canvas = sheet(w * this.cell, h * this.cell);
      return {ctx: canvas.getContext('2d'), canvas, picture: this.picture(i, canvas)};
    });
    this.tints = [];
    this.repaint();
  }

  picture(i, plane) {
    const clip = this.page.clip;
    if (!clip) return null;
    const canvas = sheet(plane.width, plane.height), ctx = canvas.getContext('2d');
    const frame = clip.at(i, this.page.state.size.t);
    ctx.imageSmoothingEnabled = frame.width > plane.width / 2;
    ctx.drawImage(frame, 0, 0, plane.width, plane.height);
    return canvas;
  }

  // Paint the tokens whose colour is another now; all of them, plane by plane, if these are many.
  repaint() {
    const old = this.tints, n = count(this.page.state.size);
    this.tints = Array.from({length: n}, (_, p) => this.page.shade(p, this));
    const other = range(n).filter(p => this.tints[p] !== old[p]);
    if (other.length < n / 4) return other.forEach(p => this.paint(p));
    for (const plane of this.planes) this.ground(plane);
    for (let p = 0; p < n; p++) this.paint(p, false);
    this.whole = true;
  }

  ground({ctx, canvas, picture}) {
    ctx.fillStyle = this.page.theme.line;
    ctx.fillRect(0, 0, canvas.width, canvas.height);
    if (!picture) return;
    ctx.drawImage(picture, 0, 0);
    if (this.cell <= 4) return;
    for (let x = this.cell - 1; x < canvas.width; x += this.cell) ctx.fillRect(x, 0, 1, canvas.height);
    for (let y = this.cell - 1; y < canvas.height; y += this.cell) ctx.fillRect(0, y, canvas.width, 1);
  }

  paint(place, afresh = true) {
    const [f, r, c] = split(place, this.page.state.size), plane = this.planes[f], d = this.cell, inner = d > 4 ? d - 1 : d;
    const x = c * d, y = r * d;
    if (afresh && plane.picture) plane.ctx.drawImage(plane.picture, x, y, inner, inner, x, y, inner, inner);
    if (!plane.picture) { plane.ctx.fillStyle = this.page.theme.cell; plane.ctx.fillRect(x, y, inner, inner); }
    plane.ctx.fillStyle = this.tints[place];
    plane.ctx.fillRect(x, y, inner, inner);
    if (afresh) this.changed.push(place);
  }

  // Paint the tokens that were read, or unread again, between two positions.
  advance(from, to) {
    const {order} = this.path, last = order.length - 1, {direction} = this.page.state;
    const [lo, hi] = from < to ? [from, to] : [to, from];
    if (hi - lo > order.length / 3) return this.repaint();
    for (let k = lo; k <= hi; k++) {
      if (direction !== 'backward') this.renew(order[k]);
      if (direction !== 'forward') this.renew(order[last - k]);
    }
  }

  renew(place) {
    this.tints[place] = this.page.shade(place, this);
    this.paint(place);
  }

  // ---- the picture

  compose() {
    const {ctx, scale} = this, {width, height} = this.canvas;
    if (this.whole || this.changed.length > PATCHES) this.assemble(0, 0, width, height);
    else for (const place of this.changed) this.assemble(...this.box(place));
    this.whole = false;
    this.changed = [];
    ctx.setTransform(1, 0, 0, 1, 0, 0);
    ctx.clearRect(0, 0, width, height);
    ctx.drawImage(this.base.canvas, 0, 0);
    ctx.setTransform(scale, 0, 0, scale, 0, 0);
    this.marks();
    this.walkers();
  }

  // Put the planes together inside a box, in pixels of the canvas.
  assemble(x, y, width, height) {
    const {base, scale} = this, k = scale / this.cell;
    base.save();
    base.beginPath();
    base.rect(x, y, width, height);
    base.clip();
    base.clearRect(x, y, width, height);
    for (const i of this.depths()) {
      const {o, u, v} = this.frames[i];
      base.setTransform(u[0] * k, u[1] * k, v[0] * k, v[1] * k, o[0] * scale, o[1] * scale);
      base.drawImage(this.planes[i].canvas, 0, 0);
    }
    base.restore();
  }

  // The box around a token: left, top, width and height.
  box(place) {
    const corners = this.corners(place), [xs, ys] = [0, 1].map(i => corners.map(p => p[i] * this.scale));
    const x = Math.floor(Math.min(...xs)) - 1, y = Math.floor(Math.min(...ys)) - 1;
    return [x, y, Math.ceil(Math.max(...xs)) + 1 - x, Math.ceil(Math.max(...ys)) + 1 - y];
  }

  marks() {
    const {token, size} = this.page.state, {ink, paper} = this.page.theme;
    for (const o of neighbours(token, size)) if (o.place !== null) {
      this.outline(o.place, paper, 3.5);
      this.outline(o.place, ink, 1.2);
    }
    if (this.page.hover !== null) this.outline(this.page.hover, ink, 1.5);
    this.outline(token, paper, 6);
    this.outline(token, ink, 3);
  }

  walkers() {
    const {direction, k} = this.page.state, {order} = this.path, last = order.length - 1;
    this.heads = [];
    if (direction !== 'backward') this.walker(i => order[i], k, false);
    if (direction !== 'forward') this.walker(i => order[last - i], k, true);
  }

  // The last hops, the older the paler, and the head: solid and filled forward, dashed and hollow backward.
  walker(place, k, backward) {
    const {ctx} = this, hops = Math.min(k, TRAIL);
    ctx.lineCap = 'round';
    ctx.setLineDash(backward ? [6, 5] : []);
    for (let i = k - hops; i < k; i++) {
      ctx.globalAlpha = 1 - .85 * (k - i - 1) / TRAIL;
      this.hop(this.middle(place(i)), this.middle(place(i + 1)));
    }
    ctx.globalAlpha = 1;
    ctx.setLineDash([]);
    this.head(place(k), backward);
  }

  hop(from, to) {
    const {ctx} = this;
    ctx.beginPath();
    ctx.moveTo(...from);
    ctx.lineTo(...to);
    for (const [color, width] of [[this.page.theme.paper, 4.5], [this.color, 2.4]]) {
      ctx.strokeStyle = color;
      ctx.lineWidth = width;
      ctx.stroke();
    }
  }

  head(place, backward) {
    const {ctx} = this, {paper} = this.page.theme;
    ctx.beginPath();
    ctx.arc(...this.middle(place), 7, 0, 7);
    ctx.fillStyle = backward ? paper : this.color;
    ctx.strokeStyle = backward ? this.color : paper;
    ctx.lineWidth = 2.5;
    ctx.fill();
    ctx.stroke();
    this.heads.push(place);
  }

  corner(f, r, c) {
    const {o, u, v} = this.frames[f];
    return [o[0] + c * u[0] + r * v[0], o[1] + c * u[1] + r * v[1]];
  }

  corners(place) {
    const [f, r, c] = split(place, this.page.state.size);
    return [[0, 0], [0, 1], [1, 1], [1, 0]].map(([dr, dc]) => this.corner(f, r + dr, c + dc));
  }

  middle(place) {
    const [f, r, c] = split(place, this.page.state.size);
    return this.corner(f, r + .5, c + .5);
  }

  outline(place, color, width) {
    const {ctx} = this;
    ctx.beginPath();
    for (const corner of this.corners(place)) ctx.lineTo(...corner);
    ctx.closePath();
    ctx.strokeStyle = color;
    ctx.lineWidth = width;
    ctx.lineJoin = 'round';
    ctx.stroke();
  }

  // The token under a point of the canvas, or null.
  hit(x, y) {
    const {size} = this.page.state;
    for (const i of this.depths().reverse()) {
      const {o, u, v} = this.frames[i], det = u[0] * v[1] - u[1] * v[0], dx = x - o[0], dy = y - o[1];
      const c = Math.floor((dx * v[1] - dy * v[0]) / det), r = Math.floor((dy * u[0] - dx * u[1]) / det);
      if (within(i, r, c, size)) return join(i, r, c, size);
    }
    return null;
  }
}
