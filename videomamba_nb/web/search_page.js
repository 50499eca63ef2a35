// The saved page: its data lie in the page itself.

const found = JSON.parse(document.getElementById('data').textContent);
const main = document.getElementById('found');
const place = element('div');
document.title = `Found: ${found.text}`;
main.append(element('h1', {text: `“${found.text}”`}), element('p', {class: 'says', text: summary(found)}), place);
showFound(place, found);
