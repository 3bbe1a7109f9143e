// Painting: points are stamped into a pixel buffer by hand. For 50,000 small marks that is some ten
// times faster than as many drawImage calls, with or without a graphics card.

const PHASES = 4; // a mark stands on a quarter of a pixel, so that zooming does not jitter
const REACH = 20; // a mark's largest half-width in device pixels
const PAD = 2 * REACH; // the buffer's margin: marks that cross the edge need no clipping
const MOST_RINGS = 60; // around selected points: more of them hide what they ring
const VIRIDIS = ["#440154", "#482878", "#3e4989", "#31688e", "#26828e", "#1f9e89", "#35b779",
  "#6ece58", "#b5de2b", "#fde725"];

/** [r, g, b] of any CSS colour. */
function rgb(css) {
  const context = (rgb.context ??= document.createElement("canvas")
    .getContext("2d", { willReadFrequently: true }));
  context.clearRect(0, 0, 1, 1);
  context.fillStyle = css;
  context.fillRect(0, 0, 1, 1);
  return [...context.getImageData(0, 0, 1, 1).data.subarray(0, 3)];
}

const pack = ([r, g, b]) => 0xff000000 | (b << 16) | (g << 8) | r; // signed: V8 is faster with it
const mix = (from, to, part) => from.map((v, k) => Math.round(v + (to[k] - v) * part));

/** The theme's colours as they are now. */
function themeOf(element) {
  const style = getComputedStyle(element);
  const read = (name, otherwise) => style.getPropertyValue(name).trim() || otherwise;
  const back = rgb(read("--st-background-color", "#ffffff"));
  const text = rgb(read("--st-text-color", "#31333f"));
  const dark = back[0] + back[1] + back[2] < 384;
  return { back, text, dark, primary: rgb(read("--st-primary-color", "#0072b2")) };
}

/** 256 colours of viridis, less the end that the background would swallow. */
function rampOf(dark) {
  const stops = VIRIDIS.map(rgb);
  const [low, high] = dark ? [0.16, 1] : [0, 0.9];
  return Array.from({ length: 256 }, (_, k) => {
    const at = (low + ((high - low) * k) / 255) * (stops.length - 1);
    const stop = Math.min(stops.length - 2, Math.floor(at));
    return mix(stops[stop], stops[stop + 1], at - stop);
  });
}

const noValue = ({ back, text }) => mix(back, text, 0.35);

/** Each point's colour, packed as the buffer holds it. */
function inkOf(points, header, theme) {
  const ink = new Int32Array(points.n);
  const none = pack(noValue(theme));
  const table = (header.kind === "ramp" ? rampOf(theme.dark) : header.palette.map(rgb)).map(pack);
  for (let i = 0; i < points.n; i++) {
    const c = points.colour[i];
    ink[i] = header.kind === "ramp" ? (c === NO_VALUE ? none : table[c >> 8]) : table[c];
  }
  return ink;
}

// How far inside a mark's edge a place lies, in pixels: its distance field.
const disc = (x, y, r) => r - Math.hypot(x, y);
const FIELDS = {
  pool: disc,
  labeled: disc,
  halo: disc,
  queue: (x, y, r) => Math.min(r - Math.hypot(x, y), Math.hypot(x, y) - r * 0.5),
  ring: (x, y, r) => Math.min(r - Math.hypot(x, y), Math.hypot(x, y) - r + 1.6),
  validation: (x, y, r) => r * 0.86 - Math.max(Math.abs(x), Math.abs(y)),
  vault: (x, y, r) => {
    const edge = r * 1.15 - (Math.abs(x) + Math.abs(y)) * Math.SQRT1_2;
    return Math.min(edge, r * 0.75 - edge);
  },
};

/** A mark as sparse lists of buffer offsets and weights (0 to 256), one for each phase. */
function stencil(field, radius, alpha, stride) {
  const reach = Math.min(REACH, Math.ceil(radius * (field === FIELDS.vault ? 1.7 : 1)) + 1);
  const phases = [];
  for (let p = 0; p < PHASES * PHASES; p++) {
    const cx = ((p % PHASES) + 0.5) / PHASES - 0.5;
    const cy = (Math.floor(p / PHASES) + 0.5) / PHASES - 0.5;
    const offsets = [];
    const weights = [];
    for (let dy = -reach; dy <= reach; dy++) {
      for (let dx = -reach; dx <= reach; dx++) {
        const cover = Math.min(1, Math.max(0, field(dx - cx, dy - cy, radius) + 0.5));
        const weight = Math.round(cover * alpha * 256);
        if (weight > 4) { offsets.push(dy * stride + dx); weights.push(weight); }
      }
    }
    phases.push({ offsets: Int32Array.from(offsets), weights: Int32Array.from(weights) });
  }
  return phases;
}

function stamp(buffer, base, { offsets, weights }, ink) {
  const rb = ink & 0xff00ff;
  const g = ink & 0x00ff00;
  for (let k = 0; k < offsets.length; k++) {
    const at = base + offsets[k];
    const under = buffer[at];
    const w = weights[k];
    const v = 256 - w;
    buffer[at] = 0xff000000
      | (((Math.imul(rb, w) + Math.imul(under & 0xff00ff, v)) >>> 8) & 0xff00ff)
      | (((Math.imul(g, w) + Math.imul(under & 0x00ff00, v)) >>> 8) & 0x00ff00);
  }
}

/** Radii in device pixels: larger with fewer points and closer in, to a limit. */
function sizes(count, view, frame) {
  const room = Math.sqrt((frame.width * frame.height) / Math.max(1, count));
  const home = Math.min(4.2, Math.max(1.35, 0.42 * room));
  const pool = Math.min(5, home * Math.max(0.8, view.zoom ** 0.3));
  const radius = (times, least) => Math.round(Math.max(pool * times, least) * frame.dpr * 4) / 4;
  return {
    pool: radius(1, 1), vault: radius(1.25, 2.4), validation: radius(1.25, 2.2),
    queue: radius(1.5, 3.6), labeled: radius(1.35, 2.8),
    alpha: Math.round(Math.min(0.85, 0.3 + 0.16 * pool) * 16) / 16,
  };
}

const ALPHAS = { vault: 0.8, validation: 0.8, queue: 1, labeled: 1 };

/** The stencils of one frame, by shape; those whose size and weight were met before are kept. */
function stencilsOf(frame, size, dim) {
  const kept = (field, radius, alpha) => {
    const name = `${field} ${radius} ${alpha}`;
    if (frame.stencils.size > 400) frame.stencils.clear();
    if (!frame.stencils.has(name)) {
      frame.stencils.set(name, stencil(FIELDS[field], radius, alpha, frame.stride));
    }
    return frame.stencils.get(name);
  };
  const alphas = { ...ALPHAS, pool: size.alpha };
  const marks = SHAPES.map((s) => kept(s, size[s], alphas[s] * (dim ? 0.22 : 1)));
  const halo = (s) => kept("halo", size[s] + 1.1 * frame.dpr, dim ? 0.2 : 0.9);
  const halos = SHAPES.map((s) => (s === "queue" || s === "labeled" ? halo(s) : null));
  const rings = () => SHAPES.map((s) => kept("ring", size[s] + 2.6 * frame.dpr, 1));
  return { marks, halos, rings };
}

/** A buffer for a plot of width × height CSS pixels at `dpr` device pixels for each. */
function frameOf(canvas, width, height, dpr) {
  canvas.width = Math.max(1, Math.round(width * dpr));
  canvas.height = Math.max(1, Math.round(height * dpr));
  const stride = canvas.width + 2 * PAD;
  const image = new ImageData(stride, canvas.height + 2 * PAD);
  const context = canvas.getContext("2d", { alpha: false, willReadFrequently: true });
  const buffer = new Int32Array(image.data.buffer);
  return { width, height, dpr, stride, image, buffer, context, stencils: new Map() };
}

/** Paint all shown points; with a selection the others step back. */
function paint(frame, points, view, ink, theme, selection) {
  frame.buffer.fill(pack(theme.back));
  const size = sizes(points.visible.length, view, frame);
  const { mask, count } = selection;
  pass(frame, points, view, ink, theme, stencilsOf(frame, size, count > 0), mask, 0);
  if (count) {
    const chosen = { ...size, pool: Math.max(size.pool * 1.3, 2 * frame.dpr), alpha: 1 };
    const clear = stencilsOf(frame, chosen, false);
    const rings = count <= MOST_RINGS ? clear.rings() : null;
    pass(frame, points, view, ink, theme, clear, mask, 1, rings);
  }
  frame.context.putImageData(frame.image, -PAD, -PAD);
}

/** Stamp the shown points whose `mask` is `wanted`. */
function pass(frame, points, view, ink, theme, { marks, halos }, mask, wanted, rings = null) {
  const { buffer, stride, dpr } = frame;
  const { x, y, shape, visible } = points;
  const scale = view.scale * dpr;
  const left = (frame.width * dpr) / 2 - view.cx * scale + PAD;
  const top = (frame.height * dpr) / 2 + view.cy * scale + PAD;
  const [wide, high] = [stride - REACH, frame.image.height - REACH];
  const [back, text] = [pack(theme.back), pack(theme.text)];
  for (let k = 0; k < visible.length; k++) {
    const i = visible[k];
    if (mask[i] !== wanted) continue;
    const px = x[i] * scale + left;
    const py = top - y[i] * scale;
    if (!(px >= REACH && px < wide && py >= REACH && py < high)) continue;
    const ix = px | 0;
    const iy = py | 0;
    const phase = (((py - iy) * PHASES) | 0) * PHASES + (((px - ix) * PHASES) | 0);
    const base = iy * stride + ix;
    const s = shape[i];
    if (halos[s]) stamp(buffer, base, halos[s][phase], back);
    stamp(buffer, base, marks[s][phase], ink[i]);
    if (rings) stamp(buffer, base, rings[s][phase], text);
  }
}

/** What lies over the points: the star, the point under the pointer, the box or lasso. */
function paintOver(canvas, frame, theme, { star, hover, drag }) {
  if (canvas.width !== frame.context.canvas.width) canvas.width = frame.context.canvas.width;
  if (canvas.height !== frame.context.canvas.height) canvas.height = frame.context.canvas.height;
  const context = canvas.getContext("2d");
  context.setTransform(frame.dpr, 0, 0, frame.dpr, 0, 0);
  context.clearRect(0, 0, frame.width, frame.height);
  const css = (colour, alpha = 1) => `rgba(${colour.join(",")},${alpha})`;
  if (star) drawStar(context, star, css(theme.text), css(theme.back));
  if (hover) {
    context.lineWidth = 2;
    context.strokeStyle = css(theme.text);
    context.beginPath();
    context.arc(hover[0], hover[1], 7, 0, 2 * Math.PI);
    context.stroke();
  }
  if (drag?.length > 1) {
    context.beginPath();
    drag.forEach(([x, y]) => context.lineTo(x, y));
    context.closePath();
    context.fillStyle = css(theme.primary, 0.1);
    context.strokeStyle = css(theme.primary);
    context.lineWidth = 1.5;
    context.fill();
    context.stroke();
  }
}

function drawStar(context, [x, y], fill, line) {
  context.beginPath();
  for (let k = 0; k < 10; k++) {
    const radius = k % 2 ? 5 : 11.5;
    const angle = (k * Math.PI) / 5 - Math.PI / 2;
    context.lineTo(x + radius * Math.cos(angle), y + radius * Math.sin(angle));
  }
  context.closePath();
  context.lineJoin = "round";
  context.lineWidth = 4;
  context.strokeStyle = line;
  context.stroke();
  context.fillStyle = fill;
  context.fill();
}
