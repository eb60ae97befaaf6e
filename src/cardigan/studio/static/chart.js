// Line charts on a canvas: mean with minimum and maximum, exact values at the pointer, zoom by dragging.
import { h, formatNumber, formatCompact } from "./dom.js";

const HEIGHT = 188, LEFT = 46, RIGHT = 10, TOP = 8, BOTTOM = 22;
/** Fraction of a band's lowest and highest values that may lie beyond the axis. */
const CLIPPED_FRACTION = 0.01;

/** A robust axis ends at this multiple of the median, because the first scores of a run are far above all others. */
const ROBUST_MEDIANS = 3, ROBUST_MIN_COUNT = 4;

/** A color of the current theme. */
export const themeColor = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

/** Round numbers that divide [low, high] into about `count` parts. */
export function ticks(low, high, count) {
  const raw = (high - low) / count;
  if (!(raw > 0) || !Number.isFinite(raw)) return [low];
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = power * [1, 2, 2.5, 5, 10].find((each) => each * power >= raw);
  const first = Math.ceil(low / step - 1e-9), last = Math.min(first + 3 * count, Math.floor(high / step + 1e-9));
  return Array.from({ length: Math.max(0, last - first + 1) }, (_, index) => Number(((first + index) * step).toPrecision(12)));
}

/** The numbers as text, with as many digits as they need to be different. */
export function tickLabels(values, format) {
  let labels = [];
  for (let digits = 3; digits <= 12; digits++) {
    labels = values.map((value) => format(value, digits));
    if (new Set(labels).size === new Set(values).size) break;
  }
  return labels;
}

function logTicks(low, high) {
  const found = [];
  for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power++) for (const digit of [1, 2, 5]) found.push(digit * 10 ** power);
  const inside = found.filter((value) => value >= low && value <= high);
  return inside.length > 5 ? inside.filter((value) => Math.abs(Math.log10(value) % 1) < 1e-9) : inside;
}

/** Exponential moving average without bias toward zero at the start. `amount` is the decay, 0 (none) to 0.99. */
export function exponentialMovingAverage(values, amount) {
  if (!amount) return values;
  let sum = 0, weight = 0;
  return values.map((value) => {
    if (value === null || !Number.isFinite(value)) return value;
    sum = sum * amount + value * (1 - amount);
    weight = weight * amount + (1 - amount);
    return sum / weight;
  });
}

/** The largest value that a robust axis shows. Values are positive; nulls are ignored. */
export function robustLimit(values) {
  const sorted = values.filter((value) => value !== null && value !== undefined && Number.isFinite(value)).sort((a, b) => a - b);
  if (sorted.length < ROBUST_MIN_COUNT || sorted[0] < 0) return Infinity;
  return ROBUST_MEDIANS * sorted[Math.floor((sorted.length - 1) / 2)];
}

/** Index of the entry of ascending `xs` nearest to `x`. */
export function nearestIndex(xs, x) {
  let low = 0, high = xs.length - 1;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (xs[middle] < x) low = middle + 1;
    else high = middle;
  }
  return low > 0 && Math.abs(xs[low - 1] - x) <= Math.abs(xs[low] - x) ? low - 1 : low;
}

/**
 * One chart. `lines` are [{name, label, color}], replaced by `setLines(lines)`. `setData({x, series: {name: {mean, low, high}}, marks})` sets the values,
 * `setView({smooth, log, range, axis})` their display. `onZoom([from, to] | null)` and `onPoint(x | null)` report the user's actions.
 */
export function lineChart({ title, lines, onZoom, onPoint, dots = false, robust = false, unit = "" }) {
  const canvas = h("canvas", { height: HEIGHT, "aria-hidden": "true" });
  let values = [];
  const legend = h("ul", { class: "legend" });
  const setLines = (next) => {
    lines = next;
    values = lines.map(() => ({ value: h("b"), range: h("small") }));
    legend.replaceChildren(...lines.map((line, index) => h("li", { data: { color: line.color, dash: line.dash ? "1" : "0" } }, h("span", { class: "name" }, line.label), values[index].value, values[index].range)));
  };
  setLines(lines);
  const at = h("span", { class: "at" });
  const box = h("div", { class: "chart", tabindex: 0, role: "group", "aria-roledescription": "chart", "aria-label": title }, canvas);
  const spoken = h("span", { class: "visually-hidden", "aria-live": "polite" });
  const element = h("figure", { class: "panel" }, h("figcaption", {}, h("h3", {}, title), at), legend, box, spoken);
  let data = { x: [], series: {}, marks: [] }, view = { smooth: 0, log: false, range: null, axis: "images" }, cursor = null, drag = null, due = 0, scale = null, smooth = {};

  const visible = () => {
    const xs = data.x;
    if (!xs.length) return [0, -1];
    if (!view.range) return [0, xs.length - 1];
    let first = nearestIndex(xs, view.range[0]), last = nearestIndex(xs, view.range[1]);
    return [Math.max(0, first - 1), Math.min(xs.length - 1, last + 1)];
  };
  const draw = () => {
    if (due) return;
    due = requestAnimationFrame(() => ((due = 0), redraw()));
  };

  const smoothOf = (line) => (smooth[line.name] ??= exponentialMovingAverage(data.series[line.name].mean, dots ? 0 : view.smooth)); // single measurements are not smoothed

  function extent(first, last) {
    let low = Infinity, high = -Infinity;
    const widen = (value) => {
      if (value === null || value === undefined || !Number.isFinite(value) || (view.log && value <= 0)) return;
      if (value < low) low = value;
      if (value > high) high = value;
    };
    for (const line of lines) {
      const each = data.series[line.name];
      if (!each) continue;
      const mean = smoothOf(line);
      for (let index = first; index <= last; index++) widen(mean[index]);
      for (const [list, part] of [[each.low, CLIPPED_FRACTION], [each.high, 1 - CLIPPED_FRACTION]]) { // outliers must not flatten the rest
        const sorted = list.slice(first, last + 1).filter((value) => value !== null && value !== undefined).sort((a, b) => a - b);
        widen(sorted[Math.round(part * (sorted.length - 1))]);
      }
    }
    if (low > high) return null;
    if (robust && !view.log) high = Math.min(high, robustLimit(lines.flatMap((line) => measured(data.series[line.name]).slice(first, last + 1))));
    if (view.log) return low === high ? [low / 2, high * 2] : [low * 0.9, high * 1.1];
    const span = high - low > 1e-9 * Math.max(Math.abs(low), Math.abs(high)) ? high - low : 0; // ignore rounding errors
    const room = (span || Math.abs(high) || 1) * 0.06;
    return [low - room, high + room];
  }

  /** The values of a line, null where it was not measured. */
  const measured = (each) => (each?.mean ?? []).map((value, index) => (each.dots?.[index] === false ? null : value));

  function redraw() {
    const width = box.clientWidth;
    if (!width) return;
    const ratio = devicePixelRatio;
    if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(HEIGHT * ratio)) {
      canvas.width = Math.round(width * ratio);
      canvas.height = Math.round(HEIGHT * ratio);
    }
    const ctx = canvas.getContext("2d");
    ctx.setTransform(ratio, 0, 0, ratio, 0, 0);
    ctx.clearRect(0, 0, width, HEIGHT);
    ctx.font = "11px Plex, system-ui, sans-serif";
    const [first, last] = visible();
    const range = first <= last ? extent(first, last) : null;
    const ink = themeColor("muted"), rule = themeColor("rule");
    if (!range) {
      ctx.fillStyle = ink;
      ctx.textAlign = "center";
      ctx.fillText(view.log ? "no positive values" : "no values yet", width / 2, HEIGHT / 2);
      scale = null;
      return;
    }
    let [from, to] = view.range ?? [data.x[0], data.x[data.x.length - 1]];
    if (from === to) to = from + 1;
    const x = (value) => LEFT + ((value - from) / (to - from)) * (width - LEFT - RIGHT);
    const fold = view.log ? Math.log10 : (value) => value;
    const [bottom, top] = [fold(range[0]), fold(range[1])];
    const y = (value) => TOP + (1 - (fold(value) - bottom) / (top - bottom)) * (HEIGHT - TOP - BOTTOM);
    scale = { x, from, to, width };
    drawAxes(ctx, { x, y, from, to, range, width, ink, rule });
    ctx.save();
    ctx.beginPath();
    ctx.rect(LEFT, TOP - 2, width - LEFT - RIGHT, HEIGHT - TOP - BOTTOM + 4);
    ctx.clip();
    for (const mark of data.marks ?? []) drawMarker(ctx, x(mark.x), mark);
    for (const line of lines) drawCurve(ctx, line, first, last, x, y);
    ctx.restore();
    drawBest(ctx, { x, y, from, to, width });
    if (drag && Math.abs(drag.to - drag.from) > 3) {
      ctx.fillStyle = themeColor("select");
      ctx.fillRect(Math.min(drag.from, drag.to), TOP, Math.abs(drag.to - drag.from), HEIGHT - TOP - BOTTOM);
    }
    updateLegend(ctx, x, y);
  }

  function drawAxes(ctx, { x, y, from, to, range, width, ink, rule }) {
    ctx.lineWidth = 1;
    ctx.fillStyle = ink;
    ctx.textBaseline = "middle";
    ctx.textAlign = "right";
    const up = view.log ? logTicks(...range) : ticks(range[0], range[1], 4), upLabels = tickLabels(up, formatCompact);
    for (const [index, value] of up.entries()) {
      const at = Math.round(y(value)) + 0.5;
      if (at < TOP - 2 || at > HEIGHT - BOTTOM + 2) continue;
      ctx.strokeStyle = rule;
      ctx.beginPath();
      ctx.moveTo(LEFT, at);
      ctx.lineTo(width - RIGHT, at);
      ctx.stroke();
      ctx.fillText(upLabels[index], LEFT - 6, at);
    }
    ctx.textBaseline = "alphabetic";
    ctx.textAlign = "center";
    const along = ticks(from, to, Math.max(2, Math.floor(width / 72)));
    const alongLabels = tickLabels(along, view.axis === "seconds" ? formatElapsed : formatCompact);
    for (const [index, value] of along.entries()) {
      const words = alongLabels[index];
      const half = ctx.measureText(words).width / 2;
      ctx.fillText(words, Math.min(width - RIGHT - half, Math.max(LEFT + half, x(value))), HEIGHT - 6);
    }
  }

  function drawCurve(ctx, line, first, last, x, y) {
    const each = data.series[line.name];
    if (!each) return;
    const mean = smoothOf(line);
    const tint = themeColor(line.color), columns = bucketed(each, mean, first, last, x);
    if (!columns.length) return;
    const drawable = (value) => (view.log && value <= 0 ? null : value);
    ctx.fillStyle = tint;
    ctx.globalAlpha = 0.16;
    ctx.beginPath();
    columns.forEach(([at, , , high], index) => ctx[index ? "lineTo" : "moveTo"](at, y(drawable(high) ?? 1e-12)));
    for (let index = columns.length - 1; index >= 0; index--) ctx.lineTo(columns[index][0], Math.min(HEIGHT, y(drawable(columns[index][2]) ?? 1e-12)));
    ctx.fill();
    ctx.globalAlpha = 1;
    ctx.strokeStyle = tint;
    ctx.lineWidth = 1.6;
    ctx.lineJoin = "round";
    ctx.setLineDash(line.dash ? [7, 4] : []);
    ctx.beginPath();
    columns.forEach(([at, value], index) => drawable(value) !== null && ctx[index ? "lineTo" : "moveTo"](at, y(value)));
    ctx.stroke();
    ctx.setLineDash([]);
    if (!dots && columns.length > 1) return;
    measured(each).forEach((value, index) => {
      if (index < first || index > last || value === null || value === undefined || drawable(value) === null) return;
      const at = x(data.x[index]);
      ctx.beginPath();
      if (y(value) < TOP - 2) ctx.moveTo(at - 4, TOP + 5), ctx.lineTo(at + 4, TOP + 5), ctx.lineTo(at, TOP - 1); // above the axis
      else ctx.arc(at, y(value), 2.5, 0, 7);
      ctx.fill();
    });
  }

  /** Mark the best value with a ring and its number. */
  function drawBest(ctx, { x, y, from, to, width }) {
    const { best } = data;
    if (!best || best.x < from || best.x > to || (view.log && best.y <= 0)) return;
    const at = x(best.x), words = `best ${formatNumber(best.y)}`, ends = at + ctx.measureText(words).width + 12 > width - RIGHT;
    ctx.strokeStyle = ctx.fillStyle = themeColor("ink");
    ctx.lineWidth = 1.5;
    ctx.beginPath();
    ctx.arc(at, y(best.y), 5, 0, 7);
    ctx.stroke();
    ctx.textAlign = ends ? "right" : "left";
    ctx.textBaseline = "bottom";
    const [left, bottom] = [at + (ends ? -8 : 8), Math.max(TOP + 12, y(best.y) - 6)];
    ctx.lineWidth = 4;
    ctx.strokeStyle = themeColor("surface");
    ctx.strokeText(words, left, bottom); // readable on top of curves
    ctx.fillText(words, left, bottom);
    ctx.textBaseline = "alphabetic";
  }

  /** At most one [x, mean, minimum, maximum] per pixel, so that 100,000 points draw as fast as 500. */
  function bucketed(each, mean, first, last, x) {
    const columns = [];
    let pixel = -Infinity, count = 0, now = null;
    for (let index = first; index <= last; index++) {
      const value = mean[index];
      if (value === null || value === undefined || !Number.isFinite(value)) continue;
      const at = x(data.x[index]);
      if (at - pixel >= 1 || !now) {
        if (now) now[1] /= count;
        columns.push((now = [at, value, each.low[index], each.high[index]]));
        pixel = at;
        count = 1;
      } else {
        now[1] += value;
        count++;
        if (each.low[index] < now[2]) now[2] = each.low[index];
        if (each.high[index] > now[3]) now[3] = each.high[index];
      }
    }
    if (now) now[1] /= count;
    return columns;
  }

  function drawMarker(ctx, at, mark) {
    ctx.strokeStyle = themeColor(mark.color);
    ctx.lineWidth = 1;
    ctx.setLineDash([3, 3]);
    ctx.beginPath();
    ctx.moveTo(Math.round(at) + 0.5, TOP);
    ctx.lineTo(Math.round(at) + 0.5, HEIGHT - BOTTOM);
    ctx.stroke();
    ctx.setLineDash([]);
  }

  function updateLegend(ctx, x, y) {
    const index = cursor === null || !data.x.length ? -1 : nearestIndex(data.x, cursor);
    const where = index < 0 ? null : data.x[index];
    at.textContent = where === null ? "" : view.axis === "seconds" ? formatElapsed(where) : `${Math.round(where).toLocaleString("en")} images`;
    if (where !== null) {
      ctx.strokeStyle = themeColor("muted");
      ctx.lineWidth = 1;
      ctx.beginPath();
      ctx.moveTo(Math.round(x(where)) + 0.5, TOP);
      ctx.lineTo(Math.round(x(where)) + 0.5, HEIGHT - BOTTOM);
      ctx.stroke();
    }
    lines.forEach((line, which) => {
      const each = data.series[line.name];
      const here = each ? (index < 0 ? lastValueIndex(each.mean) : index) : -1;
      const value = each?.mean[here];
      values[which].value.textContent = value === null || value === undefined ? "–" : formatNumber(value) + unit;
      const [low, high] = [each?.low[here], each?.high[here]];
      values[which].range.textContent = index >= 0 && value != null && low !== high ? `${formatNumber(low)} … ${formatNumber(high)}` : "";
      if (index < 0 || value == null || (view.log && value <= 0)) return;
      ctx.fillStyle = themeColor(line.color);
      ctx.beginPath();
      ctx.arc(x(where), y((smooth[line.name] ?? each.mean)[here] ?? value), 3, 0, 7);
      ctx.fill();
    });
  }

  const speak = () => (spoken.textContent = `${at.textContent}: ${lines.map((line, index) => `${line.label} ${values[index].value.textContent}`).join(", ")}`);
  const invert = (pixel) => scale && scale.from + ((pixel - LEFT) / (scale.width - LEFT - RIGHT)) * (scale.to - scale.from);
  const inside = (event) => Math.min(canvas.clientWidth - RIGHT, Math.max(LEFT, event.clientX - canvas.getBoundingClientRect().left));
  const point = (x) => (onPoint ? onPoint(x) : ((cursor = x), draw()));
  box.addEventListener("pointermove", (event) => {
    if (drag) drag.to = inside(event);
    if (scale) point(invert(inside(event)));
  });
  box.addEventListener("pointerleave", () => !drag && point(null));
  box.addEventListener("pointerdown", (event) => {
    if (event.button || event.pointerType === "touch" || !scale) return;
    box.setPointerCapture(event.pointerId);
    drag = { from: inside(event), to: inside(event) };
  });
  box.addEventListener("pointerup", () => {
    const done = drag;
    drag = null;
    if (done && Math.abs(done.to - done.from) > 6) onZoom([invert(Math.min(done.from, done.to)), invert(Math.max(done.from, done.to))]);
    else draw();
  });
  box.addEventListener("pointercancel", () => ((drag = null), draw()));
  box.addEventListener("dblclick", () => onZoom(null));
  box.addEventListener("blur", () => point(null));
  box.addEventListener("keydown", (event) => {
    const [first, last] = visible();
    if (last < first || event.ctrlKey || event.metaKey) return;
    const now = cursor === null ? last : nearestIndex(data.x, cursor), step = event.shiftKey ? 10 : 1;
    const next = { ArrowLeft: now - step, ArrowRight: now + step, Home: first, End: last }[event.key];
    if (next !== undefined) {
      point(data.x[Math.min(last, Math.max(first, next))]);
      requestAnimationFrame(() => requestAnimationFrame(speak));
    } else if (event.key === "+" || event.key === "=") zoomAround(data.x[now], 0.5);
    else if (event.key === "-") zoomAround(data.x[now], 2);
    else if (event.key === "Escape") onZoom(null);
    else return;
    event.preventDefault();
  });
  function zoomAround(x, factor) {
    const half = ((scale?.to ?? 0) - (scale?.from ?? 0)) * factor * 0.5;
    const [low, high] = [data.x[0], data.x[data.x.length - 1]];
    onZoom(x - half <= low && x + half >= high ? null : [Math.max(low, x - half), Math.min(high, x + half)]);
  }

  new ResizeObserver(draw).observe(box);
  return {
    element, setLines,
    has: (name) => lines.some((line) => line.name === name),
    setData: (next) => ((data = next), (smooth = {}), draw()),
    setView: (next) => ((smooth = next.smooth === view.smooth ? smooth : {}), (view = next), draw()),
    point: (x) => ((cursor = x), draw()),
    draw,
  };
}

/** With 3 digits seconds are whole; more digits are decimals. */
export function formatElapsed(seconds, digits = 3) {
  if (seconds < 120) return `${Number(seconds.toFixed(digits - 3))} s`;
  if (seconds < 7200) return `${Number((seconds / 60).toPrecision(digits))} min`;
  return `${Number((seconds / 3600).toPrecision(digits))} h`;
}

/** Index of the last number in a list, -1 if there is none. */
function lastValueIndex(values) {
  let index = values.length - 1;
  while (index >= 0 && values[index] === null) index--;
  return index;
}
