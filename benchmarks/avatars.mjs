// Draw cartoon faces with DiceBear: node avatars.mjs STYLE COUNT SIDE FOLDER, where its packages are installed.
// Avatar number i is a function of the style and i. PNGs of SIDE x SIDE pixels on a background color of the seed's.
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const [style, count, side, folder] = process.argv.slice(2);
const require = createRequire(join(process.cwd(), "package.json"));
const load = (name) => import(pathToFileURL(require.resolve(name)).href);
const { createAvatar } = await load("@dicebear/core");
const collection = await load("@dicebear/collection");
const { Resvg } = await load("@resvg/resvg-js");
const BACKGROUNDS = ["b6e3f4", "c0aede", "d1d4f9", "ffd5dc", "ffdfbf"];

mkdirSync(folder, { recursive: true });
for (let number = 0; number < Number(count); number++) {
  const svg = createAvatar(collection[style], { seed: `${style}-${number}`, backgroundColor: BACKGROUNDS }).toString();
  const png = new Resvg(svg, { fitTo: { mode: "width", value: Number(side) } }).render().asPng();
  writeFileSync(join(folder, `${String(number).padStart(5, "0")}.png`), png);
}
