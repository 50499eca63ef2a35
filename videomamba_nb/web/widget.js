// The bridge for notebooks: shows the page in a frame, asks Python for orders, and tells Python what is chosen.

function labTheme() {
  const light = document.body.dataset.jpThemeLight;
  return light === undefined ? null : light === 'true' ? 'light' : 'dark';
}

function connect(model, explorer) {
  explorer.connect({
    orders: size => model.send(size),
    changed: state => { model.set('state', JSON.parse(JSON.stringify(state))); later(model); },
  }, model.get('orders'));
  const theme = labTheme();
  if (theme) explorer.setTheme(theme);
}

// While a scan plays, Python need not hear of every step.
const waiting = new WeakMap();

function later(model) {
  if (waiting.has(model)) return;
  waiting.set(model, setTimeout(() => { waiting.delete(model); model.save_changes(); }, 100));
}

function render({model, el}) {
  const frame = document.createElement('iframe');
  frame.title = 'Scan order explorer';
  frame.style.cssText = 'width: 100%; height: 900px; border: 0;';
  frame.srcdoc = model.get('page');
  frame.onload = () => connect(model, frame.contentWindow.explorer);
  const receive = orders => frame.contentWindow?.explorer?.receive(orders);
  model.on('msg:custom', receive);
  el.append(frame);
  return () => model.off('msg:custom', receive);
}

export default {render};
