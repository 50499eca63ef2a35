// Found clips: draws what Python found. Used by the saved page and by the widget.

function element(name, about = {}, ...inside) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(about)) {
    if (key === 'text') made.textContent = value; else made.setAttribute(key, value);
  }
  made.append(...inside);
  return made;
}

// One clip: a button with a picture that stands still or moves.
function card(row, rank, moving) {
  const img = element('img', {alt: row.alt});
  const state = element('span', {class: 'state', 'aria-hidden': 'true'});
  const head = element('strong', {text: `${rank}. ${row.path}`});
  const under = [row.span, `score ${row.score}`].map(text => element('span', {text}));
  if (!row.moving) under.push(element('span', {text: 'The file is not there: this is what is left of it.'}));
  const caption = element('figcaption', {}, head, ...under);
  if (!row.moving) {
    img.src = row.still;
    return {item: element('li', {}, element('figure', {}, img, caption)), play: () => {}, plays: () => false};
  }
  const button = element('button', {type: 'button'}, img, state);
  let on = false;
  const play = yes => {
    on = yes;
    img.src = yes ? row.moving : row.still;
    state.textContent = yes ? 'Pause' : 'Play';
    button.setAttribute('aria-label', `${yes ? 'Pause' : 'Play'} ${row.alt}`);
  };
  play(moving);
  button.addEventListener('click', () => play(!on));
  return {item: element('li', {}, element('figure', {}, button, caption)), play, plays: () => on};
}

// All clips of one answer, below `root`; people who want no motion start with pictures that stand still.
function showFound(root, found) {
  const calm = matchMedia('(prefers-reduced-motion: reduce)').matches;
  const cards = found.rows.map((row, i) => card(row, i + 1, !calm));
  const playable = found.rows.some(row => row.moving);
  const all = element('button', {type: 'button', class: 'all'});
  const label = () => { all.textContent = cards.some(o => o.plays()) ? 'Pause all' : 'Play all'; };
  all.addEventListener('click', () => {
    const play = !cards.some(o => o.plays());
    cards.forEach(o => o.play(play));
    label();
  });
  label();
  const list = element('ol', {'aria-label': `Clips found for ${found.text}`}, ...cards.map(o => o.item));
  list.addEventListener('click', label);
  root.replaceChildren(...(playable ? [all] : []), list);
}

function summary(found) {
  if (found.error) return found.error;
  const n = found.rows.length;
  return [n === 1 ? '1 clip.' : `${n} clips.`, ...found.notes.map(o => `${o[0].toUpperCase()}${o.slice(1)}.`)].join(' ');
}
