// Curves on a canvas: a mean with its least and greatest values, exact numbers under the pointer, zoom by dragging. Knows no run.
import { h, number, short } from "./dom.js";

const HEIGHT = 188, LEFT = 46, RIGHT = 10, TOP = 8, BOTTOM = 22;
/** The share of a band's ends that may lie beyond the axis. */
const OUTSIDE = 0.01;

/** A colour of the theme in force. */
export const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

/** Round numbers that cut [low, high] into about `count` parts. */
export function ticks(low, high, count) {
  const raw = (high - low) / count;
  if (!(raw > 0) || !Number.isFinite(raw)) return [low];
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = power * [1, 2, 2.5, 5, 10].find((each) => each * power >= raw);
  const first = Math.ceil(low / step - 1e-9), last = Math.min(first + 3 * count, Math.floor(high / step + 1e-9));
  return Array.from({ length: Math.max(0, last - first + 1) }, (_, index) => Number(((first + index) * step).toPrecision(12)));
}

function logTicks(low, high) {
  const found = [];
  for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power++) for (const digit of [1, 2, 5]) found.push(digit * 10 ** power);
  const inside = found.filter((value) => value >= low && value <= high);
  return inside.length > 5 ? inside.filter((value) => Math.abs(Math.log10(value) % 1) < 1e-9) : inside;
}

/** Average with what came before, the older the less; the first values are not pulled to zero. `amount` from 0 (none) to 0.99. */
export function smoothed(values, amount) {
  if (!amount) return values;
  let sum = 0, weight = 0;
  return values.map((value) => {
    if (value === null || !Number.isFinite(value)) return value;
    sum = sum * amount + value * (1 - amount);
    weight = weight * amount + (1 - amount);
    return sum / weight;
  });
}

/** Index of the entry of ascending `xs` nearest to `x`. */
export function nearest(xs, x) {
  let low = 0, high = xs.length - 1;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (xs[middle] < x) low = middle + 1;
    else high = middle;
  }
  return low > 0 && Math.abs(xs[low - 1] - x) <= Math.abs(xs[low] - x) ? low - 1 : low;
}

/**
 * One chart. `lines` are [{name, words, colour}], and others after `list(lines)`; `feed({x, series: {name: {mean, low, high}}, marks})` gives it numbers;
 * `look({smooth, log, range, axis})` says how to show them. `zoomed([from, to] | null)` and `pointed(x | null)` report what the user did.
 */
export function lineChart({ title, lines, zoomed, pointed, dots = false, unit = "" }) {
  const canvas = h("canvas", { height: HEIGHT, "aria-hidden": "true" });
  let values = [];
  const legend = h("ul", { class: "legend" });
  const list = (next) => {
    lines = next;
    values = lines.map(() => ({ value: h("b"), range: h("small") }));
    legend.replaceChildren(...lines.map((line, index) => h("li", { data: { colour: line.colour } }, h("span", { class: "name" }, line.words), values[index].value, values[index].range)));
  };
  list(lines);
  const at = h("span", { class: "at" });
  const box = h("div", { class: "chart", tabindex: 0, role: "group", "aria-roledescription": "chart", "aria-label": title }, canvas);
  const spoken = h("span", { class: "unseen", "aria-live": "polite" });
  const element = h("figure", { class: "panel" }, h("figcaption", {}, h("h3", {}, title), at), legend, box, spoken);
  let data = { x: [], series: {}, marks: [] }, how = { smooth: 0, log: false, range: null, axis: "images" }, cursor = null, drag = null, due = 0, scale = null, smooth = {};

  const visible = () => {
    const xs = data.x;
    if (!xs.length) return [0, -1];
    if (!how.range) return [0, xs.length - 1];
    let first = nearest(xs, how.range[0]), last = nearest(xs, how.range[1]);
    return [Math.max(0, first - 1), Math.min(xs.length - 1, last + 1)];
  };
  const draw = () => {
    if (due) return;
    due = requestAnimationFrame(() => ((due = 0), redraw()));
  };

  const smoothOf = (line) => (smooth[line.name] ??= smoothed(data.series[line.name].mean, dots ? 0 : how.smooth)); // single measurements are shown as they are

  function extent(first, last) {
    let low = Infinity, high = -Infinity;
    const widen = (value) => {
      if (value === null || value === undefined || !Number.isFinite(value) || (how.log && value <= 0)) return;
      if (value < low) low = value;
      if (value > high) high = value;
    };
    for (const line of lines) {
      const each = data.series[line.name];
      if (!each) continue;
      const mean = smoothOf(line);
      for (let index = first; index <= last; index++) widen(mean[index]);
      for (const [list, part] of [[each.low, OUTSIDE], [each.high, 1 - OUTSIDE]]) { // one wild reading must not flatten all others
        const sorted = list.slice(first, last + 1).filter((value) => value !== null && value !== undefined).sort((a, b) => a - b);
        widen(sorted[Math.round(part * (sorted.length - 1))]);
      }
    }
    if (low > high) return null;
    if (how.log) return low === high ? [low / 2, high * 2] : [low * 0.9, high * 1.1];
    const span = high - low > 1e-9 * Math.max(Math.abs(low), Math.abs(high)) ? high - low : 0; // rounding is no change
    const room = (span || Math.abs(high) || 1) * 0.06;
    return [low - room, high + room];
  }

  function redraw() {
    const width = box.clientWidth;
    if (!width) return;
    const ratio = devicePixelRatio;
    if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(HEIGHT * ratio)) {
      canvas.width = Math.round(width * ratio);
      canvas.height = Math.round(HEIGHT * ratio);
    }
    const pen = canvas.getContext("2d");
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    pen.clearRect(0, 0, width, HEIGHT);
    pen.font = "11px Plex, system-ui, sans-serif";
    const [first, last] = visible();
    const range = first <= last ? extent(first, last) : null;
    const ink = colour("muted"), rule = colour("rule");
    if (!range) {
      pen.fillStyle = ink;
      pen.textAlign = "center";
      pen.fillText(how.log ? "nothing above zero here" : "not measured yet", width / 2, HEIGHT / 2);
      scale = null;
      return;
    }
    let [from, to] = how.range ?? [data.x[0], data.x[data.x.length - 1]];
    if (from === to) to = from + 1;
    const x = (value) => LEFT + ((value - from) / (to - from)) * (width - LEFT - RIGHT);
    const fold = how.log ? Math.log10 : (value) => value;
    const [bottom, top] = [fold(range[0]), fold(range[1])];
    const y = (value) => TOP + (1 - (fold(value) - bottom) / (top - bottom)) * (HEIGHT - TOP - BOTTOM);
    scale = { x, from, to, width };
    axes(pen, { x, y, from, to, range, width, ink, rule });
    pen.save();
    pen.beginPath();
    pen.rect(LEFT, TOP - 2, width - LEFT - RIGHT, HEIGHT - TOP - BOTTOM + 4);
    pen.clip();
    for (const mark of data.marks ?? []) flag(pen, x(mark.x), mark);
    for (const line of lines) curve(pen, line, first, last, x, y);
    pen.restore();
    if (drag && Math.abs(drag.to - drag.from) > 3) {
      pen.fillStyle = colour("select");
      pen.fillRect(Math.min(drag.from, drag.to), TOP, Math.abs(drag.to - drag.from), HEIGHT - TOP - BOTTOM);
    }
    tell(pen, x, y);
  }

  function axes(pen, { x, y, from, to, range, width, ink, rule }) {
    pen.lineWidth = 1;
    pen.fillStyle = ink;
    pen.textBaseline = "middle";
    pen.textAlign = "right";
    for (const value of how.log ? logTicks(...range) : ticks(range[0], range[1], 4)) {
      const at = Math.round(y(value)) + 0.5;
      if (at < TOP - 2 || at > HEIGHT - BOTTOM + 2) continue;
      pen.strokeStyle = rule;
      pen.beginPath();
      pen.moveTo(LEFT, at);
      pen.lineTo(width - RIGHT, at);
      pen.stroke();
      pen.fillText(Math.abs(value) >= 1e4 ? short(value) : number(value), LEFT - 6, at);
    }
    pen.textBaseline = "alphabetic";
    pen.textAlign = "center";
    const along = ticks(from, to, Math.max(2, Math.floor(width / 72)));
    for (const value of along) {
      const words = how.axis === "seconds" ? clock(value) : short(value);
      const half = pen.measureText(words).width / 2;
      pen.fillText(words, Math.min(width - RIGHT - half, Math.max(LEFT + half, x(value))), HEIGHT - 6);
    }
  }

  function curve(pen, line, first, last, x, y) {
    const each = data.series[line.name];
    if (!each) return;
    const mean = smoothOf(line);
    const tint = colour(line.colour), columns = bucketed(each, mean, first, last, x);
    if (!columns.length) return;
    const sure = (value) => (how.log && value <= 0 ? null : value);
    pen.fillStyle = tint;
    pen.globalAlpha = 0.16;
    pen.beginPath();
    columns.forEach(([at, , , high], index) => pen[index ? "lineTo" : "moveTo"](at, y(sure(high) ?? 1e-12)));
    for (let index = columns.length - 1; index >= 0; index--) pen.lineTo(columns[index][0], Math.min(HEIGHT, y(sure(columns[index][2]) ?? 1e-12)));
    pen.fill();
    pen.globalAlpha = 1;
    pen.strokeStyle = tint;
    pen.lineWidth = 1.6;
    pen.lineJoin = "round";
    pen.beginPath();
    columns.forEach(([at, value], index) => sure(value) !== null && pen[index ? "lineTo" : "moveTo"](at, y(value)));
    pen.stroke();
    if (dots || columns.length === 1) for (const [at, value] of columns) {
      pen.beginPath();
      pen.arc(at, y(value), 2.5, 0, 7);
      pen.fill();
    }
  }

  /** At most one [x, mean, least, greatest] a pixel: 100,000 points draw as fast as 500. */
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

  function flag(pen, at, mark) {
    pen.strokeStyle = colour(mark.colour);
    pen.lineWidth = 1;
    pen.setLineDash([3, 3]);
    pen.beginPath();
    pen.moveTo(Math.round(at) + 0.5, TOP);
    pen.lineTo(Math.round(at) + 0.5, HEIGHT - BOTTOM);
    pen.stroke();
    pen.setLineDash([]);
  }

  function tell(pen, x, y) {
    const index = cursor === null || !data.x.length ? -1 : nearest(data.x, cursor);
    const where = index < 0 ? null : data.x[index];
    at.textContent = where === null ? "" : how.axis === "seconds" ? clock(where) : `${Math.round(where).toLocaleString("en")} images`;
    if (where !== null) {
      pen.strokeStyle = colour("muted");
      pen.lineWidth = 1;
      pen.beginPath();
      pen.moveTo(Math.round(x(where)) + 0.5, TOP);
      pen.lineTo(Math.round(x(where)) + 0.5, HEIGHT - BOTTOM);
      pen.stroke();
    }
    lines.forEach((line, which) => {
      const each = data.series[line.name];
      const here = each ? (index < 0 ? latest(each.mean) : index) : -1;
      const value = each?.mean[here];
      values[which].value.textContent = value === null || value === undefined ? "–" : number(value) + unit;
      const [low, high] = [each?.low[here], each?.high[here]];
      values[which].range.textContent = index >= 0 && value != null && low !== high ? `${number(low)} … ${number(high)}` : "";
      if (index < 0 || value == null || (how.log && value <= 0)) return;
      pen.fillStyle = colour(line.colour);
      pen.beginPath();
      pen.arc(x(where), y((smooth[line.name] ?? each.mean)[here] ?? value), 3, 0, 7);
      pen.fill();
    });
  }

  const speak = () => (spoken.textContent = `${at.textContent}: ${lines.map((line, index) => `${line.words} ${values[index].value.textContent}`).join(", ")}`);
  const invert = (pixel) => scale && scale.from + ((pixel - LEFT) / (scale.width - LEFT - RIGHT)) * (scale.to - scale.from);
  const inside = (event) => Math.min(canvas.clientWidth - RIGHT, Math.max(LEFT, event.clientX - canvas.getBoundingClientRect().left));
  const point = (x) => (pointed ? pointed(x) : ((cursor = x), draw()));
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
    if (done && Math.abs(done.to - done.from) > 6) zoomed([invert(Math.min(done.from, done.to)), invert(Math.max(done.from, done.to))]);
    else draw();
  });
  box.addEventListener("pointercancel", () => ((drag = null), draw()));
  box.addEventListener("dblclick", () => zoomed(null));
  box.addEventListener("blur", () => point(null));
  box.addEventListener("keydown", (event) => {
    const [first, last] = visible();
    if (last < first || event.ctrlKey || event.metaKey) return;
    const now = cursor === null ? last : nearest(data.x, cursor), step = event.shiftKey ? 10 : 1;
    const next = { ArrowLeft: now - step, ArrowRight: now + step, Home: first, End: last }[event.key];
    if (next !== undefined) {
      point(data.x[Math.min(last, Math.max(first, next))]);
      requestAnimationFrame(() => requestAnimationFrame(speak));
    } else if (event.key === "+" || event.key === "=") zoomAround(data.x[now], 0.5);
    else if (event.key === "-") zoomAround(data.x[now], 2);
    else if (event.key === "Escape") zoomed(null);
    else return;
    event.preventDefault();
  });
  function zoomAround(x, factor) {
    const half = ((scale?.to ?? 0) - (scale?.from ?? 0)) * factor * 0.5;
    const [low, high] = [data.x[0], data.x[data.x.length - 1]];
    zoomed(x - half <= low && x + half >= high ? null : [Math.max(low, x - half), Math.min(high, x + half)]);
  }

  new ResizeObserver(draw).observe(box);
  return {
    element, list,
    has: (name) => lines.some((line) => line.name === name),
    feed: (next) => ((data = next), (smooth = {}), draw()),
    look: (next) => ((smooth = next.smooth === how.smooth ? smooth : {}), (how = next), draw()),
    point: (x) => ((cursor = x), draw()),
    draw,
  };
}

export function clock(seconds) {
  if (seconds < 120) return `${Math.round(seconds)} s`;
  if (seconds < 7200) return `${Number((seconds / 60).toPrecision(3))} min`;
  return `${Number((seconds / 3600).toPrecision(3))} h`;
}

/** Index of the last number in a list, -1 for none. */
function latest(values) {
  let index = values.length - 1;
  while (index >= 0 && values[index] === null) index--;
  return index;
}
