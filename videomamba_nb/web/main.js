// Starts the page, and says what programs may ask it.

function boot() {
  const page = new Page(JSON.parse($('data').textContent)), dark = matchMedia('(prefers-color-scheme: dark)');
  document.documentElement.dataset.theme = dark.matches ? 'dark' : 'light';
  page.start();
  dark.addEventListener('change', () => page.setTheme(dark.matches ? 'dark' : 'light'));
  fillOrders(page);
  fillSteps(page.data, page.state);
  fillTasks(page);
  listen(page);
  refresh(page, () => true);
  if (page.data.clip) showSheet(page);
  growFrame();
  return page;
}

function showSheet(page) {
  clipFromSheet(page.data.clip).then(o => { page.clip = o; page.touch('size'); }, e => complain(sentence(e.message)));
}

// In a notebook the page lies in a frame, which grows with it.
function growFrame() {
  let frame = null;
  try { frame = window.frameElement; } catch (e) { return; } // a frame of another site
  const grow = () => { frame.style.height = `${document.body.scrollHeight + 4}px`; };
  if (frame) new ResizeObserver(grow).observe(document.body);
}

// The places at which the heads are drawn, from the first position to the last.
function walk(page) {
  const seen = [];
  for (let k = 0; k < count(page.state.size); k++) {
    page.set({k, playing: false});
    page.draw();
    seen.push([...page.panels[0].view.heads]);
  }
  return seen;
}

async function measure(page, frames) {
  page.times = {gap: [], draw: []};
  page.set({k: 0, playing: true});
  while (page.times.gap.length < frames && page.state.playing) await new Promise(requestAnimationFrame);
  page.set({playing: false});
  return page.times;
}

const page = boot();

window.explorer = {
  state: () => ({...page.state}),
  set: changes => { page.set(changes); page.draw(); },
  resize: (t, h, w) => attempt(() => page.resize({t, h, w})),
  options: () => page.options(),
  order: (key, t, h, w) => Array.from(page.order(key, {t, h, w})),
  walk: () => walk(page),
  // Where a token lies in the window.
  spot: (place, panel = 0) => {
    const {view} = page.panels[panel], box = view.canvas.getBoundingClientRect(), [x, y] = view.middle(place);
    return [box.x + x, box.y + y];
  },
  check: i => checkTask(page, i),
  neighbours: () => neighbours(page.state.token, page.state.size),
  measure: frames => measure(page, frames),
  error: () => $('error').hidden ? '' : $('error').textContent,
  ready: () => !page.stale.size && !page.data.clip === !page.clip,
  setTheme: name => page.setTheme(name),
  // A notebook takes over: host.orders(size) asks it, host.changed(state) tells it, receive() brings its answer.
  connect: (host, kernel) => { page.host = host; page.receive(kernel); },
  receive: kernel => page.receive(kernel),
};
