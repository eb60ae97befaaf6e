// "Copy the command / the Python": what makes the same pictures without the studio.
import { json } from "./api.js";
import { h, announce } from "./dom.js";

/** A panel for one view. `parameters()` returns {view, ...} as the server's pictures take them; it is asked when the user asks. */
export function reproduce(id, parameters) {
  const code = h("code");
  const box = h("pre", { class: "code", tabindex: 0, role: "region", "aria-label": "Code that makes this again", hidden: true }, code);
  const buttons = [["command", "Copy the command"], ["python", "Copy the Python"]].map(([kind, words]) => {
    const button = h("button", { type: "button", class: "small" }, words);
    button.addEventListener("click", async () => {
      try {
        const made = await json("/api/reproduce", { run: id, ...parameters() });
        code.textContent = made[kind] || "# No single command makes this: copy the Python.";
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
  return h("div", { class: "reproduce" }, h("div", { class: "row" }, h("span", { class: "label" }, "Make it again"), buttons), box);
}

async function copy(code) {
  try {
    await navigator.clipboard.writeText(code.textContent);
    return true;
  } catch {
    getSelection().selectAllChildren(code); // an address that is neither https nor local may not write the clipboard
    return false;
  }
}
