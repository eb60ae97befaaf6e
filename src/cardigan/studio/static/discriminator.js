// D's side of it: what it thinks of real and generated pictures, and what it wants changed.
import { json, newest, picture } from "./api.js";
import { choice, counter, h, lesson, notice, number, reoffer, say, segmented, short, slider, typing, whole } from "./dom.js";
import { reproduce } from "./reproduce.js";
import { colour, ticks } from "./chart.js";
import { frame, layoutOf, paintTile } from "./pictures.js";

const sigmoid = (logit) => 1 / (1 + Math.exp(-logit));

export async function mount({ host, signal, state, id, run, bus }) {
  host.append(h("h2", { class: "unseen" }, "The game"), h("p", { class: "lead" }, "Two networks play. ", h("b", { class: "fake" }, "G"), " draws pictures out of random numbers; ", h("b", { class: "real" }, "D"), " says of each picture whether it is real or drawn. G learns from what D says, and D from being fooled."));
  const beliefs = h("section", { class: "block" }), table = h("section", { class: "block" });
  host.append(beliefs);
  await histograms(beliefs, { signal, state, id, bus });
  host.append(table);
  await opinions(table, { signal, state, id, run, bus });
}

async function histograms(host, { signal, state, id, bus }) {
  let told = await json("/api/opinions", { run: id }, signal);
  const title = h("h2", {}, "What D believes, over time");
  const explained = lesson("How to read this",
    "D answers each picture with one number, its logit. To the right of the dashed line D calls a picture real, to the left it calls it generated; the further out, the surer it is.",
    "At a good moment the two hills overlap: D is often wrong, so G can still learn from it. Hills far apart mean that D wins without effort; hills on top of each other mean that D can tell nothing any more.",
    "The band below is the same over the whole run: every column is one moment, higher means more real, stronger colour means more pictures.");
  const column = h("div", { class: "beliefs" });
  host.append(title, h("div", { class: "taught" }, column, explained));
  const hills = h("canvas", { class: "plot hills", role: "img" }), band = h("canvas", { class: "plot band", "aria-hidden": "true" });
  const caption = h("p", { class: "readout", "aria-live": "polite" });
  const scrub = h("input", { type: "range", class: "scrub", min: 0, step: 1, "aria-label": "Moment" });
  let index = 0;

  const draw = () => {
    const moment = told.moments[index];
    if (!moment) return;
    scrub.value = String(index);
    caption.replaceChildren(h("b", {}, `${whole(moment.images_seen)} images`), h("span", { class: "real" }, `real: ${number(moment.real_mean)} on average, ${share(told, moment.real)} called real`), h("span", { class: "fake" }, `generated: ${number(moment.fake_mean)} on average, ${share(told, moment.fake)} called real`));
    scrub.setAttribute("aria-valuetext", `${whole(moment.images_seen)} images`);
    hills.setAttribute("aria-label", caption.textContent);
    drawHills(hills, told, moment);
    drawBand(band, told, index);
  };
  const go = (next) => {
    index = Math.min(told.moments.length - 1, Math.max(0, next));
    state.set({ at: index === told.moments.length - 1 ? null : told.moments[index].images_seen });
    draw();
  };
  const build = () => {
    if (!told.moments.length) return column.replaceChildren(notice("This run's journal does not tell what D thought at each sheet: it was trained before that was written down, or no sheet has been saved yet. The opinions below are D's present ones."));
    scrub.max = told.moments.length - 1;
    const key = h("ul", { class: "legend" }, h("li", { data: { colour: "real" } }, h("span", { class: "name" }, "real")), h("li", { data: { colour: "fake" } }, h("span", { class: "name" }, "generated")), h("li", {}, h("span", { class: "dash" }), h("span", { class: "name" }, "the decision line")));
    column.replaceChildren(key, hills, caption, band, scrub);
    const found = told.moments.findIndex((moment) => moment.images_seen === state.number("at", NaN));
    index = found < 0 ? told.moments.length - 1 : found;
    draw();
  };
  build();
  scrub.addEventListener("input", () => go(Number(scrub.value)));
  band.addEventListener("pointerdown", (event) => {
    const box = band.getBoundingClientRect();
    go(Math.floor(((event.clientX - box.left) / box.width) * told.moments.length));
  });
  new ResizeObserver(draw).observe(column);
  document.addEventListener("theme", draw, { signal });
  document.addEventListener("keydown", (event) => {
    if (typing(event) || event.target.closest(".opinions") || !told.moments.length) return;
    const next = { ArrowLeft: index - 1, ArrowRight: index + 1, Home: 0, End: told.moments.length - 1 }[event.key];
    if (next === undefined) return;
    event.preventDefault();
    go(next);
    say(caption.textContent);
  }, { signal });
  const again = newest(async () => {
    const last = index >= told.moments.length - 1, seen = told.moments[index]?.images_seen;
    told = await json("/api/opinions", { run: id }, signal);
    if (last || !told.moments.length || told.moments[index]?.images_seen !== seen) build(); // many moments are thinned anew
    else ((scrub.max = told.moments.length - 1), draw());
  }, () => null);
  bus.addEventListener("samples", () => again(), { signal });
}

/** How many percent of the counted pictures lie on D's real side. */
function share(told, counts) {
  const total = counts.reduce((sum, each) => sum + each, 0);
  const right = counts.reduce((sum, each, index) => sum + ((told.edges[index] + told.edges[index + 1]) / 2 > told.boundary ? each : 0), 0);
  return total ? `${Math.round((100 * right) / total)} %` : "–";
}

function sized(canvas, height) {
  const width = canvas.clientWidth, ratio = devicePixelRatio;
  canvas.width = Math.round(width * ratio);
  canvas.height = Math.round(height * ratio);
  const pen = canvas.getContext("2d");
  pen.setTransform(ratio, 0, 0, ratio, 0, 0);
  pen.font = "11px Plex, system-ui, sans-serif";
  return [pen, width];
}

/** The logits' range with the decision line well inside. The wild first tenth of a run does not count, unless it is what is looked at. */
function reach(told, shown) {
  const late = told.moments.slice(Math.ceil(told.moments.length / 10)), counted = shown ? [...late, shown] : late.length ? late : told.moments;
  const used = told.edges.slice(0, -1).map((_, bin) => counted.some((moment) => moment.real[bin] || moment.fake[bin]));
  const low = Math.min(told.edges[Math.max(0, used.indexOf(true))], told.boundary), high = Math.max(told.edges[used.lastIndexOf(true) + 1] ?? told.edges.at(-1), told.boundary);
  const room = 0.25 * (high - low || 1);
  return [Math.min(low, told.boundary - room), Math.max(high, told.boundary + room)];
}

function drawHills(canvas, told, moment) {
  const height = 220, [pen, width] = sized(canvas, height), middle = height / 2;
  if (!width) return;
  const [low, high] = reach(told, moment), x = (value) => ((value - low) / (high - low)) * (width - 24) + 12;
  const most = Math.max(1, ...moment.real, ...moment.fake);
  for (const [name, sign] of [["real", -1], ["fake", 1]]) {
    pen.fillStyle = colour(name);
    moment[name].forEach((count, index) => {
      const left = x(told.edges[index]), right = x(told.edges[index + 1]), tall = (count / most) * (middle - 26);
      pen.fillRect(left + 0.5, sign < 0 ? middle - 9 - tall : middle + 9, Math.max(1, right - left - 1), tall);
    });
  }
  pen.fillStyle = colour("muted");
  pen.textAlign = "center";
  pen.textBaseline = "middle";
  for (const value of ticks(low, high, 8)) pen.fillText(number(value), x(value), middle);
  pen.strokeStyle = colour("ink");
  pen.setLineDash([4, 3]);
  pen.beginPath();
  for (const [from, to] of [[12, middle - 10], [middle + 10, height - 4]]) {
    pen.moveTo(x(told.boundary), from);
    pen.lineTo(x(told.boundary), to);
  }
  pen.stroke();
  pen.setLineDash([]);
  pen.fillStyle = colour("ink");
  pen.textBaseline = "top";
  const tight = width < 480;
  pen.textAlign = "right";
  pen.fillText(tight ? "← generated" : "← D says generated", x(told.boundary) - 8, 0);
  pen.textAlign = "left";
  pen.fillText(tight ? "real →" : "D says real →", x(told.boundary) + 8, 0);
}

function drawBand(canvas, told, index) {
  const height = 150, [pen, width] = sized(canvas, height), [low, high] = reach(told, null);
  if (!width) return;
  const y = (value) => height - ((value - low) / (high - low)) * height, step = width / told.moments.length;
  told.moments.forEach((moment, at) => {
    for (const name of ["real", "fake"]) {
      const most = Math.max(1, ...moment[name]);
      pen.fillStyle = colour(name);
      moment[name].forEach((count, bin) => {
        if (!count) return;
        pen.globalAlpha = 0.12 + 0.78 * (count / most);
        const left = at * step + (name === "real" ? 0 : step / 2);
        pen.fillRect(left, y(told.edges[bin + 1]), step / 2 + 0.3, y(told.edges[bin]) - y(told.edges[bin + 1]) + 0.3);
      });
    }
  });
  pen.globalAlpha = 1;
  pen.strokeStyle = colour("ink");
  pen.setLineDash([4, 3]);
  pen.beginPath();
  pen.moveTo(0, y(told.boundary));
  pen.lineTo(width, y(told.boundary));
  pen.stroke();
  pen.setLineDash([]);
  pen.strokeRect(index * step + 0.5, 0.5, Math.max(2, step - 1), height - 1);
}

async function opinions(host, { signal, state, id, run, bus }) {
  const many = () => state.number("count", 16), first = () => state.number("seed", 0);
  const asked = () => ({ run: id, seed: first(), count: many(), checkpoint: state.get("checkpoint") });
  const trouble = h("div");
  const order = () => state.get("order", "seed");
  const views = { fake: shelf("Generated", "fake"), real: shelf("Real", "real") };
  const zoomed = detail();
  let told = null, bitmaps = {}, chosen = state.number("picked", 0);

  const draw = newest(async () => {
    const parameters = asked();
    const found = await json("/api/game", parameters, signal);
    const [fake, heat, real] = await Promise.all(["fake", "heat", "real"].map((kind) => picture("/api/game.png", { ...parameters, kind }, signal).catch((error) => (kind === "real" ? null : Promise.reject(error)))));
    told = found;
    bitmaps = { fake, heat, real };
    trouble.replaceChildren();
    show();
  }, (error) => {
    trouble.replaceChildren(notice(error.message, "error"));
    body.hidden = true;
  });

  function show() {
    body.hidden = false;
    const layout = told.layout;
    for (const kind of ["fake", "real"]) {
      const found = { list: told[kind] ?? [] };
      const indices = Array.from({ length: kind === "fake" ? layout.count : bitmaps.real ? Math.min(layout.count, run.layout.count) : 0 }, (_, index) => index);
      if (order() === "opinion" && found.list.length) indices.sort((a, b) => (found.list[b] ?? 0) - (found.list[a] ?? 0));
      views[kind].show(indices, found.list, told.probability, layout, bitmaps[kind], kind === "fake" && state.get("heat") === "1" ? bitmaps.heat : null);
    }
    zoomed.show(Math.min(chosen, layout.count - 1));
  }

  function shelf(name, kind) {
    const grid = h("div", { class: "opinions" }), caption = h("span", { class: "count" });
    return {
      element: h("div", { class: "shelf" }, h("h3", {}, name), caption, grid),
      show(indices, logits, probability, layout, bitmap, over) {
        const known = logits.length > 0;
        caption.textContent = known ? `D calls ${logits.filter((logit) => logit > 0).length} of ${logits.length} real` : kind === "real" && indices.length ? "D's opinion of these was not written down" : "";
        grid.style.setProperty("--columns", Math.max(3, Math.min(8, Math.ceil(Math.sqrt(layout.count)))));
        if (grid.children.length !== indices.length) grid.replaceChildren(...indices.map(() => cell(kind, layout)));
        const size = { ...layout, ...(kind === "real" ? layoutOf(layout.count, layout.width, layout.height) : {}) };
        indices.forEach((index, at) => {
          const button = grid.children[at], logit = logits[index];
          const words = logit === undefined ? "–" : probability ? `${Math.round(100 * sigmoid(logit))} %` : number(logit);
          button.dataset.says = logit === undefined ? "" : logit > 0 ? "real" : "fake";
          button.style.setProperty("--sure", `${logit === undefined ? 0 : Math.round(100 * Math.min(1, Math.abs(probability ? 2 * sigmoid(logit) - 1 : logit / 4)))}%`);
          button.querySelector("span").textContent = words;
          const sentence = `${kind === "fake" ? `Generated, seed ${first()}, number ${index}` : `Real picture ${index + 1}`}: D says ${logit === undefined ? "nothing" : `${logit > 0 ? "real" : "generated"}, ${words}`}`;
          button.setAttribute(kind === "fake" ? "aria-label" : "title", sentence);
          if (kind === "fake") {
            button.setAttribute("aria-pressed", index === chosen);
            button.onclick = () => ((chosen = index), state.set({ picked: index }), show());
          }
          if (bitmap) paintTile(button.querySelector("canvas"), over ?? bitmap, size, index);
        });
      },
    };
  }

  function cell(kind, layout) {
    const canvas = frame(layout.width, layout.height, "");
    return kind === "fake" ? h("button", { type: "button" }, canvas, h("span")) : h("figure", {}, canvas, h("span"));
  }

  function detail() {
    const [sample, heat, both] = ["The picture", "What D wants changed", "One over the other"].map((name) => [frame(1, 1, name), name]);
    const words = h("p", { class: "readout" });
    const mix = slider({ label: "How much of the map", min: 0, max: 1, step: 0.05, value: state.number("mix", 0.5), shown: (value) => `${Math.round(100 * value)} %`, moved: (value) => (state.set({ mix: value }), overlay()) });
    const overlay = () => both[0].parentElement.style.setProperty("--mix", state.number("mix", 0.5));
    const under = frame(1, 1, "");
    const figure = ([canvas, name], extra) => h("figure", {}, h("figcaption", {}, name), h("div", { class: "plate stack" }, extra, canvas));
    const element = h("div", { class: "detail" }, h("div", { class: "trio" }, figure(sample), figure(heat), figure(both, under)), words, mix.element);
    overlay();
    return {
      element,
      show(index) {
        const logit = told.fake[index];
        words.textContent = `Picture ${index}: D's logit is ${number(logit)}${told.probability ? `, which means ${Math.round(100 * sigmoid(logit))} % real` : ""}.`;
        for (const [canvas, bitmap] of [[sample[0], bitmaps.fake], [heat[0], bitmaps.heat], [under, bitmaps.fake], [both[0], bitmaps.heat]]) paintTile(canvas, bitmap, told.layout, index);
      },
    };
  }

  const seed = counter("Seed", first(), 0, 1e9, (value) => (state.set({ seed: value }), draw()));
  const body = h("div", { class: "table", hidden: true }, h("div", { class: "taught" }, h("div", { class: "shelves" }, views.fake.element, views.real.element),
    lesson("How to read this", "Every picture has a frame in the colour of what D says of it: teal for real, plum for generated, paler the less sure it is. The number below is D's belief that the picture is real.", "Generated pictures in a teal frame have fooled D. Look for what they have that the others lack: that is what D has learned to look for.", "A loss that gives logits no scale has no percentages; the logit itself stands there instead.")),
  h("h2", {}, "What the judge wants changed"), h("div", { class: "taught" }, zoomed.element,
    lesson("How to read this", "This is all that G ever gets to know: for every pixel, whether D would find the picture more real if it were brighter (orange) or darker (blue). Pale pixels do not matter to D.", "G never sees a real picture. It follows this map, a little with every step, by changing how it draws.", "Good maps point at shapes: an edge, a stroke that is too thin. A map that looks like noise means that D has little to teach here.")));
  const kept = () => [["", "newest"], ...run.checkpoints.map((each) => [each.images_seen, `${short(each.images_seen)}${each.best ? ", best" : ""}`])];
  const players = choice("Players of", kept(), state.get("checkpoint", ""), (value) => (state.set({ checkpoint: value }), draw()));
  bus.addEventListener("run", () => reoffer(players, kept(), state.get("checkpoint", "")), { signal });
  host.append(h("h2", {}, "What D thinks of each picture"),
    h("div", { class: "controls" }, seed.element, h("button", { type: "button", on: { click: () => (seed.set(first() + 1), state.set({ seed: first() + 1 }), draw()) } }, "Next seed"),
      choice("Pictures", [[9, "9"], [16, "16"], [36, "36"], [64, "64"]], many(), (value) => (state.set({ count: value }), draw())),
      players,
      segmented("Order", [["seed", "as drawn"], ["opinion", "most real first"]], order(), (value) => (state.set({ order: value }), told && show())),
      segmented("Show", [["", "pictures"], ["1", "heat maps"]], state.get("heat", ""), (value) => (state.set({ heat: value }), told && show()))),
    trouble, body, reproduce(id, () => ({ view: "game", seed: first(), count: many(), checkpoint: state.get("checkpoint") })));
  await draw();
}
