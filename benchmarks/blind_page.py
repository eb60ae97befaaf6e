"""A page on which a person chooses between sheets of two recipes without knowing which is which."""

import base64
import json
import random
from itertools import combinations
from pathlib import Path

import torch

import cardigan
from cardigan.figures.grid import make_grid, png_bytes

SHEET_IMAGES = 24
PAGE = """<!doctype html><meta charset="utf-8"><title>Which sheet is better?</title>
<style>body{font:16px system-ui;margin:2em;max-width:70em}img{width:100%;image-rendering:pixelated;cursor:pointer}
main{display:grid;grid-template-columns:1fr 1fr;gap:2em}</style>
<h1>Which sheet is better?</h1><p id="count"></p><main>
<img id="left" alt="left sheet"><img id="right" alt="right sheet"></main><pre id="result"></pre>
<script>
const pairs = PAIRS; const votes = {}; let number = 0;
const get = (id) => document.getElementById(id);
function interval(wins, total) {  // Wilson 1927, 95 %
  const z = 1.96, p = wins / total, center = (p + z * z / (2 * total)) / (1 + z * z / total);
  const half = z * Math.sqrt(p * (1 - p) / total + z * z / (4 * total * total)) / (1 + z * z / total);
  return `${(100 * (center - half)).toFixed(0)} to ${(100 * (center + half)).toFixed(0)} %`;
}
function show() {
  if (number === pairs.length) {
    document.querySelector("main").remove();
    get("count").textContent = "Thank you. The votes:";
    get("result").textContent = Object.entries(votes).map(([key, [wins, total]]) =>
      `${key}: ${wins} of ${total}, 95 % interval ${interval(wins, total)}`).join("\\n");
    return;
  }
  get("count").textContent = `Pair ${number + 1} of ${pairs.length}: click the better sheet.`;
  for (const side of ["left", "right"]) get(side).src = "data:image/png;base64," + pairs[number][side].png;
}
for (const side of ["left", "right"]) get(side).onclick = () => {
  const pair = pairs[number++], [first, second] = [pair.left.name, pair.right.name].sort();
  const key = `${pair.set}: ${first} preferred to ${second}`;
  votes[key] ??= [0, 0]; votes[key][1]++; if (pair[side].name === first) votes[key][0]++;
  show();
};
show();
</script>
"""


def blind_page(folder: Path, num_pairs: int, seed: int = 0) -> Path:
    """Write FOLDER/blind.html: pairs of sheets of different recipes, of the same set and time, in random order."""
    rng = random.Random(seed)
    results = [(path.parent, json.loads(path.read_text())) for path in sorted(folder.glob("*/result.json"))]
    pairs = [
        (one, other)
        for one, other in combinations(results, 2)
        if all(one[1][key] == other[1][key] for key in ("set", "minutes", "seed"))
    ]
    if not pairs:
        raise SystemExit(f"{folder} holds no two results of the same set, time and seed: run two recipes first.")
    chosen = []
    for number in range(num_pairs):
        pair = list(pairs[number % len(pairs)])
        rng.shuffle(pair)
        sides = {
            side: {"name": result["recipe"], "png": sheet(run, seed=1_000 + number)}
            for side, (run, result) in zip(("left", "right"), pair, strict=True)
        }
        chosen.append({"set": f"{pair[0][1]['set']}, {pair[0][1]['minutes']:g} minutes", **sides})
    rng.shuffle(chosen)
    page = folder / "blind.html"
    page.write_text(PAGE.replace("PAIRS", json.dumps(chosen)))
    return page


def sheet(run: Path, seed: int) -> str:
    images = torch.from_numpy(cardigan.load(run).sample(SHEET_IMAGES, seed)).permute(0, 3, 1, 2)
    return base64.b64encode(png_bytes(make_grid(images))).decode()
