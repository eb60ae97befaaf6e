// Images on canvases: tiles of sheets, sharp enlargement, selection by mouse or keyboard.
import { h } from "./dom.js";

/**
 * Draw a part of a bitmap so that it fills the canvas's box. It is enlarged by an integer factor first, so that pixels stay sharp, and scaled smoothly
 * to the box's size.
 */
export function paint(canvas, bitmap, left = 0, top = 0, width = bitmap.width, height = bitmap.height) {
  const box = canvas.clientWidth * devicePixelRatio || width;
  const factor = Math.max(1, Math.min(Math.ceil(box / width), Math.floor(4096 / Math.max(width, height)) || 1));
  canvas.width = width * factor;
  canvas.height = height * factor;
  canvas.style.aspectRatio = `${width} / ${height}`;
  const ctx = canvas.getContext("2d");
  ctx.imageSmoothingEnabled = false;
  ctx.drawImage(bitmap, left, top, width, height, 0, 0, canvas.width, canvas.height);
  canvas.dataset.drawn = "";
}

/** Top left corner of image `index` of a grid, in pixels. */
export const tileOrigin = (layout, index) => [(index % layout.columns) * (layout.width + layout.gap), Math.floor(index / layout.columns) * (layout.height + layout.gap)];

export const gridSize = (layout) => [layout.columns * (layout.width + layout.gap) - layout.gap, layout.rows * (layout.height + layout.gap) - layout.gap];

/** The layout of a grid of `count` images (as figures/layout.py). */
export function layoutOf(count, width, height) {
  const columns = Math.ceil(Math.sqrt(count));
  return { count, columns, rows: Math.ceil(count / columns), width, height, gap: 2 };
}

export function paintSheetHalf(canvas, bitmap, layout, real = false) {
  const [width, height] = gridSize(layout);
  paint(canvas, bitmap, real ? layout.real_left : 0, 0, Math.min(width, bitmap.width), Math.min(height, bitmap.height));
}

export function paintTile(canvas, bitmap, layout, index, offset = 0) {
  const [left, top] = tileOrigin(layout, index);
  paint(canvas, bitmap, left + offset, top, layout.width, layout.height);
}

/** A canvas with its final shape before the image arrives, to avoid layout shifts. Without a label it is hidden from screen readers. */
export function imageCanvas(width, height, label) {
  const canvas = h("canvas", { class: "image", width, height, ...(label ? { role: "img", "aria-label": label } : { "aria-hidden": "true" }) });
  canvas.style.aspectRatio = `${width} / ${height}`;
  return canvas;
}

/**
 * A grid of selectable images. Arrow keys move, Enter or space selects.
 * `label(index)` is an image's name for screen readers, `markText(index)` a short text to show on it, or "".
 */
export function tileGrid(layout, { label, onPick, markText = () => "" }) {
  const canvas = imageCanvas(...gridSize(layout), "");
  const buttons = Array.from({ length: layout.count }, (_, index) =>
    h("button", { type: "button", tabindex: index ? -1 : 0, "aria-label": label(index), on: { click: () => (focusOn(index), onPick(index)) } }),
  );
  const focusOn = (index) => {
    buttons.forEach((button, each) => (button.tabIndex = each === index ? 0 : -1));
    buttons[index].focus({ preventScroll: true });
  };
  const grid = h("div", { class: "tiles-grid", role: "group" }, buttons);
  grid.style.setProperty("--columns", layout.columns);
  grid.addEventListener("keydown", (event) => {
    const now = buttons.indexOf(event.target);
    const step = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -layout.columns, ArrowDown: layout.columns, Home: -now, End: layout.count - 1 - now }[event.key];
    if (step === undefined || now < 0) return;
    event.preventDefault();
    focusOn(Math.min(layout.count - 1, Math.max(0, now + step)));
  });
  const mark = () =>
    buttons.forEach((button, index) => {
      const text = markText(index);
      button.dataset.mark = text;
      button.setAttribute("aria-pressed", text !== "");
    });
  mark();
  return { element: h("div", { class: "tiles" }, canvas, grid), canvas, mark, relabel: () => buttons.forEach((button, index) => button.setAttribute("aria-label", label(index))) };
}
