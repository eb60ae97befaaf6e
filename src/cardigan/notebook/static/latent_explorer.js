// The widget of cardigan/notebook/latent_explorer.py: a pad between four latents, sliders, and the image at the handle.
// The controls are sent to the kernel with the number of a request. Until the kernel has answered it, changes wait, and only the newest is sent.

const CORNERS = ["Top left", "Top right", "Bottom left", "Bottom right"];
const CONTROLS = ["corners", "x", "y", "truncation", "label", "direction_amounts"];
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
const MAX_SEED = Number.MAX_SAFE_INTEGER;
const STEP = 0.02;

function h(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "on") Object.entries(value).forEach(([type, listener]) => element.addEventListener(type, listener));
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== null) element.setAttribute(name, value);
  }
  element.append(...children.flat().filter((child) => child !== null));
  return element;
}

/** Return functions that read and change the controls. `changed()` is called when Python has changed them. */
function createControls(model, changed) {
  const read = () => Object.fromEntries(CONTROLS.map((name) => [name, model.get(name)]));
  let values = read(), request = 0, waiting = false;
  const send = () => {
    waiting = true;
    request = model.get("request") + 1;
    Object.entries({ ...values, request }).forEach(([name, value]) => model.set(name, value));
    model.save_changes();
  };
  const adopt = () => {
    if (waiting) return;
    values = read();
    changed();
  };
  const answered = () => {
    if (!waiting || model.get("answer") < request) return;
    waiting = false;
    if (CONTROLS.some((name) => JSON.stringify(values[name]) !== JSON.stringify(model.get(name)))) send();
    else adopt();
  };
  CONTROLS.forEach((name) => model.on(`change:${name}`, adopt));
  model.on("change:answer", answered);
  const set = (changes) => {
    values = { ...values, ...changes };
    if (!waiting) send();
  };
  const close = () => {
    CONTROLS.forEach((name) => model.off(`change:${name}`, adopt));
    model.off("change:answer", answered);
  };
  return { get: (name) => values[name], set, close };
}

/** Draw a PNG on a canvas. Its pixels stay sharp, also if the canvas is larger. */
async function paint(canvas, view) {
  if (!view?.byteLength) return;
  const number = (canvas.number = (canvas.number ?? 0) + 1);
  const bitmap = await createImageBitmap(new Blob([view], { type: "image/png" }));
  if (number === canvas.number) { // no newer image has come meanwhile
    const factor = Math.max(1, Math.ceil((canvas.clientWidth * devicePixelRatio) / bitmap.width));
    canvas.width = bitmap.width * factor;
    canvas.height = bitmap.height * factor;
    const context = canvas.getContext("2d");
    context.imageSmoothingEnabled = false;
    context.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
    canvas.dataset.drawn = "";
  }
  bitmap.close();
}

function slider({ label, min, max, step, value, format, onInput, hint }) {
  const output = h("output");
  const input = h("input", { type: "range", min, max, step });
  const show = (next) => {
    input.value = next;
    output.textContent = format(next);
  };
  input.addEventListener("input", () => {
    output.textContent = format(input.valueAsNumber);
    onInput(input.valueAsNumber);
  });
  show(value);
  return { element: h("div", { class: "slider" }, h("label", {}, h("span", {}, label), input), output, hint ? h("small", {}, hint) : null), show };
}

function buildPad(controls, canvases) {
  let step = STEP;
  const pad = h("div", { class: "pad", tabindex: 0, role: "slider", "aria-label": "Position between the four images", "aria-valuemin": 0, "aria-valuemax": 100 },
    canvases.map((canvas, corner) => h("span", { class: `corner c${corner}` }, canvas)), h("span", { class: "handle" }));
  const show = () => {
    const [x, y] = [controls.get("x"), controls.get("y")];
    pad.style.setProperty("--x", x);
    pad.style.setProperty("--y", y);
    pad.setAttribute("aria-valuenow", Math.round(100 * x));
    pad.setAttribute("aria-valuetext", positionText(x, y));
  };
  const move = (...place) => {
    const [x, y] = place.map((value) => Math.min(1, Math.max(0, Math.round(value * 1000) / 1000)));
    controls.set({ x, y });
    show();
    pad.dispatchEvent(new Event("moved", { bubbles: true }));
  };
  const at = (event) => {
    const box = pad.getBoundingClientRect();
    move((event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height);
  };
  pad.addEventListener("pointerdown", (event) => {
    pad.setPointerCapture(event.pointerId);
    at(event);
  });
  pad.addEventListener("pointermove", (event) => pad.hasPointerCapture(event.pointerId) && at(event));
  pad.addEventListener("keydown", (event) => {
    const by = ARROWS[event.key]?.map((sign) => sign * step * (event.shiftKey ? 5 : 1));
    const to = { Home: [0, 0], End: [1, 1] }[event.key] ?? (by && [controls.get("x") + by[0], controls.get("y") + by[1]]);
    if (!to) return;
    event.preventDefault();
    event.stopPropagation(); // the notebook has commands on these keys
    move(...to);
  });
  const stepSlider = slider({ label: "Step of the arrow keys", min: 0.01, max: 0.1, step: 0.01, value: step, format: (value) => `${Math.round(100 * value)} %`, onInput: (value) => (step = value), hint: "Shift: five times further" });
  return { element: pad, show, stepSlider };
}

const positionText = (x, y) => `${Math.round(100 * x)} % across, ${Math.round(100 * y)} % down`;

function buildCorners(controls, announce) {
  const inputs = CORNERS.map((name, corner) => {
    const input = h("input", { inputmode: "numeric", autocomplete: "off" });
    input.addEventListener("change", () => {
      const text = input.value.trim(), valid = /^\d{1,16}$/.test(text) && Number(text) <= MAX_SEED;
      input.setAttribute("aria-invalid", String(!valid));
      if (valid) controls.set({ corners: controls.get("corners").with(corner, Number(text)) });
      else announce("A seed is an integer from 0 to 2^53 - 1.");
    });
    return { input, element: h("label", { class: "field" }, name, input) };
  });
  const show = () => inputs.forEach(({ input }, corner) => {
    input.value = String(controls.get("corners")[corner]);
    input.removeAttribute("aria-invalid");
  });
  const next = h("button", { type: "button", on: { click: () => {
    const highest = Math.max(...controls.get("corners")), first = highest > MAX_SEED - 4 ? 0 : highest + 1;
    controls.set({ corners: CORNERS.map((_, corner) => first + corner) });
    show();
    announce(`Seeds ${first} to ${first + 3}`);
  } } }, "Next four seeds");
  return { element: h("fieldset", {}, h("legend", {}, "Seeds"), h("div", { class: "corners" }, inputs.map((each) => each.element)), next), show };
}

function buildClasses(model, controls) {
  const names = model.get("class_names"), count = model.get("num_classes");
  const choices = Array.from({ length: count }, (_, index) => h("option", { value: index }, names[index] ?? String(index)));
  const select = h("select", { on: { change: () => controls.set({ label: select.value }) } }, h("option", { value: "" }, "each seed's own"), choices);
  return { element: count ? h("label", { class: "field" }, "Class", select) : null, show: () => (select.value = controls.get("label")) };
}

function buildDirections(model, controls) {
  const notes = controls.get("direction_amounts").map(() => h("small"));
  const sliders = notes.map((note, which) => slider({
    label: [`${which + 1} `, note], min: -4, max: 4, step: 0.1, value: 0, format: (value) => (value > 0 ? "+" : "") + value.toFixed(1),
    onInput: (value) => controls.set({ direction_amounts: controls.get("direction_amounts").with(which, value) }),
  }));
  const element = h("details", {}, h("summary", {}, "Principal directions"), h("small", {}, "Directions along which the first features vary most, with their explained variance. The first use takes seconds."),
    h("div", { class: "sliders" }, sliders.map((each) => each.element)));
  const show = () => {
    sliders.forEach((each, which) => each.show(controls.get("direction_amounts")[which]));
    model.get("explained_variance_ratio").forEach((ratio, which) => (notes[which].textContent = `${(100 * ratio).toFixed(1)} %`));
  };
  return { element, show };
}

function render({ model, el }) {
  const [width, height] = model.get("image_size");
  const newCanvas = (label) => {
    const canvas = h("canvas", { width, height, ...(label ? { role: "img", "aria-label": label } : { "aria-hidden": true }) });
    canvas.style.aspectRatio = `${width} / ${height}`;
    return canvas;
  };
  const canvas = newCanvas("The image at the handle"), cornerCanvases = CORNERS.map(() => newCanvas(null));
  const error = h("p", { class: "notice", role: "alert" }), announcer = h("div", { class: "visually-hidden", role: "status" });
  const announce = (words) => (announcer.textContent = words);
  const controls = createControls(model, () => showAll());

  const pad = buildPad(controls, cornerCanvases), corners = buildCorners(controls, announce), classes = buildClasses(model, controls), directions = buildDirections(model, controls);
  const truncation = slider({ label: "Truncation", min: 0, max: 1, step: 0.02, value: 1, format: (value) => value.toFixed(2), onInput: (value) => controls.set({ truncation: value }), hint: "Lower: more typical, less varied images" });
  const reset = h("button", { type: "button", on: { click: () => {
    controls.set({ x: 0.5, y: 0.5, truncation: 1, label: "", direction_amounts: controls.get("direction_amounts").map(() => 0) });
    showAll();
  } } }, "Reset");

  const describe = () => canvas.setAttribute("aria-label", `The image ${positionText(controls.get("x"), controls.get("y"))}, between the seeds ${controls.get("corners").join(", ")}`);
  const showAll = () => {
    [pad, corners, classes, directions].forEach((each) => each.show());
    truncation.show(controls.get("truncation"));
    describe();
  };
  const listeners = {
    image_png: () => paint(canvas, model.get("image_png")).then(describe),
    corner_pngs: () => model.get("corner_pngs").forEach((png, corner) => paint(cornerCanvases[corner], png)),
    explained_variance_ratio: () => directions.show(),
    error: () => {
      error.textContent = model.get("error");
      error.hidden = !error.textContent;
    },
  };
  Object.entries(listeners).forEach(([name, listener]) => model.on(`change:${name}`, listener));

  el.append(h("section", { class: "cardigan-explorer", "aria-label": "Latent space", "data-lm-suppress-shortcuts": "true" },
    h("div", { class: "panels" },
      h("div", { class: "stage" }, canvas, error),
      h("div", { class: "panel" }, pad.element, h("small", {}, "Drag the ring, or use the arrow keys."), corners.element),
      h("div", { class: "panel" }, classes.element, truncation.element, pad.stepSlider.element, directions.element, reset)), announcer));
  showAll();
  Object.values(listeners).forEach((listener) => listener());
  return () => { // the output was cleared
    Object.entries(listeners).forEach(([name, listener]) => model.off(`change:${name}`, listener));
    controls.close();
  };
}

export default { render };
