// The views of the page, by the part of its address after #.

const MAIN = document.querySelector("main"), DIALOG = document.querySelector("dialog");
const MARKS = { AT: "≈ " };
const ARROW = { lower: "↓", higher: "↑" };
const several = unique(DATA.boards.map((b) => b.allowed)).length > 1;
const title = (board) => (several ? `${board.target} · ${board.allowed}` : board.target);
const runsOf = (board) => DATA.runs.filter((r) => r.target === board.target && r.budget === board.budget && r.limits === board.limits);
const value = (run, metric) => (Array.isArray(run.scores[metric]) ? run.scores[metric][0] : null);
const words = (text) => { const parts = text.toLowerCase().split(/\s+/).filter(Boolean); return (s) => parts.every((p) => s.toLowerCase().includes(p)); };
// A method that does not apply to a target has not failed.
const tone = (status) => (["spent", "done"].includes(status) ? null : status === "unsupported" ? "soft" : "failed");
const badge = (status, before = "") => el("span", { class: tone(status) }, before + status.replaceAll("_", " "));
const calls = (run) => Math.max(run.values, run.grads);

// The floor stands in a row of its own.
function scoreCell(cell) {
  if (!cell) return "–";
  const kind = ["score", cell.is === "AT" ? "at" : null, cell.b ? "best" : null].filter(Boolean).join(" ");
  const spread = cell.lo !== cell.hi ? `[${precise(cell.lo, cell.se)}, ${precise(cell.hi, cell.se)}]` : known(cell.se) ? `±${cell.se.toPrecision(1)}` : null;
  return [
    el("span", { class: kind }, `${MARKS[cell.is] ?? ""}${precise(cell.v, cell.se)}`),
    spread ? el("span", { class: "small" }, spread) : null,
    known(cell.n) ? el("span", { class: "small" }, `n ${cell.n}`) : null,
  ];
}
const floorText = (floor) => `${number(floor.mean)}±${number(Number(floor.sd.toPrecision(1)))}`;
const floorCell = (board, metric) => {
  const floor = board.floors[metric];
  if (!floor) return null;
  return [el("span", { class: "score" }, floorText(floor)), board.unfit.includes(metric) ? el("span", { class: "small" }, "too noisy to rank by") : null, ...board.fewer[metric].map((f) => el("span", { class: "small" }, `${floorText(f)}, n ${whole(f.n)}`))];
};
// A long name breaks after these signs, if it must.
const broken = (name) => name.split(/(?<=[_,[=])/).flatMap((part, i) => (i ? [el("wbr"), part] : [part]));
// What a column is sorted by: errors of either sign by their size.
const sized = (metric, cell) => (!cell ? null : DATA.metrics[metric].perfect === "0" && !known(cell.fm) ? Math.abs(cell.v) : cell.v);
const unitOf = (metric) => (DATA.metrics[metric].unit === "1" ? "" : ` (${DATA.metrics[metric].unit})`);
const headOf = (metric) => `${metric}${unitOf(metric)} ${ARROW[DATA.metrics[metric].better]}`;
const hintOf = (metric) => `${DATA.metrics[metric].better} is better`;
function metricsNamed() {
  const have = unique(DATA.boards.flatMap((b) => b.columns));
  return Object.keys(DATA.metrics).filter((m) => have.includes(m));
}
const usual = (metrics) => DATA.distances.find((m) => metrics.includes(m)) ?? metrics[0];
const firstOf = (row, metrics) => metrics.find((m) => row?.cells[m]);
// The choices of the overview that are no single metric: what a cell is made of, and shows.
const EVERY = {
  "the distance to exact draws": { of: () => DATA.distances, show: (row, m) => scoreCell(row.cells[m]) },
  "log Z from every side": { of: () => Object.keys(DATA.sides), show: (row) => Object.entries(DATA.sides).filter(([m]) => row.cells[m])
    .map(([m, side]) => el("span", { class: row.cells[m].b ? "score best" : "score" }, el("span", { class: "side" }, side), ` ${number(row.cells[m].v)}`)) },
};

// --- overview ---

function overview() {
  const metrics = metricsNamed(), place = el("div");
  const draw = (metric) => {
    const samplers = Object.keys(DATA.looks), every = EVERY[metric], choices = every ? every.of() : [metric];
    const rowOf = (board, sampler) => board.rows.find((r) => r.sampler === sampler);
    const named = (board, sampler) => firstOf(rowOf(board, sampler), choices);
    const cellOf = (board, sampler) => rowOf(board, sampler)?.cells[named(board, sampler)];
    const columns = [{ head: "sampler", order: (s) => s, show: broken }];
    DATA.boards.forEach((board, i) => {
      const floored = choices.find((m) => board.floors[m]);
      columns.push({
        head: broken(title(board)), long: title(board).length > 30, exact: floorCell(board, floored),
        order: (s) => sized(named(board, s), cellOf(board, s)),
        show: (s) => {
          const row = rowOf(board, s), c = cellOf(board, s);
          if (row && !c && row.finished < row.runs) return badge(Object.keys(row.ends)[0] ?? "–");
          if (!c) return "–";
          return [every ? every.show(row, named(board, s)) : scoreCell(c), row.behind ? el("span", { class: "small", title: row.behind }, "✗") : null];
        },
        cell: (s) => {
          const c = cellOf(board, s), to = { click: () => { location.hash = `target-${i}`; } };
          if (!c || !known(c.d)) return { class: "clickable", ...to };
          const shade = c.d < 0.5 ? `color-mix(in srgb, var(--middle) ${Math.round(200 * c.d)}%, var(--good))` : `color-mix(in srgb, var(--bad) ${Math.round(200 * c.d - 100)}%, var(--middle))`;
          return { class: "heat clickable", "--shade": shade, ...to };
        },
      });
    });
    place.replaceChildren(table({ label: `${metric} of every sampler on every target`, columns, rows: samplers }).node);
  };
  const joint = Object.keys(EVERY).filter((name) => EVERY[name].of().some((m) => metrics.includes(m)));
  const first = joint[0] ?? usual(metrics);
  if (!first) return [el("h2", {}, "Overview"), el("p", {}, "No run has been scored yet; the runs are all listed under Runs.")];
  draw(first);
  return [
    el("h2", {}, "Overview"),
    el("p", {}, DATA.remarks.join(" ")),
    el("div", { class: "controls" }, choice("Score", [...joint.map((m) => [m, m]), ...metrics.map((m) => [m, headOf(m)])], first, draw)),
    place,
    el("div", { class: "scale" }, el("span", {}, "within the noise floor"), el("i"), el("span", {}, "far above it")),
    el("ul", { class: "reasons soft" },
      el("li", {}, `The scale of colours is the same for every target, and does not depend on what other methods score: ${DATA.scale}`),
      el("li", {}, "A score is the median over seeds; in brackets stand the smallest and the largest seed. The noise floor is what exact draws score: mean ± standard deviation; below it the same of fewer draws (n), where some methods have fewer."),
      el("li", {}, "≈ within the noise floor, as good as exact draws. Bold: not significantly different from the best."),
      el("li", {}, `✗ ${DATA.notBetter}. A head sorts; a cell opens its target.`)),
    DATA.misled.length ? [
      el("h3", {}, "Good by its own paths, bad by exact draws"),
      el("p", { class: "soft" }, "The worst run of each target and method first."),
      el("ul", { class: "reasons" }, DATA.misled.map((s) => el("li", {}, s))),
    ] : null,
  ];
}

// --- one target ---

const HINTS = { rank: "by the worst score, at the end of the budget", calls: "read at the least calls that a method with a network has spent", compute: "read at the least FLOP that a method with a network has spent",
  priced: "with a gradient priced at two calls" };
function leaderboard(board, group, samplers) {
  const columns = [
    { head: "sampler", order: (r) => r.sampler, show: (r) => [
      el("button", { type: "button", class: "name", click: () => openRow(board, r.sampler) }, broken(r.sampler)),
      el("span", { class: "small" }, `${r.finished} of ${r.runs} seeds`, Object.entries(r.ends).map(([end, n]) => [", ", badge(end, `${n} `)]))] },
    ...DATA.ranks.map(({ head, field }) => ({ head, hint: HINTS[field], order: (r) => r.ranks[field],
      show: (r) => [el("span", { class: "score" }, r.ranks[field] ?? "–"), r.ranks[field] === null && r.why ? el("span", { class: "small", title: r.why }, "why: see below") : null] })),
    { head: "worst score / floor", hint: "what ranks go by: the worst score as a multiple of the edge of the noise floor", order: (r) => r.off, exact: board.unknown ? null : [el("span", { class: "score" }, DATA.least)],
      show: (r) => [el("span", { title: r.offs.map((o) => `${o.metric} ${o.off}`).join(", ") || null }, r.worst ?? "–"), r.behind ? el("span", { class: "small", title: r.behind }, "✗ not better than untrained") : null] },
  ];
  const mine = runsOf(board), typical = (sampler, of) => median(mine.filter((r) => r.sampler === sampler && r.finished).map(of).filter(known));
  const spent = (head, of, show, hint) => ({ head, hint, order: (r) => typical(r.sampler, of), show: (r) => show(typical(r.sampler, of)) });
  columns.push({ head: "calls", hint: "the larger of values and gradients in training", order: (r) => r.calls,
    show: (r) => whole(r.calls) });
  if (board.rows.some((r) => known(r.flops))) columns.push({ head: "FLOP", hint: "floating-point operations in training", order: (r) => r.flops, show: (r) => large(r.flops) });
  if (group === "cost") {
    columns.push(
      spent("values", (r) => r.values, whole), spent("grads", (r) => r.grads, whole),
      spent("drawing: values", (r) => r.draw_values, whole), spent("drawing: grads", (r) => r.draw_grads, whole),
      spent("seconds", (r) => r.seconds, number, "of the whole run"), spent("training s", (r) => r.train_seconds, number),
      ...(board.rows.some((r) => known(r.flops)) ? [spent("drawing: flops", (r) => r.draw_flops, large)] : []),
      { head: "ended by", order: (r) => r.ended, show: (r) => r.ended || "–" },
      spent("draws", (r) => r.draws, whole), spent("memory MB", (r) => r.memory, whole), spent("parameters", (r) => r.parameters, whole));
  } else {
    for (const metric of board.columns.filter((m) => DATA.metrics[m].group === group))
      columns.push({
        head: headOf(metric), hint: hintOf(metric),
        exact: floorCell(board, metric),
        order: (r) => sized(metric, r.cells[metric]), show: (r) => scoreCell(r.cells[metric]),
        cell: (r) => ({ class: "clickable", click: () => openRow(board, r.sampler) }),
      });
  }
  return table({ label: `leaderboard of ${board.target}`, columns, rows: board.rows.filter((r) => samplers.has(r.sampler)), sort: { column: 1, up: true } }).node;
}

// Of a target whose truth is unknown: why nobody is ranked, and what samplers say side by side.
function withoutTruth(board) {
  if (!board.unknown) return [];
  const { why, certify, tables } = board.unknown;
  const shown = (cell) => {
    if (!cell || !known(cell.v)) return "–";
    const [error, q] = [known(cell.e) ? ` ± ${number(Number(cell.e.toPrecision(1)))}` : "", cell.q];
    return [el("span", { class: "score" }, `${precise(cell.v, cell.e)}${error}`), q ? el("span", { class: "small" }, q.map(number).join(", ")) : null];
  };
  return [
    el("h3", {}, "Without a truth"),
    el("p", {}, why, certify ? [" ", el("code", {}, `tiltbench reference ${board.target}`), " certifies one from long chains."] : null),
    ...tables.flatMap(({ title: head, note, heads, rows }) => [
      el("h4", {}, head), el("p", { class: "soft" }, note),
      rows.length ? table({ label: head, rows, columns: heads.map((name, i) => (i ? { head: broken(name), order: (r) => r[i]?.v ?? null, show: (r) => shown(r[i]) } : { head: name, order: (r) => r[0], show: (r) => broken(r[0]) })) }).node : null,
    ]),
  ];
}

function troubles(board, samplers) {
  const items = board.said.map(({ text, about, status }) => {
    const groups = new Map();
    for (const [name, what] of Object.entries(about)) if (samplers.has(name)) groups.set(what, [...(groups.get(what) ?? []), name]);
    const by = [...groups].map(([what, names]) => names.join(", ") + (what ? ` (${what})` : "")).join("; ");
    return by ? el("li", { class: status ? tone(status) : null }, `${status ? `${status.replaceAll("_", " ")}: ` : ""}${text}: ${by}`) : null;
  }).filter(Boolean);
  const long = items.length > 6;
  return items.length ? [el("h3", {}, "Marks, failures, dashes and notes"),
    long ? el("details", { open: true }, el("summary", {}, `${items.length} sentences`), el("ul", { class: "reasons" }, items)) : el("ul", { class: "reasons" }, items)] : [];
}

// Curves of a target whose truth is unknown, and whether their axis is level.
const UNJUDGED = [["log_Z_forward", "estimate of log Z (nats)", true], ["elbo", "ELBO (nats)", true], ["ess_model", "effective share of the weights", true], ["ksd", "squared kernel Stein discrepancy"]];

// Medians over seeds; spends of seeds are matched by rank.
function curve(board, key, clock, samplers) {
  const series = [];
  let floor = null, metric = key, measured = true;
  for (const sampler of samplers) {
    const places = [], sizeOf = (v) => (key === "log_Z_err" ? Math.max(Math.abs(v), 1e-3) : v);
    for (const run of runsOf(board).filter((r) => r.sampler === sampler && r.curve)) {
      const c = run.curve, last = c.spend[c.spend.length - 1];
      if (key === "distance") [floor, metric] = [floor ?? c.floor ?? null, c.metric];
      c.spend.forEach((spend, i) => {
        const v = c[key]?.[i];
        let x = clock === "flops" ? c.flops?.[i] : spend;
        if (clock === "seconds") {
          measured &&= Boolean(c.seconds);
          x = c.seconds ? c.seconds[i] : (run.train_seconds * spend) / last;
        }
        if (known(v) && known(x) && x > 0) (places[i] ??= []).push([x, sizeOf(v)]);
      });
    }
    const points = places.filter(Boolean).map((at) => {
      const ys = at.map((p) => p[1]);
      return [median(at.map((p) => p[0])), median(ys), Math.min(...ys), Math.max(...ys)];
    });
    const ends = runsOf(board).filter((r) => r.sampler === sampler).map((r) => value(r, metric)).filter(known).map(sizeOf);
    if (points.length) series.push({ sampler, points, end: median(ends) });
  }
  const whole = board.floors[metric];
  return { series, floor, edge: whole ? whole.mean + 2 * whole.sd : null, measured };
}

const clocksOf = (board) => ["calls", ...(runsOf(board).some((r) => r.curve?.flops) ? ["flops"] : []), "seconds"];
function curves(board, samplers, clock) {
  const name = runsOf(board).find((r) => r.curve)?.curve.metric ?? "energy_distance";
  const xlabel = { seconds: "seconds of training", flops: "flops (operations of training)", calls: "calls (points spent in training)" }[clock];
  const drawn = new Set();
  const made = [["log_Z_err", "|log Z error| (nats)"], ["distance", name], ...UNJUDGED].map(([key, text, level]) => {
    const { series, floor, edge, measured } = curve(board, key, clock, samplers);
    const note = clock === "seconds" && !measured ? "seconds in proportion to calls: these runs did not record them" : null;
    series.forEach((s) => drawn.add(s.sampler));
    return lines({ title: text, series, xlabel, floor, edge, note, level });
  }).filter(Boolean);
  const few = runsOf(board).find((r) => r.curve)?.curve.n;
  const read = board.unknown ? `A curve is scored with ${known(few) ? whole(few) : "few"} draws, the table with all: its score is the open marker at the end. Shaded: all seeds. None of these curves sees what a sampler has missed.` : `A curve is scored with ${known(few) ? whole(few) : "few"} draws, the table with all: its score is the open marker at the end. Grey: what exact draws score, as few as the curve's, ± 2 sd, where the axis is linear. Dotted: the edge of the noise floor of the table. Shaded: all seeds.`;
  return made.length ? [el("div", { class: "wide" }, made), legend([...samplers].filter((s) => drawn.has(s))), el("p", { class: "soft" }, read)] : [el("p", { class: "soft" }, "No run has a learning curve.")];
}

function seedsFigure(board, metric, samplers) {
  const rows = board.rows.filter((r) => samplers.has(r.sampler)).map((row) => ({
    sampler: row.sampler,
    values: runsOf(board).filter((r) => r.sampler === row.sampler).map((r) => value(r, metric)).filter(known),
    edge: row.cells[metric] && known(row.cells[metric].fm) ? row.cells[metric].fm + 2 * row.cells[metric].fs : null,
  }));
  const floored = rows.some((row) => row.edge !== null);
  const signed = DATA.metrics[metric].perfect === "0" && !floored;
  const note = `${DATA.metrics[metric].better} is better${floored ? "; shaded: up to the floor + 2 sd" : ""}`;
  return dots({ title: signed ? `|${metric}|` : metric, rows, note });
}

function pictures(board, view, samplers, seed, statistic) {
  const runs = runsOf(board).filter((r) => r.seed === seed && samplers.has(r.sampler));
  const parts = [], failed = (run) => figure(run.sampler, el("p", { class: `${tone(run.status)} small` }, run.reason ? `${run.status}: ${run.reason}` : run.status));
  if (view.images) {
    parts.push(el("h3", {}, "Draws"), el("p", { class: "soft" }, `Seed ${seed}, the draws as images, spread evenly over the run; values are cut at −1 (black) and 1 (white).`));
    parts.push(el("div", { class: "panels" },
      view.images.exact.length ? sheet(view.images, null, view.images.exact) : null,
      ...runs.map((r) => (view.images.runs[r.id] ? sheet(view.images, r.sampler, view.images.runs[r.id]) : failed(r)))));
  }
  if (view.plane) {
    parts.push(el("h3", {}, "Draws"), el("p", { class: "soft" }, `Seed ${seed}, ${view.plane.what}.`));
    parts.push(el("div", { class: "panels" }, view.plane.exact.points ? cloud(view.plane, null, view.plane.exact) : null,
      runs.map((r) => (view.plane.runs[r.id] ? cloud(view.plane, r.sampler, view.plane.runs[r.id]) : failed(r)))));
  }
  const law = view.laws[statistic];
  if (law) {
    parts.push(el("h3", {}, `Marginals: ${law.title}`), el("p", { class: "soft" }, `Seed ${seed}; outlined: exact draws, where there are any.`));
    parts.push(el("div", { class: "panels" }, runs.map((r) => {
      const own = law.runs[r.id];
      return own ? bars({ sampler: r.sampler, ...law, filled: own, outline: law.exact, note: share(1 - Math.min(1, own.reduce((a, b) => a + b, 0.5) / 1000)) }) : failed(r);
    })));
  }
  const weighted = runs.filter((r) => view.weights[r.id]);
  if (weighted.length) {
    parts.push(el("h3", {}, view.known ? "log w − log Z, from both sides" : "log w"),
      el("p", { class: "soft" }, `Seed ${seed}; filled: forward paths, in nats${view.known ? "; outlined: reverse paths, from exact draws. They cross at 0" : "; the narrower, the better, as far as the paths went"}.`));
    parts.push(el("div", { class: "panels" }, weighted.map((r) => {
      const w = view.weights[r.id];
      return bars({ sampler: r.sampler, ...w, filled: w.forward, outline: w.backward, zero: view.known });
    })));
  }
  return parts;
}

function target(i) {
  const board = DATA.boards[i], view = DATA.views[i];
  const samplers = board.rows.map((r) => r.sampler), runs = runsOf(board);
  const seeds = unique(runs.map((r) => r.seed)).sort((a, b) => a - b);
  const groups = Object.entries(DATA.groups).filter(([g]) => board.columns.some((m) => DATA.metrics[m].group === g));
  const chosen = { group: groups[0]?.[0] ?? "cost", clock: "calls", metric: usual(board.columns), seed: seeds[0], law: 0, test: () => true };
  const [top, middle, low, last, count] = [el("div"), el("div"), el("div"), el("div"), el("p", { class: "soft", role: "status" })];
  const draw = () => {
    const shown = new Set(samplers.filter(chosen.test));
    count.textContent = `${shown.size} of ${samplers.length} samplers shown. A head sorts; a name or a number opens the runs behind it with their provenance.`;
    top.replaceChildren(leaderboard(board, chosen.group, shown));
    last.replaceChildren(...troubles(board, shown));
    const probes = board.columns.filter((m) => DATA.metrics[m].group === "probes");
    middle.replaceChildren(
      el("div", { class: "controls" }, choice("Learning curves against", clocksOf(board).map((c) => [c, c]), chosen.clock, set("clock"))),
      ...curves(board, shown, chosen.clock),
      el("h3", {}, "Seeds"),
      el("div", { class: "controls" }, board.columns.length ? choice("Score", board.columns.map((m) => [m, m]), chosen.metric, set("metric")) : null),
      el("div", { class: "wide" }, chosen.metric ? seedsFigure(board, chosen.metric, shown) ?? "" : ""),
      ...(probes.length ? [el("h3", {}, "Gradient variance and control error"),
        el("div", { class: "wide" }, probes.map((m) => seedsFigure(board, m, shown)).filter(Boolean))] : []));
    low.replaceChildren(
      el("div", { class: "controls" }, choice("Seed of the pictures", seeds.map((s) => [s, s]), chosen.seed, (s) => set("seed")(Number(s))),
        view.laws.length > 1 ? choice("Marginal of", view.laws.map((l, k) => [k, l.title]), chosen.law, (k) => set("law")(Number(k))) : null),
      ...pictures(board, view, shown, chosen.seed, chosen.law));
  };
  const set = (key) => (v) => {
    const label = document.activeElement?.closest?.("label")?.textContent;
    chosen[key] = v;
    draw();
    // the control that was used is made anew: keep the keyboard on it
    if (label && !document.activeElement?.closest?.("label"))
      [...MAIN.querySelectorAll("label")].find((l) => l.textContent === label)?.control?.focus();
  };
  draw();
  const facts = [board.allowance, view.dim ? `${view.dim} dimensions` : null,
    known(view.log_Z) ? `log Z = ${number(view.log_Z)}` : null, view.source ? `truth: ${view.source}` : null].filter(Boolean);
  return [
    el("h2", {}, board.target), el("p", {}, board.remarks.join(" ")), el("p", { class: "soft" }, facts.join(" · ")),
    el("div", { class: "controls" },
      textbox("Filter samplers", "part of a name", (text) => { const test = words(text); chosen.test = test; draw(); }),
      choice("Columns", [...groups, ["cost", "Cost"]], chosen.group, set("group"))),
    count, top, withoutTruth(board),
    el("h3", {}, "Learning curves"), middle, low, last,
  ];
}

// --- two methods ---

function compare() {
  const state = { board: 0, a: null, b: null, clock: "calls" }, place = el("div"), controls = el("div", { class: "controls" });
  const draw = () => {
    const board = DATA.boards[state.board], view = DATA.views[state.board];
    const names = board.rows.map((r) => r.sampler);
    if (!names.includes(state.a)) state.a = names[0];
    if (!names.includes(state.b)) state.b = names.find((n) => n !== state.a) ?? names[0];
    const pick = (key) => choice(key === "a" ? "Method A" : "Method B", names.map((n) => [n, n]), state[key], (n) => { state[key] = n; again(key); });
    controls.replaceChildren(choice("Target", DATA.boards.map((b, i) => [i, title(b)]), state.board, (i) => { state.board = Number(i); again("board"); }), pick("a"), pick("b"));
    const of = (name) => board.rows.find((r) => r.sampler === name);
    const rows = board.columns.map((metric) => {
      const [ca, cb] = [of(state.a).cells[metric], of(state.b).cells[metric]];
      const seedsOf = (name) => new Map(runsOf(board).filter((r) => r.sampler === name).map((r) => [r.seed, value(r, metric)]));
      const [va, vb] = [seedsOf(state.a), seedsOf(state.b)];
      const signed = DATA.metrics[metric].perfect === "0" && !known(ca?.fm) && !known(cb?.fm);
      const merit = (v) => (signed ? Math.abs(v) : v);
      const differences = [...va].filter(([s, v]) => known(v) && known(vb.get(s))).map(([s, v]) => merit(v) - merit(vb.get(s)));
      const untested = !DATA.metrics[metric].perfect ? "reported, not ranked"
        : ca?.is === "AT" && cb?.is === "AT" ? "both within the noise floor"
        : [ca, cb].some((c) => c?.is === "BELOW") ? "a score better than exact draws is no merit"
        : [ca, cb].some((c) => c?.is === "UNFIT") ? "floor too noisy" : null;
      return { metric, ca, cb, test: paired(differences), untested };
    });
    const tested = rows.filter((r) => r.test.p !== null && !r.untested), rejected = holm(tested.map((r) => r.test.p));
    tested.forEach((r, i) => { r.significant = rejected.has(i); });
    const verdict = (r) => {
      if (r.untested) return r.untested;
      if (r.test.p === null) return "fewer than three common seeds";
      if (!r.significant) return "not significantly different";
      return (r.test.mean < 0) === (DATA.metrics[r.metric].better === "lower") ? "A better" : "B better";
    };
    const columns = [
      { head: "score", order: (r) => r.metric, show: (r) => headOf(r.metric) },
      { head: "A", hint: state.a, order: (r) => sized(r.metric, r.ca), show: (r) => scoreCell(r.ca) },
      { head: "B", hint: state.b, order: (r) => sized(r.metric, r.cb), show: (r) => scoreCell(r.cb) },
      { head: "mean of A − B", hint: "over common seeds, with its 95 % interval; of errors of either sign, their sizes", order: (r) => r.test.mean,
        show: (r) => [number(r.test.mean), r.test.half !== null ? el("span", { class: "small" }, ` ±${number(r.test.half)}`) : null] },
      { head: "seeds", order: (r) => r.test.n, show: (r) => r.test.n },
      { head: "p", hint: "paired t, two-sided, before correction", order: (r) => r.test.p, show: (r) => (r.test.p === null ? "–" : r.test.p < 1e-4 ? "< .0001" : r.test.p.toFixed(4)) },
      { head: "verdict", order: verdict, words: true, show: (r) => el("span", { class: /better/.test(verdict(r)) ? "best" : null }, verdict(r)) },
    ];
    const both = new Set([state.a, state.b]);
    place.replaceChildren(
      el("p", {}, el("b", {}, "A"), ` ${state.a}, `, el("b", {}, "B"), ` ${state.b}, on ${title(board)}`),
      table({ label: "paired tests", columns, rows }).node,
      el("p", { class: "soft" }, `Paired t over common seeds, two-sided; verdicts after Holm's correction over the ${tested.length} scores tested here, at 5 %. With three seeds only large differences are significant.`),
      ...clocksOf(board).flatMap((clock) => curves(board, both, clock)),
      ...pictures(board, view, both, Math.min(...runsOf(board).map((r) => r.seed)), 0));
  };
  const again = (key) => { draw(); controls.querySelectorAll("select")[["board", "a", "b"].indexOf(key)].focus(); };
  draw();
  return [el("h2", {}, "Two methods side by side"), controls, place];
}

// --- every run ---

function runs() {
  const origin = (r) => DATA.origins[r.origin];
  const columns = [
    { head: "run", order: (r) => r.id, show: (r) => el("button", { type: "button", class: "name", click: () => openRuns(`run ${r.id}`, [r]) }, r.id) },
    { head: "target", words: true, order: (r) => r.target, show: (r) => r.target },
    { head: "sampler", words: true, order: (r) => r.sampler, show: (r) => r.sampler },
    { head: "budget", order: (r) => r.budget, show: (r) => DATA.boards.find((b) => b.target === r.target && b.budget === r.budget && b.limits === r.limits).allowed },
    { head: "seed", order: (r) => r.seed, show: (r) => r.seed },
    { head: "status", words: true, order: (r) => r.status, show: (r) => badge(r.status) },
    { head: "calls", order: calls, show: (r) => whole(calls(r)) },
    ...(DATA.runs.some((r) => known(r.flops)) ? [{ head: "flops", order: (r) => r.flops, show: (r) => large(r.flops) }] : []),
    { head: "seconds", order: (r) => r.seconds, show: (r) => number(r.seconds) },
    { head: "commit", words: true, order: (r) => origin(r).code.commit, show: (r) => commit(origin(r)) },
    { head: "reason", words: true, order: (r) => r.reason, show: (r) => r.reason, cell: () => ({ class: "words break" }) },
  ];
  const made = table({ label: "every run", columns, rows: DATA.runs, tall: true });
  const count = el("p", { class: "soft", role: "status" });
  const state = { text: "", status: "" };
  const filter = () => {
    const test = words(state.text);
    const shown = made.filter((r) => (!state.status || r.status === state.status) && test(`${r.id} ${r.target} ${r.sampler} seed ${r.seed} ${r.status} ${r.reason}`));
    count.textContent = `${shown} of ${DATA.runs.length} runs shown`;
  };
  filter();
  return [
    el("h2", {}, "Runs"),
    el("div", { class: "controls" },
      textbox("Filter runs", "target, sampler, status, message", (text) => { state.text = text; filter(); }),
      choice("Status", [["", "all"], ...unique(DATA.runs.map((r) => r.status)).map((s) => [s, s.replaceAll("_", " ")])], "", (s) => { state.status = s; filter(); })),
    count, made.node,
  ];
}

// --- where from ---

const commit = ({ code }) => (code.commit ? `${String(code.commit).slice(0, 12)}${code.dirty ? " + changes" : ""}` : "no commit");
function originList({ code, env }) {
  const item = (name, text) => (text ? [el("dt", {}, name), el("dd", {}, text)] : []);
  return el("dl", {},
    item("commit", `${code.commit ?? "none"}${code.dirty ? " with local changes" : ""}`),
    item("tiltbench", `${code.version ?? "?"}, source hash ${code.hash ?? "?"}`),
    item("plug-ins", Object.entries(code.plugins ?? {}).map(([path, hash]) => `${path} ${hash}`).join(", ")),
    item("libraries", ["torch", "numpy", "python"].filter((k) => env[k]).map((k) => `${k} ${env[k]}`).join(", ")),
    item("machine", [env.device_name ?? env.device, env.cores ? `${env.cores} cores` : null, env.threads ? `${env.threads} thread(s) a run` : null, env.os,
      ...["CUDA", "cuDNN", "driver"].map((k) => (env[k.toLowerCase()] ? `${k} ${env[k.toLowerCase()]}` : null)),
      "tf32" in env ? (env.tf32 ? "TF32 allowed" : "no TF32") : null].filter(Boolean).join(", ")));
}

function openRow(board, sampler) {
  openRuns(`${sampler} on ${title(board)}`, runsOf(board).filter((r) => r.sampler === sampler));
}
function openRuns(head, chosen) {
  const every = unique(chosen.flatMap((r) => Object.keys(r.scores)));
  const metrics = every.filter((m) => chosen.some((r) => value(r, m) !== null));
  const whys = new Map();
  for (const m of every.filter((m) => !metrics.includes(m))) {
    const why = unique(chosen.map((r) => DATA.texts[r.scores[m]]).filter(Boolean)).join("; ");
    whys.set(why, [...(whys.get(why) ?? []), m]);
  }
  const without = [...whys].map(([why, names]) => el("li", {}, `${why}: ${names.join(", ")}`));
  const shown = (run, metric) => {
    const score = run.scores[metric];
    if (score === undefined) return "–";
    if (!Array.isArray(score)) return el("span", { class: "small", title: DATA.texts[score] }, DATA.texts[score] || "–");
    return [number(score[0]), known(score[1]) ? ` ±${score[1].toPrecision(1)}` : "", el("span", { class: "small" }, ` n ${whole(score[2])}`)];
  };
  const columns = [{ head: "score", order: (m) => metrics.indexOf(m), show: (m) => m },
    ...chosen.map((r) => ({ head: `seed ${r.seed}`, show: (m) => shown(r, m), order: (m) => value(r, m) }))];
  const origins = unique(chosen.map((r) => r.origin));
  const close = el("button", { type: "button", click: () => DIALOG.close() }, "Close");
  DIALOG.replaceChildren(
    el("header", {}, el("h2", { id: "dialog-title" }, head), close),
    metrics.length ? table({ label: "scores by seed", columns, rows: metrics }).node : el("p", {}, "These runs have no scores."),
    without.length ? el("details", {}, el("summary", {}, `${every.length - metrics.length} scores without a number`), el("ul", { class: "reasons" }, without)) : "",
    el("h3", {}, "Provenance"),
    ...origins.map((o) => originList(DATA.origins[o])),
    ...chosen.map((r) => el("div", {},
      el("p", { class: "soft" }, `seed ${r.seed}: run ${r.id}, `, badge(r.status), `, ${whole(r.values)} values and ${whole(r.grads)} gradients in training, ${number(r.seconds)} s, target version ${r.version}`),
      r.reason ? el("p", { class: "failed" }, r.reason) : null,
      r.notes.length ? el("p", { class: "soft" }, r.notes.join("; ")) : null,
      r.traceback ? el("details", {}, el("summary", {}, "Traceback"), el("pre", {}, r.traceback)) : null,
      r.command ? el("pre", {}, r.command) : null)),
    DATA.command ? el("p", { class: "soft" }, "The command of the whole folder: ", el("code", {}, DATA.command)) : null);
  DIALOG.showModal();
  DIALOG.scrollTop = 0;
}

function reading() {
  const plain = (s) => s.replace(/\*\*|`|(?<!\w)\*|\*(?!\w)/g, "");
  const sections = DATA.legend.split(/^### /m).filter(Boolean).map((section) => section.split("\n").filter(Boolean));
  return [
    el("h2", {}, "How to read this"),
    ...sections.flatMap(([head, ...items]) => [el("h3", {}, head), el("ul", { class: "reasons" }, items.map((s) => el("li", {}, plain(s.replace(/^- /, "")))))]),
    el("h2", {}, "Provenance"),
    DATA.command ? [el("p", {}, "The command:"), el("pre", {}, DATA.command)] : null,
    ...DATA.origins.map((o, i) => [el("p", { class: "soft" }, `${DATA.runs.filter((r) => r.origin === i).length} runs:`), originList(o)]).flat(),
  ];
}

// --- which view ---

const VIEWS = [["overview", "Overview", overview],
  ...DATA.boards.map((board, i) => [`target-${i}`, title(board), () => target(i)]),
  ["compare", "Compare", compare], ["runs", "Runs", runs], ["reading", "How to read", reading]];

function show() {
  const name = location.hash.slice(1) || "overview";
  const [key, , view] = VIEWS.find(([k]) => k === name) ?? VIEWS[0];
  document.querySelector("nav").replaceChildren(...VIEWS.map(([k, text]) => el("a", { href: `#${k}`, "aria-current": k === key ? "page" : null }, text)));
  MAIN.replaceChildren(...view().flat(2).filter((part) => part !== null && part !== undefined));
  document.querySelector("nav [aria-current]").scrollIntoView({ block: "nearest", inline: "nearest" });
}
addEventListener("hashchange", () => { show(); scrollTo(0, 0); MAIN.focus({ preventScroll: true }); });
const endings = DATA.runs.map((r) => (r.finished ? "finished" : r.status.replaceAll("_", " ")));
document.getElementById("counts").textContent =
  `${DATA.runs.length} runs: ${unique(endings).map((end) => `${endings.filter((e) => e === end).length} ${end}`).join(", ")}; ${DATA.boards.length} leaderboards`;
show();
