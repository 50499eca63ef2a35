// What is true about a grid and an order: no drawing, no page.

const NEIGHBOURS = [['left', 0, 0, -1], ['right', 0, 0, 1], ['above', 0, -1, 0], ['below', 0, 1, 0],
                    ['frame before', -1, 0, 0], ['frame after', 1, 0, 0]];

function count(size) { return size.t * size.h * size.w; }

function split(place, size) {
  const inside = size.h * size.w;
  return [Math.floor(place / inside), Math.floor(place % inside / size.w), place % size.w];
}

function join(f, r, c, size) { return (f * size.h + r) * size.w + c; }

function within(f, r, c, size) { return f >= 0 && r >= 0 && c >= 0 && f < size.t && r < size.h && c < size.w; }

// The six places that touch one, null where the clip ends.
function neighbours(place, size) {
  const [f, r, c] = split(place, size);
  return NEIGHBOURS.map(([name, df, dr, dc]) => {
    const at = [f + df, r + dr, c + dc];
    return {name, place: within(...at, size) ? join(...at, size) : null};
  });
}

// Does a token at rank `to` read what the token at rank `from` wrote?
function hears(from, to, direction) {
  return direction === 'both' || (direction === 'forward' ? to >= from : to <= from);
}

function share(steps, delta, a) { return Math.exp(-Math.abs(steps) * delta * a); }

// The share of what `from` wrote that is left at `to`; 0 where it is never read.
function influence(from, to, s) { return hears(from, to, s.direction) ? share(to - from, s.delta, s.a) : 0; }

// The longest way, in steps, from a token to the same place one frame later.
function longestFrameHop(rank, size) {
  const frame = size.h * size.w;
  let longest = 0;
  for (let p = 0; p + frame < rank.length; p++) longest = Math.max(longest, Math.abs(rank[p + frame] - rank[p]));
  return longest;
}

// ---- challenges: each answers {ok, text} for what is on the page now

function onScreen(size, t, h, w) {
  return size.t >= t && size.h >= h && size.w >= w ? '' : `Make the clip at least ${t} x ${h} x ${w} first.`;
}

function checkNextFrame(s) {
  const small = onScreen(s.size, 4, 7, 7), hop = longestFrameHop(s.rank, s.size);
  if (small) return {ok: false, text: small};
  if (hop > 14) return {ok: false, text: `Not yet: with ${s.name} the next frame is up to ${hop} steps away.`};
  const steps = `${hop} step${hop > 1 ? 's' : ''}`;
  return {ok: true, text: `Yes: with ${s.name} the same place one frame later is at most ${steps} away.`};
}

function checkFrameMemory(s) {
  const small = onScreen(s.size, 2, 7, 7), steps = s.size.h * s.size.w, left = share(steps, s.delta, s.a);
  if (small) return {ok: false, text: small};
  if (s.curve !== 'spatial_first') return {ok: false, text: 'Choose spatial_first as order A first.'};
  const says = `${percent(left)} is left after the ${steps} steps of a frame`;
  return left < .5 ? {ok: false, text: `Not yet: ${says}.`} :
    {ok: true, text: `Yes: ${says}. Any step size up to ${(Math.LN2 / steps / s.a).toPrecision(2)} would do.`};
}

function checkSixEars(s) {
  const around = neighbours(s.token, s.size);
  if (around.some(o => o.place === null))
    return {ok: false, text: 'Choose a token inside the clip: this one lies at its edge.'};
  const left = around.map(o => influence(s.rank[s.token], s.rank[o.place], s));
  const deaf = around.filter((o, i) => left[i] < .01).map(o => o.name);
  if (deaf.length) return {ok: false, text: `Not yet: below 1\u00a0% reaches ${deaf.join(', ')}.`};
  return {ok: true, text: `Yes: all six hear it, the farthest still ${percent(Math.min(...left))}. ` +
    'One direction alone never reaches what was read before.'};
}

const CHALLENGES = [
  {title: 'Near in time', check: checkNextFrame,
   text: 'Find an order in which the token one frame later is at most 14 steps away, for every token.',
   hint: 'What if a place were read through all frames before the next place?'},
  {title: 'Long memory', check: checkFrameMemory,
   text: 'Keep spatial_first. Choose a step size \u0394 that leaves at least half of a token\u2019s influence ' +
     'one frame later.',
   hint: 'A frame later is rows \u00d7 columns steps later. Halving takes 0.69 / (\u0394|A|) steps.'},
  {title: 'Six ears', check: checkSixEars,
   text: 'Choose a token, a direction and \u0394 so that at least 1\u00a0% reaches each of its six neighbours.',
   hint: 'In one direction, some neighbours were read before the token was.'}];

function percent(x) {
  if (x > 0 && x < .0005) return '< 0.1\u00a0%';
  return `${(100 * x).toFixed(x < .1 ? 1 : 0)}\u00a0%`;
}
