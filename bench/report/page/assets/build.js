"use strict";
// Elements, numbers, tables that sort, and the paired test.  Text from records enters by
// textContent and setAttribute only.

const DATA = JSON.parse(document.getElementById("data").textContent);

function filled(node, attributes, children) {
  for (const [key, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (typeof value === "function") node.addEventListener(key, value);
    else if (key.startsWith("--")) node.style.setProperty(key, value);
    else node.setAttribute(key, value === true ? "" : value);
  }
  node.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined));
  return node;
}
const el = (tag, attributes = {}, ...children) =>
  filled(document.createElement(tag), attributes, children);
const svg = (tag, attributes = {}, ...children) =>
  filled(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);

const known = (x) => typeof x === "number" && Number.isFinite(x);
function number(x) {
  if (!known(x)) return "–";
  const size = Math.abs(x);
  if (x !== 0 && (size < 1e-3 || size >= 1e5)) return x.toExponential(1);
  return size < 1000 ? String(Number(x.toPrecision(3))) : x.toFixed(0);
}
// The same, but of large numbers with the decimals that the error asks for.
const precise = (x, se) => (!known(x) || Math.abs(x) < 100 || !(se > 0 && Number.isFinite(se)) ? number(x)
  : x.toFixed(Math.min(Math.max(1 - Math.floor(Math.log10(se)), 0), 6)));
const whole = (x) => (known(x) ? Math.round(x).toLocaleString("en") : "–");
const large = (x) => (known(x) ? (x ? x.toExponential(1) : "0") : "–");
const median = (xs) => {
  const s = [...xs].sort((a, b) => a - b), n = s.length;
  return n ? (s[Math.floor((n - 1) / 2)] + s[Math.floor(n / 2)]) / 2 : null;
};
const mean = (xs) => xs.reduce((sum, x) => sum + x, 0) / xs.length;
const unique = (xs) => [...new Set(xs)];

// A table whose heads sort it.  columns: {head, hint, order(row), show(row), words, cell(row), exact};
// the first is the row's head; `exact`, if any column has it, makes a row below the heads that stays.  Unknown values come last, whichever way it is sorted.
function table({ label, columns, rows, tall, sort = null }) {
  const body = el("tbody"), heads = [];
  let by = sort, keep = () => true;
  const draw = () => {
    const shown = rows.filter(keep);
    if (by) {
      const { order } = columns[by.column];
      const absent = (x) => x === null || x === undefined || x === "";
      shown.sort((a, b) => {
        const [p, q] = [order(a), order(b)];
        if (absent(p) || absent(q)) return absent(p) - absent(q);
        return (p < q ? -1 : p > q ? 1 : 0) * (by.up ? 1 : -1);
      });
    }
    body.replaceChildren(...shown.map((row) =>
      el("tr", {}, columns.map((column, i) => {
        const extra = column.cell ? column.cell(row) : {};
        const attributes = i ? { class: column.words ? "words" : null, ...extra } : { scope: "row", ...extra };
        return el(i ? "td" : "th", attributes, column.show(row));
      }))));
    if (!shown.length) body.append(el("tr", {}, el("td", { colspan: columns.length, class: "none" }, "Nothing matches the filter.")));
    heads.forEach((head, i) => {
      const on = by && by.column === i;
      head.setAttribute("aria-sort", on ? (by.up ? "ascending" : "descending") : "none");
    });
    return shown.length;
  };
  columns.forEach((column, i) => {
    const turn = () => {
      by = { column: i, up: by && by.column === i ? !by.up : true };
      draw();
    };
    heads.push(el("th", { scope: "col", class: [column.words && "words", column.long && "long"].filter(Boolean).join(" ") || null, title: column.hint },
      column.order ? el("button", { type: "button", click: turn }, column.head) : column.head));
  });
  const fixed = columns.some((column) => column.exact)
    ? el("tr", { class: "exact" }, columns.map((column, i) => el("td", {}, i ? column.exact ?? "" : "noise floor"))) : null;
  const node = el("div", { class: tall ? "scroll tall" : "scroll", tabindex: "0", role: "region", "aria-label": label },
    el("table", { "aria-label": label }, el("thead", {}, el("tr", {}, heads), fixed), body));
  draw();
  return { node, filter: (test) => { keep = test; return draw(); } };
}

function choice(label, options, value, change) {
  const select = el("select", { change: () => change(select.value) },
    options.map(([key, text]) => el("option", { value: key, selected: String(key) === String(value) }, text)));
  return el("label", {}, label, select);
}
function textbox(label, hint, change) {
  const input = el("input", { type: "search", placeholder: hint, input: () => change(input.value) });
  return el("label", {}, label, input);
}

// P(|T| > t) of Student's law with a whole number of degrees of freedom: Abramowitz and Stegun,
// 26.7.3 and 26.7.4.
function tail(t, freedom) {
  const angle = Math.atan(Math.abs(t) / Math.sqrt(freedom)), [s, c] = [Math.sin(angle), Math.cos(angle)];
  const odd = freedom % 2 === 1;
  let term = odd ? c : 1, sum = freedom === 1 ? 0 : term;
  for (let k = odd ? 3 : 2; k <= freedom - 2; k += 2) {
    term *= (c * c * (k - 1)) / k;
    sum += term;
  }
  return Math.max(0, 1 - (odd ? (2 / Math.PI) * (angle + s * sum) : s * sum));
}
// The paired t test of differences: their mean, its 95 % interval, p; no p for fewer than three.
function paired(differences) {
  const n = differences.length;
  if (n < 3) return { n, mean: n ? mean(differences) : null, half: null, p: null };
  const m = mean(differences), most = Math.max(...differences.map(Math.abs)) || 1;
  const squares = differences.map((d) => ((d - m) / most) ** 2); // of tiny numbers these would vanish
  const se = most * Math.sqrt(squares.reduce((sum, d) => sum + d, 0) / (n - 1) / n);
  let [low, high] = [0, 1e4];
  for (let i = 0; i < 60; i++) {
    const middle = (low + high) / 2;
    if (tail(middle, n - 1) > 0.05) low = middle; else high = middle;
  }
  return { n, mean: m, half: low * se, p: se > 0 ? tail(m / se, n - 1) : m === 0 ? 1 : 0 };
}
// The indices that Holm's correction rejects (Scand. J. Statist. 6, 65, 1979), at 5 %.
function holm(ps) {
  const order = ps.map((p, i) => [p, i]).sort((a, b) => a[0] - b[0]), rejected = new Set();
  for (const [tried, [p, i]] of order.entries()) {
    if (p > 0.05 / (ps.length - tried)) break;
    rejected.add(i);
  }
  return rejected;
}
