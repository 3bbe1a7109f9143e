// The legend: what colours and shapes mean, how many points each has, and which are hidden.

const NAMES = { pool: "Pool", queue: "Queue", labeled: "Labeled", validation: "Validation",
  vault: "Vault" };
const GLYPHS = {
  pool: '<circle cx="7" cy="7" r="2.6" opacity=".6"/>',
  queue: '<circle cx="7" cy="7" r="4" fill="none" stroke="currentColor" stroke-width="2.2"/>',
  labeled: '<circle cx="7" cy="7" r="5"/>',
  validation: '<path d="M3.5 3.5h7v7h-7z"/>',
  vault: '<path d="M7 2.2 11.8 7 7 11.8 2.2 7z" fill="none" stroke="currentColor" stroke-width="1.8"/>',
};
const count = new Intl.NumberFormat("en-US");

function tag(name, cls, text) {
  const made = document.createElement(name);
  if (cls) made.className = cls;
  if (text !== undefined) made.textContent = text;
  return made;
}

/** A number at a ramp's end or in a tip: short, and never in more digits than it has. */
const short = (value) => String(Number(value.toPrecision(3)));

/** Rebuild the legend; `off` holds the hidden colours and shapes, `changed()` follows a press. */
function buildLegend(box, header, points, theme, off, changed) {
  const colours = new Map();
  const shapes = new Map();
  for (const i of points.order) {
    const c = points.colour[i];
    if (header.kind === "groups" || c === NO_VALUE) colours.set(c, (colours.get(c) ?? 0) + 1);
    shapes.set(points.shape[i], (shapes.get(points.shape[i]) ?? 0) + 1);
  }
  const parts = [];
  if (header.title) parts.push(tag("div", "title", header.title));
  if (header.kind === "ramp") parts.push(rampBar(header, theme));
  parts.push(...colourEntries(header, theme, colours, off.colour, changed));
  if (shapes.size > 1) {
    parts.push(tag("div", "title second", "Items"));
    const keys = [2, 1, 0, 3, 4].filter((s) => shapes.has(s));
    const rows = keys.map((s) => [s, NAMES[SHAPES[s]], glyph(SHAPES[s]), shapes.get(s)]);
    parts.push(...entries(rows, off.shape, changed));
  }
  if (header.star) parts.push(starEntry());
  box.replaceChildren(...parts);
}

function colourEntries(header, theme, counts, off, changed) {
  const row = (c, name, colour) => {
    const swatch = tag("i", "swatch");
    swatch.style.background = colour;
    return [c, name, swatch, counts.get(c) ?? 0];
  };
  const rows = header.kind === "groups"
    ? header.legend.map((name, c) => row(c, name, header.palette[c]))
    : [...counts.keys()].map((c) => row(c, "No value", `rgb(${noValue(theme).join(",")})`));
  return entries(rows, off, changed);
}

function entries(rows, off, changed) {
  const buttons = rows.map(([value, name, mark, size]) => {
    const button = tag("button", "entry");
    button.type = "button";
    button.title = `${name}: ${count.format(size)}. Press to hide or show; double-click for only this`;
    button.append(mark, tag("span", "name", name), tag("span", "size", count.format(size)));
    button.addEventListener("click", () => {
      if (!off.delete(value)) off.add(value);
      mend();
    });
    button.addEventListener("dblclick", () => {
      const others = rows.map((r) => r[0]).filter((v) => v !== value);
      const alone = others.every((v) => off.has(v));
      off.clear();
      if (!alone) others.forEach((v) => off.add(v));
      mend();
    });
    return button;
  });
  const press = () => rows.forEach(([value], k) =>
    buttons[k].setAttribute("aria-pressed", String(!off.has(value))));
  const mend = () => { press(); changed(); };
  press();
  return buttons;
}

function glyph(shape) {
  const holder = tag("i", "glyph");
  holder.innerHTML = `<svg viewBox="0 0 14 14" aria-hidden="true">${GLYPHS[shape]}</svg>`;
  return holder;
}

function starEntry() {
  const row = tag("div", "entry still");
  row.append(tag("i", "glyph", "★"), tag("span", "name", "This item"));
  return row;
}

function rampBar(header, theme) {
  const box = tag("div", "ramp");
  const bar = tag("div", "colours");
  const stops = rampOf(theme.dark).filter((_, k) => k % 15 === 0).map((c) => `rgb(${c.join(",")})`);
  bar.style.background = `linear-gradient(to right, ${stops.join(",")})`;
  const [low, high] = header.ramp;
  const ends = tag("div", "ends");
  ends.append(...[low, (low + high) / 2, high].map((v) => tag("span", "", short(v))));
  box.append(bar, ends);
  return box;
}

/** What the tip says of point i: colour, shape, id. */
function describe(header, points, i) {
  const c = points.colour[i];
  const [low, high] = header.ramp;
  const value = c === NO_VALUE ? "no value" : short(low + ((high - low) * c) / (NO_VALUE - 1));
  const colour = header.kind === "ramp" ? value : header.legend[c];
  const first = header.title ? `${header.title}: ${colour}` : colour;
  const id = points.ids ? points.ids[i] : `Point ${count.format(i + 1)}`;
  return [first, `${NAMES[SHAPES[points.shape[i]]]} · ${id}`];
}
