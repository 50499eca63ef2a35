// Curves through a grid of t frames, h rows and w columns: each lists the places in the sequence in which they are read.
// A place is numbered frame by frame, row by row. dev/tests/test_explorer.py compares them with the orders in Python.

function range(n) { return Int32Array.from({length: n}, (_, i) => i); }

function spatialFirst(t, h, w) { return range(t * h * w); }

function temporalFirst(t, h, w) { return range(t * h * w).map(k => (k % t) * h * w + Math.floor(k / t)); }

function columnFirst(t, h, w) {
  return range(t * h * w).map(k => {
    const frame = Math.floor(k / (h * w)), inside = k % (h * w);
    return frame * h * w + (inside % h) * w + Math.floor(inside / h);
  });
}

// Rows turn at their end, and every second frame is read from the bottom: each hop leads to a touching place.
function snake(t, h, w) {
  return range(t * h * w).map(k => {
    const i = Math.floor(k / (h * w)), j = Math.floor(k / w) % h;
    const row = i % 2 ? h - 1 - j : j, turned = (j + i * h) % 2;
    return (i * h + row) * w + (turned ? w - 1 - k % w : k % w);
  });
}

// Bit by bit from several numbers in turn, the first one's bit highest.
function weave(numbers) {
  let code = 0;
  for (let bit = 1, scale = 1; numbers.some(x => x >= bit); bit *= 2)
    for (let i = numbers.length - 1; i >= 0; i--, scale *= 2) if (numbers[i] & bit) code += scale;
  return code;
}

// Skilling (2004): turn and mirror blocks, from the largest to the smallest, so that each ends where the next begins.
function untwist(x, side) {
  for (let q = side / 2; q > 1; q /= 2) for (let i = 0; i < x.length; i++) {
    const swap = x[i] & q ? 0 : (x[0] ^ x[i]) & (q - 1);
    x[0] ^= x[i] & q ? q - 1 : swap;
    x[i] ^= swap;
  }
  for (let i = 1; i < x.length; i++) x[i] ^= x[i - 1];
  let flips = 0;
  for (let q = side / 2; q > 1; q /= 2) if (x[x.length - 1] & q) flips ^= q - 1;
  return x.map(o => o ^ flips);
}

function sortedBy(code, t, h, w) {
  const codes = Float64Array.from(range(t * h * w), p => code([Math.floor(p / (h * w)), Math.floor(p / w) % h, p % w]));
  return range(t * h * w).sort((a, b) => codes[a] - codes[b]);
}

function morton(t, h, w) { return sortedBy(weave, t, h, w); }

// Axes of length 1 do not count, so that a picture gets the plane curve.
function hilbert(t, h, w) {
  const sizes = [t, h, w], side = 2 ** Math.ceil(Math.log2(Math.max(...sizes)));
  if (sizes.filter(n => n > 1).length < 2) return range(t * h * w);
  return sortedBy(x => weave(untwist(x.filter((_, i) => sizes[i] > 1), side)), t, h, w);
}

const CURVES = {spatial_first: spatialFirst, temporal_first: temporalFirst, column_first: columnFirst, snake, morton,
  hilbert};

// When each place is read.
function inverse(order) {
  const rank = new Int32Array(order.length);
  order.forEach((place, k) => { rank[place] = k; });
  return rank;
}

// A reason why a list is no order of n places, or ''.
function orderFault(order, n) {
  if (!order || order.length !== n) return `it lists ${order ? order.length : 'no'} places, not ${n}`;
  const seen = new Uint8Array(n);
  for (const place of order) {
    if (!(Number.isInteger(place) && place >= 0 && place < n)) return `${place} is no place from 0 to ${n - 1}`;
    if (seen[place]++) return `place ${place} comes twice`;
  }
  return '';
}
