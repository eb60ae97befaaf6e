// DOM elements, number formats and controls that all views share.

/** Create an element. `on` has listeners, `data` the dataset; null and false omit an attribute; children are text, nodes or nested lists. */
export function h(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "on") for (const [event, listener] of Object.entries(value)) element.addEventListener(event, listener);
    else if (name === "data") Object.assign(element.dataset, value);
    else if (name in element && ["value", "checked", "disabled", "selected", "hidden"].includes(name)) element[name] = value;
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

export const formatInteger = (value) => (value === null || value === undefined ? "–" : Math.round(value).toLocaleString("en"));

const STOP_REASONS = { images: "number of images reached", minutes: "time limit reached", patience: "score no longer improved", target: "target score reached", failure: "the run failed", SIGINT: "Ctrl-C", SIGTERM: "terminated (SIGTERM)" };
/** Return why a run has stopped, in words. */
export const stopReasonText = (reason) => STOP_REASONS[reason] ?? reason;

const HEALTH = { too_early: "too early to say", nothing_found: "no fault found", warning: "warning", fatal: "fatal fault" };
/** Return a run's health in words. */
export const healthText = (health) => HEALTH[health] ?? health.replaceAll("_", " ");

/** 4 significant digits; scientific notation for small numbers. */
export function formatNumber(value) {
  if (value === null || value === undefined) return "–";
  if (!Number.isFinite(value)) return String(value);
  const size = Math.abs(value);
  if (size >= 1000) return Math.round(value).toLocaleString("en");
  if (size !== 0 && size < 0.001) return value.toExponential(2);
  return Number(value.toPrecision(4)).toString();
}

/** 250048 -> 250 k. */
export function formatCompact(value, digits = 3) {
  const size = Math.abs(value);
  const [divisor, unit] = size >= 1e9 ? [1e9, " G"] : size >= 1e6 ? [1e6, " M"] : size >= 1e4 ? [1e3, " k"] : [1, ""];
  return Number((value / divisor).toPrecision(digits)) + unit;
}

export function formatDuration(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  if (seconds < 60) return `${Math.round(seconds)} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ${Math.round(seconds % 60)} s`;
  if (seconds < 86400) return `${Math.floor(seconds / 3600)} h ${Math.round((seconds % 3600) / 60)} min`;
  return `${Math.floor(seconds / 86400)} d ${Math.round((seconds % 86400) / 3600)} h`;
}

/** Time since a Unix timestamp. */
export function formatAge(time) {
  const seconds = Math.max(0, Date.now() / 1000 - time);
  if (seconds < 60) return "now";
  const [size, unit] = seconds < 3600 ? [60, "min"] : seconds < 86400 ? [3600, "h"] : seconds < 86400 * 60 ? [86400, "d"] : [86400 * 30.4, "months"];
  return `${Math.floor(seconds / size)} ${unit}`;
}

let announceTimer = 0;
/** Announce a text to screen readers. Only the last of several quick calls is spoken. */
export function announce(words) {
  clearTimeout(announceTimer);
  announceTimer = setTimeout(() => (document.getElementById("announcer").textContent = words), 250);
}

/** A labeled slider with its value. `format` formats the value; `onChange` gets every change as a number. */
export function slider({ label, min, max, step, value, format = formatNumber, onChange, hint }) {
  const output = h("output", {}, format(value));
  const input = h("input", { type: "range", min, max, step, value: String(value), title: hint });
  const updateOutput = () => {
    const words = format(Number(input.value));
    output.textContent = words;
    input.setAttribute("aria-valuetext", words);
  };
  input.addEventListener("input", () => {
    updateOutput();
    onChange(Number(input.value));
  });
  updateOutput();
  const element = h("label", { class: "slider" }, h("span", {}, label), output, input);
  return { element, input, set: (next) => ((input.value = String(next)), updateOutput()) };
}

/** Radio buttons as one segmented control. `options` are [value, text]. */
export function segmented(label, options, value, onChange) {
  const name = `s${Math.random().toString(36).slice(2)}`;
  const radios = options.map(([each, words]) =>
    h("label", {}, h("input", { type: "radio", name, value: each, checked: each === value, on: { change: () => onChange(each) } }), h("span", {}, words)),
  );
  return h("fieldset", { class: "segmented" }, h("legend", { class: "visually-hidden" }, label), radios);
}

const optionElements = (options, value) => options.map(([each, words]) => h("option", { value: each, selected: String(each) === String(value) }, words));

/** A labeled drop-down. */
export function selectField(label, options, value, onChange) {
  const select = h("select", { on: { change: () => onChange(select.value) } }, optionElements(options, value));
  return h("label", { class: "field" }, h("span", {}, label), select);
}

/** Replace the options of a drop-down, which keeps its focus. A selected option that is gone stays until another is selected. */
export function replaceOptions(field, options, value) {
  const known = options.some(([each]) => String(each) === String(value));
  field.querySelector("select").replaceChildren(...optionElements(known ? options : [...options, [value, `${value}, deleted`]], value));
}

/** A labeled integer input. */
export function integerField(label, value, min, max, changed) {
  const format = (what) => (typeof what === "number" ? String(what) : ""); // a latent from an inversion is not a number: its field is empty until a seed is typed
  const input = h("input", { type: "number", min, max, step: 1, value: format(value), placeholder: "latent", inputmode: "numeric" });
  input.addEventListener("change", () => {
    const number = Math.round(Number(input.value));
    input.value = String(Math.min(max, Math.max(min, Number.isFinite(number) ? number : min)));
    changed(Number(input.value));
  });
  return { element: h("label", { class: "field" }, h("span", {}, label), input), set: (next) => (input.value = format(next)) };
}

/** A message in place of content that cannot be shown. */
export const notice = (words, kind = "") => h("p", { class: `notice ${kind}`, role: kind === "error" ? "alert" : null }, words);

const LOADING_DELAY = 250;
/**
 * Show on `frame` that its image is loading, or why it is missing. `start(words)` shows the words after a short delay, `done()` removes them, `fail(words)`
 * shows an error in their place.
 */
export function loadingOverlay(frame) {
  const text = h("span", { class: "loading", role: "status", hidden: true });
  let timer = 0;
  frame.append(text);
  const stop = () => (clearTimeout(timer), (text.hidden = true), frame.removeAttribute("aria-busy"));
  return {
    start: (words) => {
      stop();
      frame.setAttribute("aria-busy", "true");
      timer = setTimeout(() => ((text.textContent = words), (text.hidden = false)), LOADING_DELAY);
    },
    done: stop,
    fail: (message) => (stop(), (text.textContent = message), (text.hidden = false)),
  };
}

/** An explanation of a view for beginners. */
export const helpNote = (title, ...paragraphs) => h("div", { class: "help-note", role: "note" }, h("h3", {}, title), paragraphs.map((words) => h("p", {}, words)));

/** Whether a key press belongs to the focused element, not to the view. */
export const isTyping = (event) => event.ctrlKey || event.metaKey || event.altKey || Boolean(event.target.closest?.("input, select, textarea, [contenteditable], dialog, .tiles, .interpolation-pad, .chart"));
