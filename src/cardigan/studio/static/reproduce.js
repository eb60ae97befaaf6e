// "Copy the command / the Python": code that reproduces a view's images without the studio.
import { json } from "./api.js";
import { h, announce } from "./dom.js";

/** A panel for one view. `parameters()` returns {view, ...} as for the image endpoints; it is called on each click. */
export function reproduce(id, parameters) {
  const code = h("code");
  const box = h("pre", { class: "code", tabindex: 0, role: "region", "aria-label": "Code that reproduces this view", hidden: true }, code);
  const buttons = [["command", "Copy the command"], ["python", "Copy the Python"]].map(([kind, words]) => {
    const button = h("button", { type: "button", class: "small" }, words);
    button.addEventListener("click", async () => {
      try {
        const response = await json("/api/reproduce", { run: id, ...parameters() });
        code.textContent = response[kind] || "# No single command reproduces this view: copy the Python.";
      } catch (error) {
        code.textContent = error.message;
        box.hidden = false;
        return;
      }
      box.hidden = false;
      const copied = await copy(code);
      button.textContent = copied ? "Copied" : "Press Ctrl-C to copy";
      announce(copied ? "Copied to the clipboard" : "Selected: press Control C to copy");
      setTimeout(() => (button.textContent = words), 1800);
    });
    return button;
  });
  return h("div", { class: "reproduce" }, h("div", { class: "row" }, h("span", { class: "label" }, "Reproduce"), buttons), box);
}

async function copy(code) {
  try {
    await navigator.clipboard.writeText(code.textContent);
    return true;
  } catch {
    getSelection().selectAllChildren(code); // the clipboard needs https or localhost
    return false;
  }
}
