// The widget: a box to type in. Python searches, and what it found comes back in `found`.

let count = 0;

function render({model, el}) {
  const id = `vm-search-${Date.now()}-${count++}`;
  const light = document.body.dataset.jpThemeLight;
  const look = light === undefined ? '' : light === 'true' ? ' light' : ' dark';
  const input = element('input', {id, type: 'search', placeholder: 'what to look for', autocomplete: 'off'});
  const form = element('form', {role: 'search'}, element('label', {for: id, text: 'Find clips of'}), input,
    element('button', {type: 'submit', text: 'Search'}));
  const says = element('p', {class: 'says', role: 'status', 'aria-live': 'polite'});
  const place = element('div');
  const box = element('div', {class: `vm-search${look}`}, form, says, place);
  const show = () => {
    const found = model.get('found');
    if (!found.rows) return;
    input.value = found.text;
    says.textContent = summary(found);
    says.classList.toggle('wrong', Boolean(found.error));
    showFound(place, found);
  };
  form.addEventListener('submit', event => {
    event.preventDefault();
    says.classList.remove('wrong');
    says.textContent = 'Searching…';
    model.send({text: input.value});
  });
  box.addEventListener('keydown', event => event.stopPropagation()); // a notebook has keys of its own
  model.on('change:found', show);
  show();
  el.append(box);
  return () => model.off('change:found', show);
}

export default {render};
