// Figures in SVG, each made of its numbers alone.

const colour = (sampler) => DATA.looks[sampler].colour;
const dash = (sampler) => DATA.looks[sampler].dash.map((length) => 2 * length).join(" ") || null;
// The marker of a sampler, of radius r: matplotlib's letters, so that all figures agree.
const MARKERS = { s: "M-1-1H1V1H-1Z", "^": "M0-1.2L1.2 1H-1.2Z", v: "M0 1.2L1.2-1H-1.2Z", D: "M0-1.3L1.3 0L0 1.3L-1.3 0Z",
  P: "M-.45-1.3H.45V-.45H1.3V.45H.45V1.3H-.45V.45H-1.3V-.45H-.45Z",
  X: "M-1.2-.7L-.7-1.2L0-.5L.7-1.2L1.2-.7L.5 0L1.2 .7L.7 1.2L0 .5L-.7 1.2L-1.2 .7L-.5 0Z" };
function marker(sampler, x, y, r, attributes = {}) {
  const shape = MARKERS[DATA.looks[sampler].marker], more = { fill: "currentColor", ...attributes };
  return shape ? svg("path", { d: shape, transform: `translate(${x.toFixed(1)} ${y.toFixed(1)}) scale(${r})`, ...more })
    : svg("circle", { cx: x.toFixed(1), cy: y.toFixed(1), r, ...more });
}

const figure = (title, drawing, note = null) =>
  el("figure", {}, el("figcaption", {}, el("b", {}, title), note ? ` ${note}` : null), drawing);
const canvas = (width, height, label, ...children) =>
  svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label }, children);

function legend(samplers) {
  return el("ul", { class: "legend" }, samplers.map((name) =>
    el("li", { class: "series", "--c": colour(name) },
      svg("svg", { viewBox: "0 0 26 10", "aria-hidden": "true" },
        svg("line", { x1: 0, x2: 26, y1: 5, y2: 5, stroke: "currentColor", "stroke-width": 2, "stroke-dasharray": dash(name) }), marker(name, 13, 5, 4)),
      el("span", {}, name))));
}

// Decades, or 1-2-5 steps where there are few of them.
function ticks(low, high) {
  const every = [];
  for (let e = Math.floor(Math.log10(low)); e <= Math.ceil(Math.log10(high)); e++)
    for (const m of [1, 2, 5]) every.push([m, e, m * 10 ** e]);
  const inside = every.filter(([, , v]) => v >= low * 0.999 && v <= high * 1.001);
  const decades = inside.filter(([m]) => m === 1);
  const chosen = decades.length >= 2 ? decades : inside;
  const step = Math.ceil(chosen.length / 6);
  return chosen.filter((_, i) => i % step === 0).map(([, , v]) => v);
}
function brief(v) {
  if (v >= 1e6) return `${v / 1e6}M`;
  if (v >= 1e3) return `${v / 1e3}k`;
  return v >= 1e-3 ? String(Number(v.toPrecision(2))) : v.toExponential(0);
}

// Round steps between the ends of a linear axis.
function steps(low, high) {
  const rough = (high - low) / 4 || 1, unit = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((m) => m * unit).find((s) => s >= rough * 0.999);
  const found = [];
  for (let k = Math.ceil(low / step); k * step <= high * (high > 0 ? 1.0001 : 0.9999); k++) found.push(Number((k * step).toPrecision(12)));
  return found;
}
const quantile = (sorted, share) => {
  const at = share * (sorted.length - 1), low = Math.floor(at);
  return sorted[low] + (at - low) * ((sorted[low + 1] ?? sorted[low]) - sorted[low]);
};
// The interval that holds nearly all of each usual set: as `axes.span` of the pictures.
function span(sets) {
  const all = sets.filter((s) => s.length).map((s) => [...s].sort((a, b) => a - b))
    .map((s) => ({ middle: quantile(s, 0.5), spread: quantile(s, 0.75) - quantile(s, 0.25), low: s[0], high: s[s.length - 1] }));
  const moved = all.filter((s) => s.spread > 0).sort((a, b) => a.spread - b.spread);
  const usual = moved[Math.floor((moved.length - 1) / 2)];
  const kept = usual ? all.filter((s) => Math.abs(s.middle - usual.middle) <= 20 * usual.spread && s.spread <= 5 * usual.spread) : all;
  return [Math.min(...kept.map((s) => Math.max(s.low, usual ? s.middle - 8 * s.spread : s.low))),
    Math.max(...kept.map((s) => Math.min(s.high, usual ? s.middle + 8 * s.spread : s.high)))];
}

// Lines with a band on logarithmic axes.  series: {sampler, points: [x, y, low, high], end: the score
// in the table, or null}; floor: {mean, sd, n} of as few draws as a curve has, a grey band; edge: the
// largest value that is at the floor in the table, a dotted line.  Below the edge of the band the
// axis is linear, so that nothing is cut off.  A `level` axis is linear, and set by the later half of
// the usual curves; what lies beyond it is cut.
function lines({ title, series, xlabel, floor, edge, note, level = false }) {
  const [W, H, L, B, T] = [520, 300, 52, 36, 8];
  const points = series.flatMap((s) => s.points), ends = series.map((s) => s.end).filter(known);
  if (!points.length) return null;
  const band = floor ? [floor.mean - 2 * floor.sd, floor.mean + 2 * floor.sd] : [];
  const ys = [...points.flatMap((p) => [p[2], p[3]]), ...ends, ...band];
  const xs = points.map((p) => Math.max(p[0], 1e-6));
  let [x0, x1] = [Math.min(...xs), Math.max(...xs)];
  if (x0 === x1) [x0, x1] = [x0 / 2, x1 * 2];
  const late = series.map((s) => [...s.points.slice(Math.floor(s.points.length / 2)).flatMap((p) => [p[1], p[2], p[3]]), ...(known(s.end) ? [s.end] : [])]);
  const [least, most] = level ? span(late) : [Math.min(...ys), Math.max(...ys)];
  const linear = least > 0 ? null : Math.max(floor ? band[1] : Math.max(1e-3, -least), 1e-9);
  const shape = level ? (v) => v : linear === null ? Math.log : (v) => Math.sign(v) * (Math.abs(v) <= linear ? (0.7 * Math.abs(v)) / linear : 0.7 + Math.log10(Math.abs(v) / linear));
  const [y0, y1] = [shape(least) , shape(most)], margin = 0.04 * (y1 - y0 || 1);
  const X = (v) => L + ((Math.log(Math.max(v, x0)) - Math.log(x0)) / (Math.log(x1) - Math.log(x0))) * (W - L - 12);
  const free = (v) => H - B - ((shape(v) - y0 + margin) / (y1 - y0 + 2 * margin || 1)) * (H - B - T);
  const Y = level ? (v) => Math.min(Math.max(free(v), T), H - B) : free;
  const off = level ? series.filter((s) => s.points.some((p) => free(p[1]) < T - 1 || free(p[1]) > H - B + 1)).length : 0;
  const parts = [];
  if (floor) parts.push(svg("rect", { class: "floor", x: L, width: W - L - 12, y: Y(band[1]), height: Math.max(Y(band[0]) - Y(band[1]), 1) }));
  const decades = level ? steps(least, most) : linear === null ? ticks(least, most) : [0, ...(most > linear ? ticks(linear, most) : [])];
  for (const v of decades) {
    parts.push(svg("line", { class: "rule", x1: L, x2: W - 12, y1: Y(v), y2: Y(v) }));
    parts.push(svg("text", { x: L - 5, y: Y(v) + 4, "text-anchor": "end" }, level ? String(v) : v ? brief(v) : "0"));
  }
  if (floor && known(edge) && edge < band[1])
    parts.push(svg("line", { class: "edge", x1: L, x2: W - 12, y1: Y(Math.max(edge, least)), y2: Y(Math.max(edge, least)) }));
  for (const v of ticks(x0, x1))
    parts.push(svg("text", { x: X(v), y: H - B + 15, "text-anchor": "middle" }, brief(v)));
  parts.push(svg("path", { class: "axis", d: `M${L} ${T}V${H - B}H${W - 12}` }));
  parts.push(svg("text", { x: (L + W) / 2, y: H - 4, "text-anchor": "middle" }, xlabel));
  for (const { sampler, points: own, end } of series) {
    if (!own.length) continue;
    const d = (f) => own.map((p) => `${X(p[0]).toFixed(1)} ${Y(f(p)).toFixed(1)}`);
    parts.push(svg("g", { class: "series", "--c": colour(sampler) }, svg("title", {}, sampler),
      svg("path", { d: `M${d((p) => p[2]).join("L")}L${d((p) => p[3]).reverse().join("L")}Z`, fill: "currentColor", opacity: 0.13 }),
      svg("path", { d: `M${d((p) => p[1]).join("L")}`, fill: "none", stroke: "currentColor", "stroke-width": 2, "stroke-dasharray": dash(sampler) }),
      own.map((p) => marker(sampler, X(p[0]), Y(p[1]), 3.4)),
      known(end) ? marker(sampler, X(own[own.length - 1][0]), Y(end), 5.2, { class: "open", stroke: "currentColor", "stroke-width": 1.6 }) : []));
  }
  const beyond = off ? `${off} of ${series.length} leave the panel and run along its edge` : null;
  return figure(title, canvas(W, H, `${title} against ${xlabel}`, parts), [note, beyond].filter(Boolean).join("; ") || null);
}

// A row a sampler: every seed, the interval they span, their median, and the floor behind.
function dots({ title, rows, note }) {
  const shown = rows.filter((row) => row.values.length);
  if (!shown.length) return null;
  const sizes = shown.flatMap((row) => row.values.map(Math.abs));
  const edges = shown.map((row) => row.edge).filter((e) => known(e) && e > 0);
  const most = Math.max(...sizes, ...edges) || 1;
  const least = Math.max(edges.length ? Math.min(...edges) / 4 : 0, most * 1e-4);
  const [W, L, step, T] = [520, 176, 20, 6], H = T + shown.length * step + 34;
  const low = Math.max(Math.min(...sizes.map((s) => Math.max(s, least))) / 1.4, least / 1.4);
  const X = (v) => L + (Math.log(Math.max(v, low) / low) / Math.log((most * 1.2) / low)) * (W - L - 12);
  const parts = [];
  for (const v of ticks(low, most * 1.2)) {
    parts.push(svg("line", { class: "rule", x1: X(v), x2: X(v), y1: T, y2: H - 34 }));
    parts.push(svg("text", { x: X(v), y: H - 19, "text-anchor": "middle" }, brief(v)));
  }
  shown.forEach((row, i) => {
    const y = T + (i + 0.5) * step, at = row.values.map((v) => X(Math.max(Math.abs(v), least)));
    const name = row.sampler.length > 24 ? `${row.sampler.slice(0, 11)}…${row.sampler.slice(-12)}` : row.sampler;
    if (known(row.edge) && row.edge > 0)
      parts.push(svg("rect", { class: "floor", x: L, width: Math.max(X(row.edge) - L, 0), y: y - step / 2, height: step }));
    parts.push(svg("text", { class: "name", x: L - 8, y: y + 4, "text-anchor": "end" }, name));
    parts.push(svg("g", { class: "series", "--c": colour(row.sampler) },
      svg("title", {}, `${row.sampler}: ${row.values.map(number).join(", ")}`),
      svg("line", { x1: Math.min(...at), x2: Math.max(...at), y1: y, y2: y, stroke: "currentColor", "stroke-width": 2.5 }),
      at.map((x) => svg("circle", { cx: x, cy: y, r: 2.5, fill: "currentColor", opacity: 0.6 })),
      marker(row.sampler, X(Math.max(Math.abs(median(row.values)), least)), y, 5)));
  });
  parts.push(svg("path", { class: "axis", d: `M${L} ${T}V${H - 34}H${W - 12}` }));
  return figure(title, canvas(W, H, title, parts), note);
}

// Points of the plane, four digits of base 64 each, in a square of side 1000.
const DIGITS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
function decoded(text) {
  const at = (i) => (DIGITS.indexOf(text[i]) * 64 + DIGITS.indexOf(text[i + 1])) / 4.095;
  const found = [];
  for (let i = 0; i + 3 < text.length; i += 4) found.push([at(i), at(i + 2)]);
  return found;
}
const share = (x) => (x >= 0.0005 ? `${(100 * x).toFixed(1)} % outside` : null);
const strokes = (points) => points.map(([x, y]) => `M${x.toFixed(0)} ${(1000 - y).toFixed(0)}h0`).join("");
// Draws over the contours or, where there are none, over exact draws.
function cloud(plane, sampler, own) {
  const parts = [svg("rect", { x: 0, y: 0, width: 1000, height: 1000, class: "rule" })];
  const point = (d, width, opacity) =>
    svg("path", { d, stroke: "currentColor", "stroke-width": width, "stroke-linecap": "round", opacity, fill: "none" });
  parts.push(svg("g", { transform: "matrix(1 0 0 -1 0 1000)" },
    plane.contours.map((d) => svg("path", { class: "contour", d }))));
  if (sampler !== null && !plane.contours.length)
    parts.push(svg("g", {}, point(strokes(decoded(plane.exact.points)), 14, 0.22)));
  parts.push(svg("g", { class: "series", "--c": sampler === null ? null : colour(sampler) },
    point(strokes(decoded(own.points)), 18, 0.5)));
  const name = sampler === null ? "exact draws" : sampler;
  return figure(name, canvas(1000, 1000, `draws of ${name}`, parts), share(own.outside));
}

// A sheet of images, a letter a pixel, drawn in the pixels of the screen.
function sheet({ rows, columns }, sampler, text) {
  const size = rows * columns, count = text.length / size, side = Math.max(Math.ceil(Math.sqrt(count)), 1), gap = 1;
  const [W, H] = [side * (columns + gap) + gap, Math.max(Math.ceil(count / side), 1) * (rows + gap) + gap];
  const name = sampler === null ? "exact draws" : sampler;
  const node = el("canvas", { width: W, height: H, class: "images series", role: "img", "aria-label": `draws of ${name}`, "--c": sampler === null ? null : colour(sampler) });
  const brush = node.getContext("2d"), pixels = brush.createImageData(W, H);
  pixels.data.fill(0);
  for (let i = 0; i < text.length; i++) {
    const [image, pixel] = [Math.floor(i / size), i % size];
    const x = gap + (image % side) * (columns + gap) + (pixel % columns), y = gap + Math.floor(image / side) * (rows + gap) + Math.floor(pixel / columns);
    const at = 4 * (y * W + x), grey = Math.round((255 * DIGITS.indexOf(text[i])) / 63);
    pixels.data.set([grey, grey, grey, 255], at);
  }
  brush.putImageData(pixels, 0, 0);
  return figure(name, node);
}

// Shares of draws in equal bins, filled, over those of exact draws, outlined.
function bars({ sampler, low, high, filled: own, outline, zero, note }) {
  const [W, H, B] = [240, 120, 16], n = own.length;
  const top = Math.min(Math.max(...own, ...outline), outline.length ? 2.2 * Math.max(...outline) : Infinity) || 1;
  const steps = (counts) => counts.map((c, i) =>
    `${i ? "L" : "M"}${((i * W) / n).toFixed(1)} ${(H - B - Math.min(c / top, 1) * (H - B - 4)).toFixed(1)}h${(W / n).toFixed(1)}`).join("");
  const X = (v) => ((v - low) / (high - low)) * W;
  const parts = [
    svg("g", { class: "series", "--c": colour(sampler) },
      svg("path", { d: `M0 ${H - B}${steps(own).replace("M", "L")}V${H - B}Z`, fill: "currentColor", opacity: 0.55 })),
    outline.length ? svg("path", { class: "outline", d: steps(outline) }) : null,
    zero ? svg("line", { class: "axis", "stroke-dasharray": "2 3", x1: X(0), x2: X(0), y1: 0, y2: H - B }) : null,
    svg("path", { class: "axis", d: `M0 ${H - B}H${W}` }),
    svg("text", { x: 0, y: H - 3 }, number(low)),
    svg("text", { x: W, y: H - 3, "text-anchor": "end" }, number(high)),
  ];
  return figure(sampler, canvas(W, H, `histogram of ${sampler}`, parts.filter(Boolean)), note);
}
