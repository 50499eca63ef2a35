// The state of the page, and the one loop that draws it. Nothing is drawn unless something changed.

const MOST_TOKENS = 20000;

class Page {
  constructor(data) {
    this.data = data;
    this.clip = null;
    this.hover = null;
    this.kernel = null;
    this.host = null; // a notebook that computes orders, if there is one
    this.paths = new Map();
    this.stale = new Set(['size']);
    this.times = {gap: [], draw: []};
    this.state = {order: '', other: '', direction: 'forward', layout: 'stack', show: 'progress', k: 0, playing: false,
      speed: 32, token: 0, delta: .01, a: 1, layer: 0, scan: 0, yaw: .85, pitch: .42, ...data.start, size: data.size};
    this.state.order ||= this.options()[0].key;
    this.state.token = middleToken(this.state.size);
    this.ramp = data.viridis.map(o => o + 'b8');
  }

  start() {
    const panel = id => ({box: $(id), view: new View($(id).querySelector('.view'), this)});
    this.panels = [panel('panel-a'), panel('panel-b')];
    for (const o of this.panels) o.ribbon = new Ribbon(o.box.querySelector('.ribbon'), o.view, this);
    this.readTheme();
    new ResizeObserver(() => this.touch('size')).observe($('panels'));
  }

  // ---- orders

  // Every path of every order: {key, name, i, label}.
  options() {
    const source = this.kernel ? this.kernel.paths : this.data.orders;
    return Object.entries(source).flatMap(([name, paths]) => paths.map((_, i) => paths.length > 1 ?
      {key: `${name}#${i}`, name, i, label: `${name}, path ${i + 1} of ${paths.length}`} :
      {key: name, name, i, label: name}));
  }

  names() { return [...new Set(this.options().map(o => o.name))]; }

  option(key) { return this.options().find(o => o.key === key); }

  // The places in reading order; throws where they are not known.
  order(key, size) {
    const o = this.option(key);
    if (!o) throw new Error(`there is no order ${key}`);
    const order = this.host ? this.fromKernel(o, size) : this.fromPage(o, size);
    const fault = orderFault(order, count(size));
    if (fault) throw new Error(`${o.name} is no order of ${says(size)} tokens: ${fault}`);
    return order;
  }

  fromKernel(o, size) {
    if (!same(this.kernel.size, size)) throw new Error(`the notebook has not sent ${says(size)} tokens`);
    return Int32Array.from(this.kernel.paths[o.name][o.i]);
  }

  fromPage(o, size) {
    const found = this.data.orders[o.name][o.i];
    if (typeof found === 'string') return CURVES[found](size.t, size.h, size.w);
    if (same(found.size, size)) return Int32Array.from(found.path);
    throw new Error(`${o.name} was computed in Python for ${says(found.size)} tokens; this page cannot make it for others`);
  }

  path(key, size = this.state.size) {
    const name = `${key} ${says(size)}`;
    if (!this.paths.has(name)) {
      const order = this.order(key, size);
      if (this.paths.size > 60) this.paths.clear();
      this.paths.set(name, {order, rank: inverse(order)});
    }
    return this.paths.get(name);
  }

  // The name of the curve behind an order, if the page knows it.
  curve(key) { const {name, i} = this.option(key); return this.data.orders[name]?.[i]; }

  // ---- changes

  set(changes) {
    const old = {...this.state}, s = Object.assign(this.state, changes);
    const changed = key => JSON.stringify(old[key]) !== JSON.stringify(s[key]);
    if (['size', 'layout', 'other'].some(changed)) this.touch('size');
    if (['order', 'direction', 'show', 'layer', 'scan'].some(changed)) this.touch('planes');
    if (s.show === 'influence' && ['token', 'delta', 'a'].some(changed)) this.touch('planes');
    if (['yaw', 'pitch'].some(changed)) this.touch('place');
    if (['token', 'delta', 'a', 'direction', 'order'].some(changed)) this.touch('facts');
    if (changed('k')) this.moveTo(old.k, s.k);
    this.touch('picture');
    refresh(this, changed);
    this.host?.changed({...s, playing: undefined});
  }

  moveTo(from, to) {
    if (this.state.show === 'progress' && !this.stale.has('planes') && !this.stale.has('size'))
      for (const o of this.shown()) o.view.advance(from, to);
  }

  // Another grid: checked here, and in a notebook computed by Python.
  resize(size) {
    const fault = sizeFault(size);
    if (fault) throw new Error(fault);
    if (this.host && !same(this.kernel.size, size)) return this.host.orders(size);
    for (const key of [this.state.order, this.state.other]) if (key) this.path(key, size);
    this.set({size, k: 0, token: middleToken(size), playing: false});
  }

  // What a notebook sent: orders for a size, or why there are none.
  receive(kernel) {
    if (kernel.error) return complain(kernel.error);
    const first = !this.kernel;
    this.kernel = kernel;
    this.paths.clear();
    fillOrders(this);
    if (first && same(kernel.size, this.state.size)) return this.set({});
    attempt(() => this.resize(kernel.size));
  }

  touch(what) {
    this.stale.add(what);
    if (!this.pending) this.pending = requestAnimationFrame(now => this.frame(now));
  }

  shown() { return this.state.other ? this.panels : this.panels.slice(0, 1); }

  // ---- drawing

  frame(now) {
    this.pending = 0;
    const began = performance.now();
    if (this.state.playing) this.play(now);
    this.draw();
    this.note(now, performance.now() - began);
    if (this.state.playing) this.touch('picture');
  }

  play(now) {
    const last = count(this.state.size) - 1, gone = this.clock ? Math.min(.1, (now - this.clock) / 1000) : 0;
    this.clock = now;
    this.owed = (this.owed || 0) + gone * this.state.speed;
    const steps = Math.floor(this.owed);
    this.owed -= steps;
    const k = Math.min(last, this.state.k + steps);
    if (k !== this.state.k) this.set({k, playing: k < last});
  }

  draw() {
    const {stale} = this;
    for (const {view} of this.shown().filter((_, i) => i === 0 || this.state.other)) this.dress(view);
    for (const {view, ribbon} of this.shown()) {
      if (stale.has('size')) { view.fit(); ribbon.fit(); }
      else if (stale.has('place')) view.place();
      if (stale.has('planes') && !stale.has('size')) view.repaint();
      if (stale.has('facts') || stale.has('planes')) ribbon.ground = null;
      view.compose();
      ribbon.compose();
    }
    stale.clear();
  }

  dress(view) {
    const key = view === this.panels[0].view ? this.state.order : this.state.other;
    view.path = this.path(key);
    view.color = this.data.colors[this.option(key).name] || this.theme.other;
  }

  note(now, ms) {
    if (!this.state.playing) { this.clock = 0; this.last = 0; return; }
    if (this.last) { this.times.gap.push(now - this.last); this.times.draw.push(ms); }
    this.last = now;
  }

  // ---- colours

  readTheme() {
    const style = getComputedStyle(document.documentElement), get = name => style.getPropertyValue(name).trim();
    this.theme = {paper: get('--paper'), ink: get('--ink'), line: get('--line'), cell: get('--cell'), veil: get('--veil'),
      other: get('--soft')};
    this.touch('size');
  }

  setTheme(name) {
    document.documentElement.dataset.theme = name;
    this.readTheme();
  }

  // Light at the first frame, dark at the last.
  time(f, t) {
    const grey = Math.round(225 - 165 * (t > 1 ? f / (t - 1) : 0));
    return `rgb(${grey},${grey},${grey})`;
  }

  amount(x) { return this.ramp[Math.max(0, Math.min(this.ramp.length - 1, Math.round(x * (this.ramp.length - 1))))]; }

  // The colour laid over a token.
  shade(place, view) {
    const {rank} = view.path, s = this.state;
    if (s.show === 'rank') return this.amount(rank[place] / Math.max(1, rank.length - 1));
    if (s.show === 'influence') {
      const left = influence(rank[s.token], rank[place], s);
      return left > .001 ? this.amount(left) : this.theme.veil;
    }
    if (s.show === 'steps' && this.data.steps) return this.amount(this.stepShare(place));
    return this.isRead(rank[place], rank.length - 1) ? view.color + '55' : this.theme.veil;
  }

  isRead(rank, last) {
    const {direction, k} = this.state;
    return direction !== 'backward' && rank <= k || direction !== 'forward' && rank >= last - k;
  }

  // Delta of the trained model at a token, on its own grid.
  step(place) {
    const {grid, values} = this.data.steps, {size, layer, scan} = this.state, at = split(place, size);
    const [f, r, c] = at.map((x, i) => Math.floor(x * grid[i] / [size.t, size.h, size.w][i]));
    return values[layer][scan][(f * grid[1] + r) * grid[2] + c];
  }

  stepRange() {
    const all = this.data.steps.values[this.state.layer][this.state.scan];
    if (this.range?.all !== all) this.range = {all, ends: [Math.min(...all), Math.max(...all)]};
    return this.range.ends;
  }

  stepShare(place) {
    const [lo, hi] = this.stepRange();
    return (this.step(place) - lo) / (hi - lo || 1);
  }
}

function same(a, b) { return a.t === b.t && a.h === b.h && a.w === b.w; }

function says(size) { return `${size.t} \u00d7 ${size.h} \u00d7 ${size.w}`; }

function middleToken({t, h, w}) { return join(Math.floor(t / 2), Math.floor(h / 2), Math.floor(w / 2), {t, h, w}); }

// A reason why a grid cannot be shown, or ''.
function sizeFault(size) {
  for (const [key, name] of [['t', 'Frames'], ['h', 'Rows'], ['w', 'Columns']])
    if (!(Number.isInteger(size[key]) && size[key] > 0)) return `${name} must be a whole number of at least 1.`;
  if (count(size) > MOST_TOKENS) return `${says(size)} are ${count(size)} tokens; this page draws up to ${MOST_TOKENS}.`;
  return '';
}
