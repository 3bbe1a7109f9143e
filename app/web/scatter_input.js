// Pointer, wheel and keys.

const NEAR = 10; // pixels within which the pointer finds a point
const STEP = 3; // pixels between a lasso's corners

/** Attach all listeners; returns what takes them off. */
function listen(plot) {
  const off = new AbortController();
  const on = (target, kind, act, more) =>
    target.addEventListener(kind, act, { signal: off.signal, ...more });
  const { over, root, canvas } = plot;
  on(over, "pointerdown", (e) => press(plot, e));
  on(over, "mousedown", (e) => e.preventDefault()); // else it takes the focus from the canvas
  on(over, "pointermove", (e) => move(plot, e));
  on(over, "pointerup", (e) => release(plot, e));
  on(over, "pointercancel", () => drop(plot));
  on(over, "pointerleave", () => point(plot, -1));
  on(over, "dblclick", () => { cancelClick(plot); reset(plot); });
  on(over, "wheel", (e) => wheel(plot, e), { passive: false });
  on(root, "keydown", (e) => { if (e.key === "Escape") escape(plot); });
  on(canvas, "keydown", (e) => key(plot, e));
  for (const button of root.querySelectorAll("[data-mode]")) {
    on(button, "click", () => setMode(plot, button.dataset.mode));
  }
  const acts = {
    in: () => zoom(plot, 1.5), out: () => zoom(plot, 1 / 1.5), reset: () => reset(plot),
    clear: () => choose(plot, []),
  };
  for (const button of root.querySelectorAll("[data-do]")) {
    on(button, "click", () => { if (plot.frame) acts[button.dataset.do](); });
  }
  return () => { off.abort(); clearTimeout(plot.click?.timer); };
}

function setMode(plot, mode) {
  plot.mode = mode;
  for (const button of plot.root.querySelectorAll("[data-mode]")) {
    button.setAttribute("aria-pressed", String(button.dataset.mode === mode));
  }
  plot.over.dataset.cursor = mode;
}

function press(plot, e) {
  if (e.button || !plot.frame) return;
  plot.over.setPointerCapture(e.pointerId);
  plot.canvas.focus({ preventScroll: true });
  const at = [e.offsetX, e.offsetY];
  const kind = e.shiftKey && plot.mode === "pan" ? "box" : plot.mode;
  plot.drag = { kind, from: at, last: at, moved: false, polygon: null };
  plot.over.dataset.cursor = kind === "pan" ? "panning" : kind;
}

function move(plot, e) {
  const { drag } = plot;
  if (!plot.frame) return;
  const at = [e.offsetX, e.offsetY];
  if (!drag) return void point(plot, find(plot, at), at);
  const gap = (from) => Math.hypot(at[0] - from[0], at[1] - from[1]);
  drag.moved ||= gap(drag.from) > 3;
  if (!drag.moved) return;
  point(plot, -1);
  if (drag.kind === "pan") pan(plot, at[0] - drag.last[0], at[1] - drag.last[1]);
  if (drag.kind === "box") drag.polygon = corners(drag.from, at);
  if (drag.kind === "lasso" && (!drag.polygon || gap(drag.last) >= STEP)) {
    drag.polygon = [...(drag.polygon ?? [drag.from]), at];
  } else if (drag.kind === "lasso") return;
  drag.last = at;
  if (drag.kind !== "pan") drawOver(plot);
}

const corners = ([x0, y0], [x1, y1]) => [[x0, y0], [x1, y0], [x1, y1], [x0, y1]];

function release(plot, e) {
  const { drag } = plot;
  drop(plot);
  if (!drag) return;
  if (!drag.moved) return click(plot, find(plot, drag.from), e.ctrlKey || e.metaKey);
  if (drag.kind === "pan") return;
  const polygon = drag.polygon.map(([x, y]) => toData(plot, x, y));
  const found = inside(plot.points, polygon);
  choose(plot, e.ctrlKey || e.metaKey ? union(plot.selection.indices, found) : found);
}

function drop(plot) {
  plot.drag = null;
  plot.over.dataset.cursor = plot.mode;
  if (plot.frame) drawOver(plot);
}

const union = (a, b) => Int32Array.from(new Set([...a, ...b])).sort();

/** Show a click at once, and tell it when no second one makes it a double click. */
function click(plot, i, adds) {
  if (plot.click) return;
  const before = plot.selection;
  const toggled = () => before.mask[i] ? before.indices.filter((j) => j !== i) : union(before.indices, [i]);
  const after = i < 0 ? (adds ? before.indices : []) : adds ? toggled() : [i];
  if (!after.length && !before.count) return;
  select(plot, after);
  const timer = setTimeout(() => { plot.click = null; send(plot); }, CLICK_MS);
  plot.click = { timer, before: before.indices };
}

function cancelClick(plot) {
  if (!plot.click) return;
  clearTimeout(plot.click.timer);
  select(plot, plot.click.before);
  plot.click = null;
}

function escape(plot) {
  if (plot.drag) drop(plot);
  else choose(plot, []);
}

function wheel(plot, e) {
  if (!plot.frame) return;
  e.preventDefault();
  const lines = e.deltaMode === 1 ? 16 : e.deltaMode === 2 ? 400 : 1;
  const by = Math.max(-240, Math.min(240, e.deltaY * lines));
  point(plot, -1);
  zoom(plot, Math.exp(-by * 0.0022), e.offsetX, e.offsetY);
}

function key(plot, e) {
  if (e.ctrlKey || e.metaKey || e.altKey || !plot.frame) return;
  const acts = {
    ArrowLeft: () => pan(plot, 48, 0), ArrowRight: () => pan(plot, -48, 0),
    ArrowUp: () => pan(plot, 0, 48), ArrowDown: () => pan(plot, 0, -48),
    "+": () => zoom(plot, 1.5), "=": () => zoom(plot, 1.5), "-": () => zoom(plot, 1 / 1.5),
    0: () => reset(plot),
  };
  if (!acts[e.key]) return;
  e.preventDefault();
  acts[e.key]();
}

const find = (plot, [px, py]) =>
  nearest(plot.points, ...toData(plot, px, py), NEAR / plot.view.scale);

/** Ring the point under the pointer and say what it is. */
function point(plot, i, at) {
  const { tip } = plot;
  if (plot.hover === i) return;
  plot.hover = i;
  tip.hidden = i < 0;
  if (i >= 0) {
    const lines = describe(plot.header, plot.points, i);
    tip.replaceChildren(...lines.map((text, k) => tag("div", k ? "dim" : "", text)));
    const [x, y] = toScreen(plot, plot.points.x[i], plot.points.y[i]);
    const [width, height] = [tip.offsetWidth, tip.offsetHeight];
    const left = x + 14 + width > plot.frame.width ? x - 14 - width : x + 14;
    tip.style.left = `${Math.max(4, left)}px`;
    tip.style.top = `${Math.max(4, Math.min(y - height / 2, plot.frame.height - height - 4))}px`;
  }
  if (!plot.drag) plot.over.dataset.cursor = i >= 0 && plot.mode === "pan" ? "point" : plot.mode;
  if (plot.frame) drawOver(plot);
}
