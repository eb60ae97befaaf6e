// All sample sheets of a run: scrub, play, two sheets side by side, the history of one tile.
import { address, latestOnly, fetchImage } from "./api.js";
import { selectField, h, notice, announce, segmented, formatCompact, isTyping, formatInteger } from "./dom.js";
import { imageCanvas, paintSheetHalf, paintTile, tileGrid } from "./images.js";
import { reproduce } from "./reproduce.js";

const CACHED_SHEETS = 48, MAX_TILE_HISTORY = 64;

export async function mount({ host, signal, state, id, run, events }) {
  const { layout } = run, sheets = run.sheets;
  if (!sheets.length) {
    host.append(notice("No sheet has been saved yet: the first one comes with the first step."));
    events.addEventListener("samples", () => (host.replaceChildren(), mount({ host, signal, state, id, run, events })), { signal, once: true });
    return;
  }
  const sheetCache = createSheetCache((at) => fetchImage("/api/sample-sheet", { run: id, images_seen: at }, signal));
  let chosen = Math.min(layout.count - 1, state.number("tile", 0));
  const panes = [historyPane("at", "the first pane"), historyPane("other", "the second pane")];
  const indexOf = (at, defaultIndex) => {
    const found = sheets.indexOf(at);
    return found < 0 ? defaultIndex : found;
  };

  function historyPane(name, label) {
    const grid = tileGrid(layout, { label: (index) => `Tile ${index + 1}`, onPick: pick, markText: (index) => (index === chosen ? "●" : "") });
    const caption = h("b"), count = h("small"), trouble = h("span", { class: "count" });
    const input = h("input", { type: "range", class: "scrub", min: 0, max: sheets.length - 1, step: 1, value: 0, "aria-label": `Sheet of ${label}` });
    const ends = [h("span", {}), h("span", {})];
    const self = {
      element: h("div", { class: "history-pane" }, h("figcaption", {}, caption, count, trouble), h("div", { class: "image-frame" }, grid.element), h("div", { class: "scrubber" }, input, h("div", { class: "ruler", "aria-hidden": "true" }, ends))),
      grid, input, index: 0,
      count() {
        input.max = sheets.length - 1;
        count.textContent = ` sheet ${self.index + 1} of ${sheets.length}`;
        [sheets[0], sheets.at(-1)].forEach((at, end) => (ends[end].textContent = formatCompact(at)));
      },
      go(index) {
        self.index = Math.min(sheets.length - 1, Math.max(0, index));
        input.value = String(self.index);
        self.count();
        caption.textContent = `${formatInteger(sheets[self.index])} images`;
        input.setAttribute("aria-valuetext", caption.textContent);
        state.set({ [name]: self.index === sheets.length - 1 && name === "at" ? null : sheets[self.index] });
        draw(self.index);
        if (self === panes?.[0]) sheetCache.prefetch([sheets[self.index + 1], sheets[self.index + 2], sheets[self.index - 1]]);
      },
    };
    const draw = latestOnly(async (index) => {
      paintSheetHalf(grid.canvas, await sheetCache.get(sheets[index]), layout);
      trouble.textContent = "";
    }, (error) => (trouble.textContent = error.message));
    input.addEventListener("input", () => (stop(), self.go(Number(input.value))));
    return self;
  }

  let timer = 0;
  const speed = () => state.number("speed", 6);
  const play = h("button", { type: "button", class: "primary", on: { click: () => (timer ? stop() : start()) } }, "Play");
  function start() {
    if (panes[0].index >= sheets.length - 1) panes[0].go(0);
    const tick = async () => {
      if (!timer) return;
      const next = panes[0].index + 1;
      if (next >= sheets.length) return stop();
      await sheetCache.get(sheets[next]).catch(() => null); // a slow disk slows playback instead of skipping sheets
      if (!timer || signal.aborted) return;
      panes[0].go(next);
      timer = setTimeout(tick, 1000 / speed());
    };
    timer = setTimeout(tick, 1000 / speed());
    play.textContent = "Pause";
  }
  function stop() {
    clearTimeout(timer);
    timer = 0;
    play.textContent = "Play";
  }
  signal.addEventListener("abort", () => (stop(), sheetCache.clear()));

  const tileHistory = h("div", { class: "tile-history-row", tabindex: 0, role: "region", "aria-label": "Tile over training" });
  const tileHistoryTitle = h("h2", {}), exports = h("div", { class: "row" });
  const drawTileHistory = latestOnly(async () => {
    const bitmap = await fetchImage("/api/tile-history", { run: id, tile: chosen }, signal);
    const count = Math.round((bitmap.width + layout.gap) / (layout.width + layout.gap)), imagesSeen = evenlySpaced(sheets, count);
    const row = { ...layout, columns: count, rows: 1 };
    const cells = imagesSeen.map((at, index) => {
      const canvas = imageCanvas(layout.width, layout.height, "");
      return [canvas, index, h("button", { type: "button", "aria-label": `At ${formatInteger(at)} images`, on: { click: () => (stop(), panes[0].go(indexOf(at, 0))) } }, canvas, h("span", {}, formatCompact(at)))];
    });
    tileHistory.replaceChildren(...cells.map(([, , button]) => button));
    for (const [canvas, index] of cells) paintTile(canvas, bitmap, row, index);
    bitmap.close();
  }, (error) => tileHistory.replaceChildren(notice(error.message, "error")));

  function pick(index) {
    chosen = index;
    state.set({ tile: index });
    panes.forEach((each) => each.grid.mark());
    showTileHistory();
  }
  function showTileHistory() {
    tileHistoryTitle.textContent = `Tile ${chosen + 1} over training`;
    drawTileHistory();
    updateDownloads();
  }
  function updateDownloads() {
    const download = (words, more) => run.animation_formats.map((format) => h("a", { class: "button small", href: address("/api/animation", { run: id, format, fps: speed(), ...more }), download: `${id.split("/").at(-1)}-${words}.${format}` }, format.toUpperCase()));
    exports.replaceChildren(h("span", { class: "label" }, "Save an animation of all images"), h("span", { class: "row" }, download("sheets", {})), h("span", { class: "label" }, "of this tile"), h("span", { class: "row" }, download(`tile-${chosen + 1}`, { tile: chosen })));
  }

  const paneList = h("div", { class: "history-panes" }, panes[0].element);
  const historyLayout = h("div", { class: "history-layout" }, paneList, h("section", { class: "tile-history" }, h("div", { class: "controls" }, tileHistoryTitle, h("span", { class: "count" }, "select another tile on the sheet")), tileHistory, exports));
  const setSideBySide = (on) => {
    state.set({ two: on ? "1" : null, other: on ? state.get("other") : null });
    paneList.replaceChildren(...panes.slice(0, on ? 2 : 1).map((each) => each.element));
    historyLayout.classList.toggle("two", on);
    requestAnimationFrame(() => {
      panes[0].go(panes[0].index);
      if (on) panes[1].go(indexOf(state.number("other", NaN), Math.floor((sheets.length - 1) / 3)));
    });
  };
  const step = (words, by) => h("button", { type: "button", "aria-label": words, title: words, on: { click: () => (stop(), panes[0].go(panes[0].index + by)) } }, by < 0 ? "←" : "→");
  host.append(h("h2", { class: "visually-hidden" }, "History"),
    h("div", { class: "controls" }, step("Previous sheet", -1), play, step("Next sheet", 1),
      selectField("Sheets per second", [[2, "2"], [4, "4"], [6, "6"], [12, "12"], [24, "24"]], speed(), (value) => (state.set({ speed: value }), updateDownloads())),
      segmented("Panes", [["", "One sheet"], ["1", "Two side by side"]], state.get("two", ""), (value) => setSideBySide(value === "1")),
      h("span", { class: "count" }, "All sheets use the same latents, so every change is due to training.")),
    historyLayout, reproduce(id, () => ({ view: "tile-history", tile: chosen })));
  panes[0].index = indexOf(state.number("at", NaN), sheets.length - 1);
  setSideBySide(state.get("two") === "1");
  showTileHistory();

  document.addEventListener("keydown", (event) => {
    if (isTyping(event) || event.target.closest(".tile-history-row")) return;
    const now = panes[0].index, last = sheets.length - 1;
    const next = { ArrowLeft: now - 1, ArrowRight: now + 1, Home: 0, End: last }[event.key];
    if (next !== undefined) (stop(), panes[0].go(next), announce(`${formatInteger(sheets[panes[0].index])} images`));
    else if (event.key === " " && !event.target.closest("button, a, summary")) timer ? stop() : start();
    else return;
    event.preventDefault();
  }, { signal });
  events.addEventListener("samples", () => {
    const newestShown = panes[0].index >= sheets.length - 2;
    for (const each of panes) each.count();
    if (newestShown && !timer) panes[0].go(sheets.length - 1);
    drawTileHistory();
  }, { signal });
}

/** At most `count` evenly spaced items, as the server selects them for the tile history. */
const evenlySpaced = (items, count) => (items.length <= Math.min(count, MAX_TILE_HISTORY) ? items : Array.from({ length: count }, (_, index) => items[Math.round((index * (items.length - 1)) / (count - 1))]));

/** A cache of the most recently used sheets, decoded. */
function createSheetCache(load) {
  const entries = new Map();
  const get = (at) => {
    const found = entries.get(at) ?? load(at);
    entries.delete(at);
    entries.set(at, found);
    found.catch(() => entries.delete(at));
    for (const [old, bitmap] of entries) {
      if (entries.size <= CACHED_SHEETS) break;
      entries.delete(old);
      bitmap.then((each) => each.close(), () => null);
    }
    return found;
  };
  return { get, prefetch: (imagesSeen) => imagesSeen.forEach((at) => at !== undefined && get(at).catch(() => null)), clear: () => entries.clear() };
}
