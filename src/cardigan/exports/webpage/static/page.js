// What a visitor sees and moves. The numbers come from `engine.js`, in a worker of this same file where the browser lets it.
{
const model = JSON.parse(document.getElementById("model").textContent);
const { channels, height, width } = model.pictures, { latent, classes } = model.program;
const asked = new URLSearchParams(location.search);
const $ = (id) => document.getElementById(id);
const CORNERS = ["top left", "top right", "bottom left", "bottom right"];
const SHEET = 24, OWN = -1, SECONDS_A_SIDE = 3;
const FEW_CLASSES = 24;
const SLOW = 20; // milliseconds a picture

/** What is shown: everything that is drawn follows from it. `label` is a class, or OWN for each seed's own. */
const shown = { corners: [0, 1, 2, 3], x: 0.5, y: 0.5, grid: 4, span: 0.6, label: OWN, truncation: 1, amounts: [], first: 0n, next: 0 };

/* The engine */

function decodedBase64(text) {
  if (Uint8Array.fromBase64) return Uint8Array.fromBase64(text);
  const letters = atob(text), bytes = new Uint8Array(letters.length);
  for (let i = 0; i < letters.length; i++) bytes[i] = letters.charCodeAt(i);
  return bytes;
}

/** Start the engine: return { kind, pictures(z, classes, count) }, a promise of [picture, channel, row, column] floats. */
async function started() {
  const holder = $("weights"), block = decodedBase64(holder.textContent);
  holder.remove(); // as text it is a third larger than the block, and not needed again
  const kernel = asked.get("engine") === "javascript" ? null : decodedBase64(model.kernel);
  const opening = { program: model.program, block, kernel };
  if (asked.get("worker") !== "no") {
    try {
      return await inWorker(opening);
    } catch { /* some browsers give a page on disk no workers: it draws by itself then */ }
  }
  const engine = opened(opening);
  return { kind: engine.kind, pictures: async (...given) => engine.pictures(...given) };
}

async function inWorker(opening) {
  const address = URL.createObjectURL(new Blob([$("engine").textContent], { type: "text/javascript" }));
  const worker = new Worker(address), waiting = new Map();
  let last = 0;
  const failed = (error) => { waiting.forEach(({ refuse }) => refuse(error)); waiting.clear(); };
  worker.onerror = (event) => { event.preventDefault?.(); failed(new Error(event.message || "no worker")); };
  worker.onmessage = ({ data }) => {
    const { answer, refuse } = waiting.get(data.id);
    waiting.delete(data.id);
    if (data.error) refuse(new Error(data.error));
    else answer(data);
  };
  const ask = (message) => new Promise((answer, refuse) => { waiting.set(++last, { answer, refuse }); worker.postMessage({ id: last, ...message }); });
  try {
    const { kind } = await ask(opening);
    return { kind: `${kind} in a worker`, pictures: async (z, weights, count) => (await ask({ z, classes: weights, count })).pixels };
  } catch (error) {
    worker.terminate();
    throw error;
  } finally {
    URL.revokeObjectURL(address);
  }
}

/* From seeds to pictures */

const known = new Map();
/** Return a seed's z and class; the last ones are remembered. */
function ofSeed(seed) {
  const key = String(seed);
  if (!known.has(key)) {
    if (known.size > 500) known.clear();
    known.set(key, { z: latentOf(key, latent, model.distribution), label: classes ? labelOf(key, classes) : 0 });
  }
  return known.get(key);
}

const labelled = (seed) => (shown.label === OWN ? ofSeed(seed).label : shown.label);

/** Move z along the principal directions, then toward the middle. */
function moved(z, { amounts, truncation }) {
  const out = Float32Array.from(z);
  amounts.forEach((amount, number) => {
    if (amount) model.directions.vectors[number].forEach((x, i) => { out[i] += amount * model.directions.spread[number] * x; });
  });
  return out.map((x) => x * truncation);
}

/** Return a batch for the engine of spots { z, mix }, where mix gives each class its weight. */
function batched(spots, style) {
  const z = new Float32Array(spots.length * latent), weights = classes ? new Float32Array(spots.length * classes) : null;
  spots.forEach((spot, i) => {
    z.set(moved(spot.z, style), i * latent);
    if (classes) spot.mix.forEach(([label, share]) => { weights[i * classes + label] += share; });
  });
  return [z, weights, spots.length];
}

const spotOfSeed = (seed) => ({ z: ofSeed(seed).z, mix: [[labelled(seed), 1]] });
const spotAt = ([x, y]) => ({ z: amongFour(shown.corners.map((seed) => ofSeed(seed).z), x, y, model.distribution), mix: shown.corners.map((seed, i) => [labelled(seed), shares(x, y)[i]]) });

/** Paint picture `index` of a batch on a canvas; numbers outside [-1, 1] are clipped, as when Cardigan saves them. */
function paint(canvas, pixels, index) {
  const image = new ImageData(width, height), plane = height * width, from = index * channels * plane, colour = channels >= 3 ? plane : 0;
  for (let i = 0; i < plane; i++) {
    for (let c = 0; c < 3; c++) image.data[4 * i + c] = Math.round((pixels[from + c * colour + i] + 1) * 127.5);
    image.data[4 * i + 3] = channels === 4 ? Math.round((pixels[from + 3 * plane + i] + 1) * 127.5) : 255;
  }
  canvas.getContext("2d").putImageData(image, 0, 0);
  canvas.dataset.drawn = "";
}

const canvasOf = () => h("canvas", { width, height, "aria-hidden": "true", class: width < 128 ? "sharp" : "" });

/** Return a function that does the work now, or once more after the work that is being done: only the newest wish counts. */
function latest(work) {
  let doing = null, again = false;
  return () => {
    if (doing) again = true;
    else doing = (async () => { do { again = false; await work(); } while (again); })().catch(troubled).finally(() => { doing = null; });
    return doing;
  };
}

function troubled(error) {
  $("trouble").textContent = `Nothing could be drawn: ${error.message}. A newer browser, or a device with more memory, may do it.`;
  $("trouble").hidden = false;
}

/* The stage, the pad, the sheet */

let engine = null, atOnce = 16, redraws = 0;
const tiles = $("tiles"), cornerCanvases = CORNERS.map(canvasOf), sheetTiles = [];

const drawStage = latest(async () => {
  const places = placesAround(shown.x, shown.y, shown.grid, shown.span), count = places.length;
  const pixels = await engine.pictures(...batched(places.map(spotAt), shown));
  if (tiles.children.length !== count) {
    tiles.replaceChildren(...places.map(canvasOf));
    tiles.style.setProperty("--columns", Math.sqrt(count));
  }
  [...tiles.children].forEach((canvas, i) => paint(canvas, pixels, i));
  tiles.setAttribute("aria-label", `${count === 1 ? "The picture" : `${count} pictures around the place`} ${placeInWords()}`);
  redraws += 1;
});

const drawCorners = latest(async () => {
  const pixels = await engine.pictures(...batched(shown.corners.map(spotOfSeed), shown));
  cornerCanvases.forEach((canvas, i) => paint(canvas, pixels, i));
});

const drawSheet = latest(async () => {
  const first = shown.first;
  for (let from = 0; from < SHEET && first === shown.first; from += atOnce) { // in parts, so that the stage is never kept waiting
    const part = Array.from({ length: Math.min(atOnce, SHEET - from) }, (_, i) => spotOfSeed(first + BigInt(from + i)));
    const pixels = await engine.pictures(...batched(part, shown));
    part.forEach((_, i) => paint(sheetTiles[from + i].canvas, pixels, i));
  }
});

const drawAll = () => { drawStage(); drawCorners(); drawSheet(); tellCommand(); };
const placeInWords = () => `${Math.round(100 * shown.x)} % across, ${Math.round(100 * shown.y)} % down`;

function moveTo(x, y) {
  [shown.x, shown.y] = [x, y].map((value) => Math.min(1, Math.max(0, value)));
  const pad = $("pad");
  pad.style.setProperty("--x", shown.x);
  pad.style.setProperty("--y", shown.y);
  pad.setAttribute("aria-valuenow", Math.round(100 * shown.x));
  pad.setAttribute("aria-valuetext", placeInWords());
  return drawStage();
}

function buildPad() {
  const pad = $("pad");
  const at = (event) => {
    const box = pad.getBoundingClientRect();
    moveTo((event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height);
  };
  pad.prepend(...cornerCanvases.map((canvas, i) => h("span", { class: `corner c${i}` }, canvas)));
  pad.addEventListener("pointerdown", (event) => { stopWalk(); pad.setPointerCapture(event.pointerId); at(event); });
  pad.addEventListener("pointermove", (event) => pad.hasPointerCapture(event.pointerId) && at(event));
  pad.addEventListener("keydown", (event) => {
    const step = event.shiftKey ? 0.1 : 0.02;
    const by = { ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, -step], ArrowDown: [0, step] }[event.key];
    const to = { Home: [0, 0], End: [1, 1] }[event.key] ?? (by && [shown.x + by[0], shown.y + by[1]]);
    if (!to) return;
    event.preventDefault();
    stopWalk();
    moveTo(...to);
  });
}

function buildCorners() {
  $("corners").replaceChildren(...CORNERS.map((words, i) => {
    const input = h("input", { inputmode: "numeric", autocomplete: "off", value: String(shown.corners[i]), "data-corner": i });
    input.addEventListener("change", () => seedIn(input, (seed) => putCorner(i, seed)));
    return h("label", { class: "field" }, `${words[0].toUpperCase()}${words.slice(1)}`, input);
  }));
}

/** Do something with the seed that a field holds, if it holds one. */
function seedIn(input, taken) {
  const text = input.value.trim(), good = /^\d{1,19}$/.test(text) && BigInt(text) < 2n ** 63n;
  input.setAttribute("aria-invalid", String(!good));
  if (good) taken(BigInt(text));
  else say("A seed is a whole number from 0 to 2^63 - 1.");
}

function putCorner(corner, seed) {
  shown.corners[corner] = seed;
  const input = document.querySelector(`[data-corner="${corner}"]`);
  input.value = String(seed);
  input.removeAttribute("aria-invalid");
  markSheet();
  tellCommand();
  drawCorners();
  drawStage();
}

function buildSheet() {
  for (let i = 0; i < SHEET; i++) {
    const canvas = canvasOf(), name = h("span", {}), button = h("button", { type: "button", class: "seed" }, canvas, name);
    button.addEventListener("click", () => {
      const corner = shown.next, seed = shown.first + BigInt(i);
      shown.next = (corner + 1) % 4;
      putCorner(corner, seed);
      say(`Seed ${seed} is at the pad's ${CORNERS[corner]} now.`);
    });
    sheetTiles.push({ canvas, name, button });
  }
  $("seeds").replaceChildren(...sheetTiles.map(({ button }) => button));
}

function markSheet() {
  sheetTiles.forEach(({ name, button }, i) => {
    const seed = shown.first + BigInt(i), corner = shown.corners.findIndex((each) => BigInt(each) === seed);
    name.textContent = String(seed);
    button.setAttribute("aria-label", `Put seed ${seed} at the pad's ${CORNERS[shown.next]}${corner < 0 ? "" : `; it is at the ${CORNERS[corner]} now`}`);
    button.toggleAttribute("data-chosen", corner >= 0);
  });
  $("sheet-hint").textContent = `Click one to put it on the pad, at the ${CORNERS[shown.next]}.`;
}

function turnSheet(first) {
  const end = 2n ** 63n - BigInt(SHEET);
  shown.first = first < 0n ? 0n : first > end ? end : first;
  $("first").value = String(shown.first);
  $("first").removeAttribute("aria-invalid");
  markSheet();
  drawSheet();
}

/* Settings */

function segmented(fieldset, name, choices, chosen, picked) {
  fieldset.append(...choices.map(([value, words]) => {
    const input = h("input", { type: "radio", name, value });
    input.checked = value === chosen;
    input.addEventListener("change", () => picked(value));
    return h("label", {}, input, h("span", {}, words));
  }));
}

const resets = [];
function slider({ label, min, max, step, start, moved: change }) {
  const input = h("input", { type: "range", min, max, step, "aria-label": label }), output = h("output", {});
  const put = (value) => { input.value = value; output.textContent = Number(value).toFixed(step < 0.1 ? 2 : 1); };
  input.addEventListener("input", () => { put(input.value); change(Number(input.value)); });
  put(start);
  resets.push(() => { put(start); change(start, true); });
  return h("div", { class: "slider" }, h("span", { "aria-hidden": "true" }, label), output, input);
}

function buildSettings() {
  segmented($("grids"), "grid", [[1, "One"], [3, "3 × 3"], [4, "4 × 4"], [8, "8 × 8"]], shown.grid, (value) => { shown.grid = value; drawStage(); });
  const restyled = (change) => (value, quiet) => { change(value); if (!quiet) drawAll(); };
  $("sliders").append(
    slider({ label: "Truncation", min: 0, max: 1, step: 0.01, start: 1, moved: restyled((value) => { shown.truncation = value; }) }),
    slider({ label: "How far apart", min: 0.05, max: 1, step: 0.05, start: shown.span, moved: (value, quiet) => { shown.span = value; if (!quiet) drawStage(); } }),
  );
  model.directions.share.forEach((share, i) => {
    shown.amounts.push(0);
    $("directions").append(slider({ label: `${i + 1}: ${(100 * share).toFixed(1)} %`, min: -4, max: 4, step: 0.1, start: 0, moved: restyled((value) => { shown.amounts[i] = value; }) }));
  });
  $("directions").hidden = !model.directions.share.length;
  if (classes) buildClasses();
  $("reset").addEventListener("click", () => { resets.forEach((reset) => reset()); drawAll(); });
}

function buildClasses() {
  const nameOf = (label) => model.class_names[label] ?? String(label), choose = (label) => { shown.label = Number(label); drawAll(); };
  const choices = [[OWN, "Each its own"], ...Array.from({ length: classes }, (_, label) => [label, nameOf(label)])];
  $("class").hidden = false;
  if (classes <= FEW_CLASSES) return segmented($("class"), "class", choices, shown.label, choose);
  const select = h("select", { "aria-label": "Class" }, choices.map(([value, words]) => h("option", { value }, words)));
  select.addEventListener("change", () => choose(select.value));
  return $("class").append(select);
}

/* The walk */

let walking = 0;
function stopWalk() {
  cancelAnimationFrame(walking);
  walking = 0;
  $("walk").textContent = "Play a walk";
  $("walk").setAttribute("aria-pressed", "false");
}

/** Walk around the pad's sides, from corner to corner, beginning at the nearest place. */
function startWalk() {
  const corners = [[0, 0], [1, 0], [1, 1], [0, 1]];
  const angle = Math.atan2(shown.y - 0.5, shown.x - 0.5), offset = ((angle / (Math.PI / 2) + 2.5) % 4 + 4) % 4;
  const begin = performance.now();
  const step = async (now) => {
    const at = (offset + Math.max(0, now - begin) / 1000 / SECONDS_A_SIDE) % 4, side = Math.floor(at), part = at - side;
    const [from, to] = [corners[side], corners[(side + 1) % 4]], here = [0, 1].map((axis) => from[axis] + part * (to[axis] - from[axis]));
    const blend = Math.min(1, (now - begin) / 600), before = [shown.x, shown.y];
    moveTo(...here.map((value, axis) => before[axis] + blend * (value - before[axis])));
    if (walking) walking = requestAnimationFrame(step);
  };
  $("walk").textContent = "Pause the walk";
  $("walk").setAttribute("aria-pressed", "true");
  walking = requestAnimationFrame(step);
}

/* Taking it away */

async function saveStage() {
  const side = Math.sqrt(tiles.children.length), canvas = h("canvas", { width: side * width, height: side * height }), pen = canvas.getContext("2d");
  [...tiles.children].forEach((tile, i) => pen.drawImage(tile, (i % side) * width, Math.floor(i / side) * height));
  const blob = await new Promise((done) => canvas.toBlob(done, "image/png"));
  const link = h("a", { href: URL.createObjectURL(blob), download: `${model.name.replaceAll("/", "-")}-${shown.corners.join("-")}.png` });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
  say("Saved.");
}

function tellCommand() {
  const label = shown.label === OWN ? "" : ` --label ${shellWord(model.class_names[shown.label] ?? String(shown.label))}`;
  const truncation = shown.truncation === 1 ? "" : ` --truncation ${shown.truncation}`;
  $("command").textContent = `cardigan sample MODEL --seeds ${shown.corners.join(",")}${label}${truncation}`;
}

const shellWord = (word) => (/^[\w.-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`);
const say = (words) => { $("say").textContent = words; };

function tellFacts() {
  const kinds = { 1: "grey", 3: "colour", 4: "colour, transparent" };
  const facts = [["Pictures", `${width} × ${height} ${kinds[channels] ?? ""}`], ["Learned numbers", model.parameters.toLocaleString("en")],
    ["Images seen in training", model.images_seen.toLocaleString("en")], ["Kept as", model.weights], ["Engine", engine.kind]];
  $("facts").replaceChildren(...facts.map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value))));
  $("rounding").textContent = `the largest difference from PyTorch was ${model.difference.toPrecision(2)} on a scale from -1 to 1.`;
}

function buildTheme() {
  const button = $("theme"), dark = matchMedia("(prefers-color-scheme: dark)"), root = document.documentElement;
  const themed = () => root.dataset.theme ?? (dark.matches ? "dark" : "light");
  const name = () => { button.textContent = themed() === "dark" ? "Light" : "Dark"; button.setAttribute("aria-label", `${button.textContent}: switch the theme`); };
  button.addEventListener("click", () => {
    root.dataset.theme = themed() === "dark" ? "light" : "dark";
    try { localStorage.setItem("theme", root.dataset.theme); } catch { /* it holds until the page is closed */ }
    name();
  });
  dark.addEventListener("change", name);
  name();
}

/** Return the first seeds whose classes differ, so that the first look shows several. */
function firstCorners() {
  const found = [];
  for (let seed = 0; found.length < 4; seed++) {
    if (classes < 4 || seed > 60 || !found.some((other) => ofSeed(other).label === ofSeed(seed).label)) found.push(seed);
  }
  return found;
}

/** Return the milliseconds that one picture takes here, at its best: the first ones warm the browser up. */
async function pace() {
  const times = [];
  for (let seed = 0; seed < 5; seed++) {
    const before = performance.now();
    await engine.pictures(...batched([spotOfSeed(seed)], shown));
    times.push(performance.now() - before);
  }
  return Math.min(...times);
}

async function begin() {
  document.documentElement.toggleAttribute("data-alpha", channels === 4);
  document.documentElement.style.setProperty("--shape", `${width} / ${height}`);
  shown.corners = firstCorners();
  buildTheme();
  buildPad();
  buildCorners();
  buildSheet();
  markSheet();
  tellCommand();
  if (model.card) {
    $("card-text").append(...markdown(model.card));
    $("card").hidden = false;
  }
  engine = await started();
  const milliseconds = await pace();
  atOnce = Math.max(1, Math.min(8, Math.floor(120 / milliseconds)));
  if (milliseconds > SLOW) shown.grid = 1; // sixteen would follow the hand too slowly
  buildSettings();
  tellFacts();
  $("walk").addEventListener("click", () => (walking ? stopWalk() : startWalk()));
  $("others").addEventListener("click", () => {
    const after = shown.corners.reduce((most, seed) => (BigInt(seed) > most ? BigInt(seed) : most), 0n);
    CORNERS.forEach((_, i) => putCorner(i, (after + BigInt(i + 1)) % 2n ** 63n));
  });
  $("save").addEventListener("click", saveStage);
  $("earlier").addEventListener("click", () => turnSheet(shown.first - BigInt(SHEET)));
  $("later").addEventListener("click", () => turnSheet(shown.first + BigInt(SHEET)));
  $("anywhere").addEventListener("click", () => turnSheet(BigInt(Math.floor(Math.random() * 1_000_000_000))));
  $("first").addEventListener("change", () => seedIn($("first"), turnSheet));
  moveTo(shown.x, shown.y);
  await Promise.all([drawStage(), drawCorners(), drawSheet()]);
  document.documentElement.dataset.ready = "";
}

/**
 * For tests and for the curious: `await cardigan.pixels([0, 1], { label: 3, truncation: 0.7, amounts: [1] })` gives the network's own numbers,
 * [seed, channel, row, column] one after another, of seeds (numbers or text); `cardigan.latents.sampling(seeds)` what they stand for;
 * `await cardigan.redraws(grid, seconds)` how often a second the stage is redrawn while the ring moves. `?engine=javascript` and `?worker=no`
 * behind the page's address do without WebAssembly and without a worker.
 */
window.cardigan = {
  ready: begin().catch(troubled),
  engine: () => engine?.kind,
  latents: (seeds) => seeds.map((seed) => ofSeed(seed).z),
  async pixels(seeds, { label = OWN, truncation = 1, amounts = [] } = {}) {
    await window.cardigan.ready;
    const spots = seeds.map((seed) => ({ z: ofSeed(seed).z, mix: [[label === OWN ? ofSeed(seed).label : label, 1]] }));
    return engine.pictures(...batched(spots, { truncation, amounts }));
  },
  async redraws(grid, seconds) {
    await window.cardigan.ready;
    const before = shown.grid, begin_ = performance.now();
    shown.grid = grid;
    await drawStage();
    redraws = 0;
    const from = performance.now();
    for (let now = from; now - from < 1000 * seconds; now = performance.now()) {
      moveTo(0.5 + 0.4 * Math.sin((now - begin_) / 700), 0.5 + 0.4 * Math.cos((now - begin_) / 900));
      await drawStage();
    }
    const each = redraws / ((performance.now() - from) / 1000);
    shown.grid = before;
    await moveTo(0.5, 0.5);
    return each;
  },
};
}
