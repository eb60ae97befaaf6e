// A model card's Markdown as elements. Text is never read as HTML. Supports what cards use, not all of Markdown.

/** Return an element with attributes and children; text is never read as HTML. */
function h(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children.flat());
  return element;
}

/** Return the elements of a card: the front matter, which is for programs, last. */
function renderMarkdown(text) {
  const [, front, rest] = text.match(/^---\n([\s\S]*?)\n---\n?([\s\S]*)$/) ?? [null, "", text];
  const lines = rest.split("\n"), elements = [];
  while (lines.length) {
    const line = lines.shift();
    if (!line.trim()) continue;
    const heading = line.match(/^(#{1,4}) +(.*)/);
    const takeLines = (like) => { const block = [line]; while (lines.length && like(lines[0])) block.push(lines.shift()); return block; };
    if (heading) elements.push(h(`h${Math.min(6, heading[1].length + 2)}`, {}, inline(heading[2])));
    else if (/^(```|~~~)/.test(line)) {
      const code = [];
      while (lines.length && !/^(```|~~~)/.test(lines[0])) code.push(lines.shift());
      lines.shift();
      elements.push(h("pre", { tabindex: 0 }, code.join("\n")));
    } else if (/^\s*\|/.test(line)) elements.push(table(takeLines((next) => /^\s*\|/.test(next))));
    else if (/^\s*([-*+]|\d+\.) /.test(line)) {
      const items = takeLines((next) => next.trim() && !/^(#|```|\|)/.test(next)).join("\n").split(/\n?^\s*(?:[-*+]|\d+\.) +/m).slice(1);
      elements.push(h(/^\s*\d/.test(line) ? "ol" : "ul", {}, items.map((item) => h("li", {}, inline(item)))));
    } else if (line.startsWith(">")) elements.push(h("blockquote", {}, inline(takeLines((next) => next.startsWith(">")).map((each) => each.replace(/^> ?/, "")).join(" "))));
    else elements.push(h("p", {}, inline(takeLines((next) => next.trim() && !/^(#{1,4} |```|\s*\||>|\s*[-*+] )/.test(next)).join(" "))));
  }
  if (front) elements.push(h("h4", {}, "Metadata"), h("pre", { tabindex: 0 }, front));
  return elements;
}

function table(lines) {
  const rows = lines.filter((line) => !/^\s*\|[\s:|-]+\|?\s*$/.test(line)).map((line) => line.trim().replace(/^\||\|$/g, "").split(/(?<!\\)\|/).map((cell) => cell.trim().replaceAll("\\|", "|")));
  const [head, ...body] = rows;
  return h("div", { class: "wide", tabindex: 0, role: "region", "aria-label": "Table" }, h("table", {},
    h("thead", {}, h("tr", {}, head.map((cell) => h("th", { scope: "col" }, inline(cell))))),
    h("tbody", {}, body.map((row) => h("tr", {}, row.map((cell) => h("td", {}, inline(cell))))))));
}

const INLINE = /`([^`]+)`|\*\*([^*]+)\*\*|\*([^*\s][^*]*)\*|\[([^\]]+)\]\((https?:\/\/[^\s)]+)\)|<?(https?:\/\/[^\s<>)]*[^\s<>).,;:])>?/g;

/** Return text with the characters that entities such as &#60; stand for. */
const decoded = (text) => text.replace(/&#(\d{1,7});/g, (_, code) => String.fromCodePoint(Math.min(Number(code), 0x10ffff)));

/** Return a line's text and elements; only http and https addresses become links. */
function inline(text) {
  const elements = [];
  let from = 0;
  for (const found of text.matchAll(INLINE)) {
    const [all, code, strong, soft, words, target, bare] = found;
    elements.push(decoded(text.slice(from, found.index)));
    from = found.index + all.length;
    if (code) elements.push(h("code", {}, code));
    else if (strong) elements.push(h("b", {}, inline(strong)));
    else if (soft) elements.push(h("i", {}, inline(soft)));
    else elements.push(h("a", { href: target ?? bare, rel: "noopener noreferrer" }, decoded(words ?? bare)));
  }
  return [...elements, decoded(text.slice(from))];
}
