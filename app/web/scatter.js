// The component: one plot for each place in the page, kept while Streamlit runs the script again.

const MOST = 500;
const CLICK_MS = 230; // a second click within this is a double click, and selects nothing
const FRAME_MS = 12; // of the 16.7 ms that a frame has
const REST_MS = 160;
const plots = new WeakMap(); // shadow root -> plot
const remembered = new Map(); // key -> view, hidden groups and selection, for a return to the page

export default function ({ data, parentElement, setStateValue }) {
  let plot = plots.get(parentElement);
  const root = parentElement.querySelector(".scatter");
  if (plot?.root !== root) {
    plot?.destroy();
    plot = create(root);
    plots.set(parentElement, plot);
  }
  plot.report = (value) => setStateValue("selection", value);
  update(plot, data);
  return () => { plot.destroy(); plots.delete(parentElement); };
}

function create(root) {
  const find = (selector) => root.querySelector(selector);
  const plot = {
    root, find, box: find(".plot"), canvas: find(".points"), over: find(".over"), tip: find(".tip"),
    mode: "pan", view: { cx: 0, cy: 0, zoom: 1 }, off: { colour: new Set(), shape: new Set() },
    selection: { mask: new Uint8Array(0), indices: [], count: 0 }, hover: -1, drag: null, frame: null,
  };
  const observer = new ResizeObserver(() => draw(plot));
  observer.observe(plot.box);
  const stop = listen(plot);
  plot.destroy = () => { observer.disconnect(); stop(); clearTimeout(plot.rest); cancelAnimationFrame(plot.due); };
  return plot;
}

function update(plot, bytes) {
  const [header, start] = readHeader(bytes);
  const old = plot.header;
  plot.header = header;
  plot.root.style.height = `${header.height}px`;
  const other = old?.place !== header.place;
  if (other || old.look !== header.look) plot.points = readPoints(bytes, header, start);
  if (other) recall(plot, !old);
  else if (old.turn !== header.turn) select(plot, header.selected);
  if (old && (old.kind !== header.kind || String(old.legend) !== String(header.legend))) {
    plot.off.colour.clear();
  }
  plot.theme = themeOf(plot.root);
  dress(plot);
  show(plot.points, plot.off.colour, plot.off.shape);
  tell(plot);
  draw(plot);
}

/** Colours and legend, where they changed: a new legend would lose the focus of the old. */
function dress(plot) {
  const { header, points, theme, off } = plot;
  const worn = JSON.stringify([header.place, header.look, Boolean(header.star), theme]);
  if (plot.worn === worn) return;
  plot.worn = worn;
  plot.ink = inkOf(points, header, theme);
  const changed = () => { show(points, off.colour, off.shape); later(plot); };
  buildLegend(plot.find(".legend"), header, points, theme, off, changed);
}

/** Other points: begin anew, or as they were left when the page was left. */
function recall(plot, fresh) {
  const { header } = plot;
  const was = fresh ? remembered.get(header.key) : null;
  const same = was?.place === header.place;
  plot.view = same ? was.view : home(plot.points);
  plot.off = same && was.look === header.look ? was.off : { colour: new Set(), shape: new Set() };
  const own = same && was.turn === header.turn;
  select(plot, own ? was.selection.indices : header.selected);
  // Streamlit forgets a component's state when its page is left: tell it again.
  if (own && String(was.selection.indices) !== String(header.selected)) send(plot);
}

function remember({ header, view, off, selection }) {
  const { key, place, look, turn } = header;
  remembered.set(key, { place, look, turn, view, off, selection });
}

function home({ bounds }) {
  return { cx: (bounds.x0 + bounds.x1) / 2, cy: (bounds.y0 + bounds.y1) / 2, zoom: 1 };
}

/** Pixels a data unit: the whole map with a margin at zoom 1, whatever the size of the box. */
function rescale(plot) {
  const { bounds } = plot.points;
  const [wide, high] = [bounds.x1 - bounds.x0, bounds.y1 - bounds.y0];
  const fit = (pixels, span) => (span ? (pixels - 36) / span : Infinity);
  const room = Math.min(fit(plot.frame.width, wide), fit(plot.frame.height, high));
  plot.view.scale = (wide || high ? Math.max(room, 1e-12) : 1) * plot.view.zoom;
}

const later = (plot) => { plot.due ||= requestAnimationFrame(() => draw(plot)); };

/** Paint now; also after the box was resized, as that leaves the canvas blank. */
function draw(plot) {
  cancelAnimationFrame(plot.due);
  plot.due = 0;
  const { clientWidth: width, clientHeight: height } = plot.box;
  if (!plot.points || !width || !height) return;
  const began = performance.now();
  const dpr = plot.coarse ? 1 : window.devicePixelRatio || 1;
  const { frame } = plot;
  if (frame?.width !== width || frame.height !== height || frame.dpr !== dpr) {
    plot.frame = frameOf(plot.canvas, width, height, dpr);
  }
  rescale(plot);
  paint(plot.frame, plot.points, plot.view, plot.ink, plot.theme, plot.selection);
  if (dpr > 1) plot.slow = performance.now() - began > FRAME_MS;
  drawOver(plot);
  remember(plot);
}

/** Draw soon; where frames take long on a fine screen, in coarse pixels until the map rests. */
function moved(plot) {
  plot.coarse = plot.slow;
  clearTimeout(plot.rest);
  plot.rest = setTimeout(() => {
    if (plot.coarse) { plot.coarse = false; later(plot); }
  }, REST_MS);
  later(plot);
}

function drawOver(plot) {
  const { points, header, hover, drag } = plot;
  const star = header.star ? toScreen(plot, ...header.star) : null;
  const ring = hover >= 0 ? toScreen(plot, points.x[hover], points.y[hover]) : null;
  const shape = drag?.polygon ?? null;
  paintOver(plot.over, plot.frame, plot.theme, { star, hover: ring, drag: shape });
}

const toScreen = ({ view, frame }, x, y) =>
  [(x - view.cx) * view.scale + frame.width / 2, frame.height / 2 - (y - view.cy) * view.scale];
const toData = ({ view, frame }, px, py) =>
  [(px - frame.width / 2) / view.scale + view.cx, (frame.height / 2 - py) / view.scale + view.cy];

/** Zoom by a factor about a place in the box, which stays where it is. */
function zoom(plot, factor, px = plot.frame.width / 2, py = plot.frame.height / 2) {
  const [x, y] = toData(plot, px, py);
  const { view } = plot;
  view.zoom = Math.min(2000, Math.max(0.5, view.zoom * factor));
  rescale(plot);
  view.cx = x - (px - plot.frame.width / 2) / view.scale;
  view.cy = y + (py - plot.frame.height / 2) / view.scale;
  moved(plot);
}

function pan(plot, dx, dy) {
  plot.view.cx -= dx / plot.view.scale;
  plot.view.cy += dy / plot.view.scale;
  moved(plot);
}

function reset(plot) {
  plot.view = home(plot.points);
  moved(plot);
}

/** Mark the points as selected; Python hears of it by `send`. */
function select(plot, indices) {
  const mask = new Uint8Array(plot.points.n);
  for (const i of indices) mask[i] = 1;
  plot.selection = { mask, indices, count: indices.length };
  tell(plot);
  later(plot);
}

function send(plot) {
  const { header: { place, turn }, selection: { indices, count } } = plot;
  plot.report({ place, turn, count, indices: spread(indices, MOST) });
}

function choose(plot, indices) {
  if (!indices.length && !plot.selection.count) return;
  select(plot, indices);
  send(plot);
}

/** The line under the plot, the canvas's name for screen readers, and the empty state. */
function tell(plot) {
  const { points, selection } = plot;
  const drawn = points.order.length;
  const parts = [`${count.format(drawn)} ${drawn === 1 ? "point" : "points"}`];
  if (points.leftOut) parts.push(`${count.format(points.leftOut)} without coordinates left out`);
  if (selection.count) parts.push(`${count.format(selection.count)} selected`);
  const text = parts.join(" · ");
  if (plot.find(".said").textContent !== text) plot.find(".said").textContent = text;
  plot.canvas.setAttribute("aria-label", `Map of ${text}. Arrow keys pan, plus and minus zoom, `
    + "zero shows all, Escape clears the selection.");
  plot.find("[data-do=clear]").disabled = !selection.count;
  plot.find(".empty").hidden = drawn > 0;
  plot.find(".empty").textContent = points.n ? "None of the points has coordinates" : "No points to show";
}
