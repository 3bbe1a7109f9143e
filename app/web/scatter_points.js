// What the bytes say and where the points lie; nothing here draws.
// The files scatter_points.js, scatter_draw.js and scatter.js are joined into one module.

const NO_VALUE = 65535;
const SHAPES = ["pool", "queue", "labeled", "validation", "vault"];
const DRAWN = [0, 4, 3, 1, 2]; // pool first, labeled last

/** The header of `encode` in scatter.py, and where its columns start. */
function readHeader(bytes) {
  const length = new DataView(bytes.buffer, bytes.byteOffset).getUint32(0, true);
  const header = JSON.parse(new TextDecoder().decode(bytes.subarray(4, 4 + length)));
  return [header, 4 + length];
}

/** The columns as typed arrays, in the order in which they are drawn, with a grid to find them. */
function readPoints(bytes, header, start) {
  const n = header.n;
  let at = start;
  const column = (Type) => {
    const size = n * Type.BYTES_PER_ELEMENT;
    const values = new Type(bytes.slice(at, at + size).buffer); // a copy: columns are not aligned
    at += size;
    return values;
  };
  const x = column(Float32Array);
  const y = column(Float32Array);
  const colour = column(header.kind === "ramp" ? Uint16Array : Uint8Array);
  const shape = column(Uint8Array);
  const ids = header.ids ? new TextDecoder().decode(bytes.subarray(at)).split("\n") : null;
  const placed = Int32Array.from({ length: n }, (_, i) => i)
    .filter((i) => Number.isFinite(x[i]) && Number.isFinite(y[i]));
  const bounds = boundsOf(placed, x, y);
  const order = drawingOrder(placed, x, y, shape, bounds);
  const points = { n, x, y, colour, shape, ids, order, bounds, leftOut: n - order.length };
  points.grid = gridOf(points);
  points.shown = new Uint8Array(n).fill(1);
  points.visible = points.order;
  return points;
}

/**
 * The points grouped by shape in the order of `DRAWN`, and within it by tile of the map: stamps that
 * follow one another then fall on near memory (three times faster where points lie evenly).
 */
function drawingOrder(placed, x, y, shape, bounds) {
  const tiles = lattice(bounds, 48);
  const rank = DRAWN.map((_, s) => DRAWN.indexOf(s) * tiles.side * tiles.side);
  const keys = placed.map((i) => rank[shape[i]] + row(tiles, y[i]) * tiles.side + column(tiles, x[i]));
  return bucket(placed, keys, SHAPES.length * tiles.side * tiles.side).items;
}

function boundsOf(placed, x, y) {
  let [x0, x1, y0, y1] = [Infinity, -Infinity, Infinity, -Infinity];
  for (const i of placed) {
    if (x[i] < x0) x0 = x[i];
    if (x[i] > x1) x1 = x[i];
    if (y[i] < y0) y0 = y[i];
    if (y[i] > y1) y1 = y[i];
  }
  return placed.length ? { x0, x1, y0, y1 } : { x0: 0, x1: 1, y0: 0, y1: 1 };
}

/** `values` sorted by `keys`, stably: those of key k are `items[starts[k] .. starts[k + 1]]`. */
function bucket(values, keys, size) {
  const starts = new Int32Array(size + 1);
  for (const k of keys) starts[k + 1]++;
  for (let k = 0; k < size; k++) starts[k + 1] += starts[k];
  const next = starts.slice();
  const items = new Int32Array(values.length);
  values.forEach((value, at) => { items[next[keys[at]]++] = value; });
  return { starts, items };
}

const lattice = ({ x0, x1, y0, y1 }, side) =>
  ({ side, x0, y0, width: (x1 - x0 || 1) / side, height: (y1 - y0 || 1) / side });

/** A uniform grid of about two points a cell; cell c holds `items[starts[c] .. starts[c + 1]]`. */
function gridOf({ order, x, y, bounds }) {
  const grid = lattice(bounds, Math.max(1, Math.floor(Math.sqrt(order.length / 2))));
  const cells = order.map((i) => column(grid, x[i]) + grid.side * row(grid, y[i]));
  return { ...grid, ...bucket(order, cells, grid.side * grid.side) };
}

const within = (value, side) => Math.min(side - 1, Math.max(0, Math.floor(value)));
const column = (grid, x) => within((x - grid.x0) / grid.width, grid.side);
const row = (grid, y) => within((y - grid.y0) / grid.height, grid.side);

/** The shown point nearest to (x, y) within `reach` (all in data units); -1: none. */
function nearest({ grid, shown, x: xs, y: ys }, x, y, reach) {
  let best = -1;
  let closest = reach * reach;
  for (let r = row(grid, y - reach); r <= row(grid, y + reach); r++) {
    const first = grid.starts[column(grid, x - reach) + grid.side * r];
    const last = grid.starts[column(grid, x + reach) + grid.side * r + 1];
    for (let k = first; k < last; k++) {
      const i = grid.items[k];
      const gap = (xs[i] - x) ** 2 + (ys[i] - y) ** 2;
      if (gap <= closest && shown[i]) [best, closest] = [i, gap];
    }
  }
  return best;
}

/** Sorted indices of the shown points inside a polygon [[x, y], …] in data units (even-odd). */
function inside({ visible, x, y }, polygon) {
  const xs = polygon.map((p) => p[0]);
  const ys = polygon.map((p) => p[1]);
  const [x0, x1] = [Math.min(...xs), Math.max(...xs)];
  const [y0, y1] = [Math.min(...ys), Math.max(...ys)];
  const found = visible.filter((i) =>
    x[i] >= x0 && x[i] <= x1 && y[i] >= y0 && y[i] <= y1 && crosses(xs, ys, x[i], y[i]));
  return found.sort();
}

function crosses(xs, ys, x, y) {
  let odd = false;
  for (let a = 0, b = xs.length - 1; a < xs.length; b = a++) {
    if (ys[a] > y !== ys[b] > y && x < ((xs[b] - xs[a]) * (y - ys[a])) / (ys[b] - ys[a]) + xs[a]) {
      odd = !odd;
    }
  }
  return odd;
}

/** Leave out the points whose colour group or shape is switched off. */
function show(points, colourOff, shapeOff) {
  const { n, colour, shape, shown } = points;
  for (let i = 0; i < n; i++) shown[i] = colourOff.has(colour[i]) || shapeOff.has(shape[i]) ? 0 : 1;
  points.visible = points.order.filter((i) => shown[i]);
}

/** At most `most` of the sorted indices, spread evenly. */
function spread(indices, most) {
  if (indices.length <= most) return Array.from(indices);
  return Array.from({ length: most }, (_, k) => indices[Math.floor((k * indices.length) / most)]);
}
