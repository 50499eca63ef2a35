// From the page's state to its controls, texts and tables.

const $ = id => document.getElementById(id);

function element(tag, text = '', attributes = {}) {
  const e = document.createElement(tag);
  e.textContent = text;
  for (const [key, value] of Object.entries(attributes)) e.setAttribute(key, value);
  return e;
}

// ---- messages

function complain(text) {
  $('error').textContent = text;
  $('error').hidden = !text;
}

function attempt(action) {
  try { action(); complain(''); return true; } catch (e) { complain(sentence(e.message)); return false; }
}

function sentence(text) { return text[0].toUpperCase() + text.slice(1) + (/[.!?]$/.test(text) ? '' : '.'); }

function announce(text) { $('live').textContent = text; }

// ---- filling in

function fillSelect(select, options, value) {
  select.replaceChildren(...options.map(([key, text]) => element('option', text, {value: key})));
  select.value = value;
}

function fillOrders(page) {
  const options = page.options().map(o => [o.key, o.label]);
  fillSelect($('order'), options, page.state.order);
  fillSelect($('other'), [['', 'none'], ...options], page.state.other);
}

function fillSteps({steps}, state) {
  if (!steps) return $('show-steps').remove();
  $('show-steps').hidden = false;
  fillSelect($('layer'), steps.values.map((_, i) => [i, i]), state.layer);
  fillSelect($('scan'), steps.values[0].map((_, i) => [i, i ? 'backward' : 'forward']), state.scan);
}

// Whatever a change of the state changes outside the canvases.
function refresh(page, changed) {
  const s = page.state;
  if (changed('k') || changed('size')) refreshPosition(s);
  if (changed('playing')) $('play').textContent = s.playing ? 'Pause' : 'Play';
  if (changed('size')) for (const key of 'thw') { $(key).value = s.size[key]; $(key).removeAttribute('aria-invalid'); }
  const any = names => names.split(' ').some(changed);
  if (any('order other layout show direction layer scan size speed')) refreshChoices(page);
  if (any('delta a')) refreshDelta(s);
  if (any('token order other direction delta a size layer scan')) refreshFacts(page);
}

function refreshPosition({k, size}) {
  $('position').max = count(size) - 1;
  $('position').value = k;
  $('where').textContent = `${k} of ${count(size) - 1}`;
}

function refreshChoices(page) {
  const s = page.state;
  for (const id of ['order', 'other', 'show', 'layer', 'scan']) $(id).value = s[id];
  for (const name of ['direction', 'layout']) document.querySelector(`[name=${name}][value=${s[name]}]`).checked = true;
  $('trained').hidden = s.show !== 'steps';
  $('panel-b').hidden = !s.other;
  $('panels').className = s.other ? 'two' : '';
  $('speed').value = Math.log10(s.speed);
  $('speed-says').textContent = `${Math.round(s.speed)} per s`;
  caption(page, 0, s.order);
  if (s.other) caption(page, 1, s.other);
  refreshLegend(page);
}

function caption(page, i, key) {
  const label = page.option(key).label, figure = page.panels[i].box, name = element('span', label);
  name.style.borderBottom = `3px solid ${page.data.colors[page.option(key).name] || page.theme.other}`;
  const {size, direction} = page.state, way = direction === 'both' ? 'both ways' : direction;
  const facts = element('small', ` ${says(size)} tokens, read ${way} `), pointed = element('small', '', {class: 'pointed'});
  figure.querySelector('figcaption').replaceChildren(name, facts, pointed);
  figure.querySelector('.view').setAttribute('aria-label', `Clip in the order ${label}`);
  figure.querySelector('.ribbon').setAttribute('aria-label', `The sequence of ${label}, from the first token to the last`);
}

const LEGENDS = {
  progress: () => ['Coloured tokens are read, pale ones are not. Filled head: forward, hollow head: backward.'],
  rank: page => ['read first', `read last, ${count(page.state.size) - 1}`],
  influence: () => ['influence left: none', 'all'],
  steps: page => page.stepRange().map(o => `\u0394 = ${o.toPrecision(2)}`)};

function refreshLegend(page) {
  const [low, high] = LEGENDS[page.state.show](page);
  $('legend-text').textContent = low;
  $('legend-end').textContent = high || '';
  $('legend-bar').hidden = !high;
  $('legend-bar').style.background = `linear-gradient(to right, ${page.data.viridis.join()})`;
}

function refreshDelta({delta, a}) {
  $('delta').value = Math.log10(delta);
  $('delta-says').textContent = delta.toPrecision(2);
  $('delta').setAttribute('aria-valuetext', delta.toPrecision(2));
  $('a').value = a;
}

// ---- the token

function where(place, size) {
  const [f, r, c] = split(place, size);
  return `frame ${f}, row ${r}, column ${c}`;
}

function refreshFacts(page) {
  const s = page.state, keys = s.other ? [s.order, s.other] : [s.order];
  const delta = page.data.steps ? ` The model\u2019s mean \u0394 here: ${page.step(s.token).toPrecision(2)}.` : '';
  $('token-says').textContent = sentence(where(s.token, s.size)) + delta;
  head($('around'), ['neighbour', ...keys.flatMap(o => [page.option(o).label, 'left'])]);
  rows($('around'), neighbours(s.token, s.size).map(o => [o.name, ...keys.flatMap(key => aroundCells(page, key, o.place))]));
  head($('places'), ['order', 'place', 'of']);
  rows($('places'), page.names().map(name => [name, ...rankCells(page, name)]));
}

function aroundCells(page, key, place) {
  if (place === null) return ['\u2013', 'outside'];
  const {rank} = page.path(key), {token} = page.state, steps = rank[place] - rank[token];
  const heard = hears(rank[token], rank[place], page.state.direction);
  const left = heard ? percent(influence(rank[token], rank[place], page.state)) : 'read before';
  return [`${steps > 0 ? '+' : '\u2212'}${Math.abs(steps)}`, left];
}

// One order may read along several paths.
function rankCells(page, name) {
  const keys = page.options().filter(o => o.name === name).map(o => o.key);
  try {
    return [keys.map(key => page.path(key).rank[page.state.token]).join(' \u00b7 '), count(page.state.size)];
  } catch (e) { return ['\u2013', 'other size']; }
}

function head(table, texts) {
  const row = element('tr');
  const breaking = text => text.replaceAll('_', '_\u200b'); // long names may break there
  row.append(...texts.map(o => element('th', breaking(o), {scope: 'col'})));
  table.tHead.replaceChildren(row);
}

function rows(table, lines) {
  table.tBodies[0].replaceChildren(...lines.map(([name, ...cells]) => {
    const row = element('tr');
    row.append(element('th', name, {scope: 'row'}), ...cells.map(o => element('td', o)));
    return row;
  }));
}

function tell(page) {
  const s = page.state, {rank} = page.path(s.order), {label} = page.option(s.order);
  announce(`${sentence(where(s.token, s.size))} Read at ${rank[s.token]} of ${rank.length - 1} in ${label}.`);
}

// ---- challenges

function fillTasks(page) {
  $('tasks').replaceChildren(...CHALLENGES.map((o, i) => {
    const li = element('li'), button = element('button', 'Check', {type: 'button', 'aria-label': `Check: ${o.title}`});
    const hint = element('details'), answer = element('p', '', {role: 'status'});
    hint.append(element('summary', 'Hint'), element('span', o.hint));
    button.onclick = () => checkTask(page, i, answer);
    li.append(element('strong', o.title), element('p', o.text), button, hint, answer);
    return li;
  }));
}

function checkTask(page, i, answer = $('tasks').children[i].querySelector('[role=status]')) {
  const s = page.state, found = CHALLENGES[i].check({...s, ...page.path(s.order), name: page.option(s.order).label,
    curve: page.curve(s.order)});
  answer.textContent = found.text;
  answer.dataset.ok = found.ok;
  return found;
}
