// From mouse, touch, keys and controls to the page's state.

function listen(page) {
  const set = (id, key, read = o => o.value) => $(id).addEventListener('input', e => page.set({[key]: read(e.target)}));
  for (const id of ['order', 'other']) $(id).onchange = e => choose(page, id, e.target.value);
  set('show', 'show');
  set('layer', 'layer', o => Number(o.value));
  set('scan', 'scan', o => Number(o.value));
  set('position', 'k', o => Number(o.value));
  set('speed', 'speed', o => 10 ** o.value);
  set('delta', 'delta', o => 10 ** o.value);
  for (const name of ['direction', 'layout'])
    for (const o of document.getElementsByName(name)) o.onchange = () => page.set({[name]: o.value});
  $('a').onchange = e => readA(page, e.target);
  for (const id of 'thw') $(id).onchange = () => readSize(page);
  $('file').onchange = e => readFile(page, e.target);
  $('play').onclick = () => toggle(page);
  $('back').onclick = () => step(page, -1);
  $('next').onclick = () => step(page, 1);
  for (const o of page.panels) { pointAt(page, o.view); pointInto(page, o); }
  document.addEventListener('keydown', e => keys(page, e));
}

function choose(page, id, key) {
  if (!attempt(() => { if (key) page.path(key); page.set({[id]: key}); })) $(id).value = page.state[id];
}

function readA(page, input) {
  const a = Number(input.value);
  if (attempt(() => { if (!(a > 0)) throw new Error('|A| must be a number above 0'); })) page.set({a});
  input.setAttribute('aria-invalid', !(a > 0));
}

function readSize(page) {
  const size = {t: Number($('t').value), h: Number($('h').value), w: Number($('w').value)};
  for (const key of 'thw') $(key).setAttribute('aria-invalid', !(Number.isInteger(size[key]) && size[key] > 0));
  attempt(() => page.resize(size));
}

async function readFile(page, input) {
  const file = input.files[0];
  if (!file) return;
  try {
    page.clip = await clipFromFile(file);
    complain('');
    page.touch('size');
    announce(`${file.name} lies behind the tokens now.`);
  } catch (e) { complain(`${e.message}.`); }
}

function toggle(page) {
  const s = page.state, end = s.k >= count(s.size) - 1;
  page.set({playing: !s.playing, k: !s.playing && end ? 0 : s.k});
}

function step(page, by) {
  const k = Math.max(0, Math.min(count(page.state.size) - 1, page.state.k + by));
  page.set({k, playing: false});
  const {order} = page.path(page.state.order), at = page.state.direction === 'backward' ? order.length - 1 - k : k;
  announce(`${k}: ${where(order[at], page.state.size)}.`);
}

function select(page, place) {
  page.set({token: place});
  tell(page);
}

function pointAt(page, view) {
  const {canvas} = view;
  let from = null;
  canvas.addEventListener('pointerdown', e => {
    from = {x: e.offsetX, y: e.offsetY, yaw: page.state.yaw, pitch: page.state.pitch};
  });
  canvas.addEventListener('pointermove', e => {
    const dx = from ? e.offsetX - from.x : 0, dy = from ? e.offsetY - from.y : 0;
    if (from && page.state.layout === 'stack' && (from.turned || Math.hypot(dx, dy) > 5)) {
      from.turned = true;
      return turn(page, from.yaw + dx / 150, from.pitch + dy / 150);
    }
    point(page, view.hit(e.offsetX, e.offsetY));
  });
  canvas.addEventListener('pointerup', e => {
    const place = from && !from.turned ? view.hit(e.offsetX, e.offsetY) : null;
    if (place !== null) select(page, place);
    from = null;
  });
  const leave = () => { from = null; point(page, null); };
  for (const name of ['pointerleave', 'pointercancel']) canvas.addEventListener(name, leave);
}

function point(page, place) {
  if (place === page.hover) return;
  page.hover = place;
  for (const {box, view} of page.shown()) box.querySelector('.pointed').textContent = place === null ? '' :
    `${where(place, page.state.size)}: read at ${view.path.rank[place]}`;
  page.touch('picture');
}

function turn(page, yaw, pitch) {
  page.set({yaw: Math.max(-1.4, Math.min(1.4, yaw)), pitch: Math.max(0, Math.min(1.2, pitch))});
}

// On the sequence: above, go there; below, choose the token.
function pointInto(page, {view, ribbon}) {
  ribbon.canvas.addEventListener('pointerdown', e => {
    if (e.offsetY < 48) return page.set({k: ribbon.rankAt(e.offsetX), playing: false});
    const place = ribbon.thumbAt(e.offsetX);
    if (place !== null) select(page, place);
  });
}

const MOVES = {ArrowLeft: [0, 0, -1], ArrowRight: [0, 0, 1], ArrowUp: [0, -1, 0], ArrowDown: [0, 1, 0],
               PageUp: [-1, 0, 0], PageDown: [1, 0, 0]};

function keys(page, e) {
  const onView = e.target.classList?.contains('view');
  if (!onView && e.target !== document.body || e.ctrlKey || e.metaKey || e.altKey) return;
  if (act(page, e)) e.preventDefault();
}

function act(page, e) {
  const s = page.state, last = count(s.size) - 1;
  if (e.key === ' ') toggle(page);
  else if (e.key === ',' || e.key === '.') step(page, e.key === '.' ? 1 : -1);
  else if (e.key === 'Home' || e.key === 'End') page.set({k: e.key === 'Home' ? 0 : last, playing: false});
  else if (MOVES[e.key] && e.shiftKey) turn(page, s.yaw + .1 * MOVES[e.key][2], s.pitch + .1 * MOVES[e.key][1]);
  else if (MOVES[e.key]) go(page, MOVES[e.key]);
  else return false;
  return true;
}

function go(page, move) {
  const at = split(page.state.token, page.state.size).map((x, i) => x + move[i]);
  if (within(...at, page.state.size)) select(page, join(...at, page.state.size));
  else announce('The clip ends here.');
}
