"""The demo page at `/`: a form, the generated images, and the equivalent curl command.

Uses the routes of `app.py`. Loads no other files.
"""

import base64
import hashlib

STYLE = """
:root { color-scheme: light dark; --line: color-mix(in srgb, currentColor 25%, transparent) }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 46rem; margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.4rem; margin: 0 } #model-info { margin: 0 0 1.5rem; opacity: .75 }
form { display: flex; flex-wrap: wrap; gap: .75rem; align-items: end }
label { display: grid; font-size: .85rem } input, button { font: inherit; padding: .3rem .5rem; width: 7rem }
#token { width: 14rem }
img { image-rendering: pixelated; min-width: min(100%, 16rem); max-width: 100%; margin: 1.5rem 0 0; display: block }
pre { border: 1px solid var(--line); border-radius: 6px; padding: .75rem;
  white-space: pre-wrap; overflow-wrap: anywhere }
#message { color: #b3261e; min-height: 1.5em } @media (prefers-color-scheme: dark) { #message { color: #f2b8b5 } }
"""

SCRIPT = """
const $ = id => document.getElementById(id)
const authorization = () => $("token").value ? { authorization: `Bearer ${$("token").value}` } : {}
let classes = -1

function requestBody() {
  const body = { n: Number($("n").value), truncation: Number($("truncation").value) }
  if ($("seed").value !== "") body.seed = Number($("seed").value)
  const label = $("label").value.trim()
  if (label !== "") body.labels = /^\\d+$/.test(label) ? Number(label) : label
  return body
}

function command(body) {
  const token = $("token").value ? ` -H 'Authorization: Bearer '"$CARDIGAN_TOKEN"` : ""
  const quoted = JSON.stringify(body).replaceAll("'", "'\\\\''")
  return `curl ${location.origin}/v1/images${token} -H 'Content-Type: application/json' \\\\\\n`
    + `  -d '${quoted}' -o images.png`
}

async function showModelInfo() {
  const response = await fetch("/v1/model", { headers: authorization() })
  if (!response.ok) return
  const model = await response.json()
  classes = model.classes
  $("model-info").textContent = `${model.name}: ${model.height}x${model.width}x${model.channels}, `
    + (classes ? `${classes} classes` : "unconditional")
    + `, ${model.images_seen.toLocaleString()} images seen, sha256 ${model.sha256.slice(0, 12)}`
  $("label").disabled = !classes
  $("n").max = model.limits.max_images
}

async function openOpenapi(event) {
  if (!$("token").value) return  // the browser follows the link
  event.preventDefault()
  const response = await fetch("/openapi.json", { headers: authorization() })
  $("message").textContent = response.ok ? "" : (await response.json()).error
  if (response.ok) location.assign(URL.createObjectURL(await response.blob()))
}

async function generate(event) {
  event?.preventDefault()
  const body = requestBody()
  $("command").textContent = command(body)
  if (classes < 0) await showModelInfo()
  const headers = { "content-type": "application/json", accept: "image/png", ...authorization() }
  try {
    const response = await fetch("/v1/images", { method: "POST", headers, body: JSON.stringify(body) })
    $("message").textContent = response.ok ? "" : (await response.json()).error
    if (!response.ok) return
    URL.revokeObjectURL($("image").src)
    $("image").src = URL.createObjectURL(await response.blob())
    const seeds = response.headers.get("cardigan-seed") ?? response.headers.get("cardigan-seeds")
    const labels = response.headers.get("cardigan-labels")
    $("image").alt = `${body.n} generated images`
      + (seeds ? `, seed ${seeds}` : "") + (labels ? `, classes ${labels}` : "")
    $("caption").textContent = (seeds ? `seed ${seeds}` : "") + (labels ? `; classes ${labels}` : "")
  } catch {
    $("message").textContent = "The server does not respond."
  }
}

$("form").addEventListener("submit", generate)
$("openapi-link").addEventListener("click", openOpenapi)
generate()
"""

PAGE = f"""<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,">
<title>Images from Cardigan</title>
<style>{STYLE}</style>
<main>
<h1>Images from a generator</h1>
<p id="model-info">Enter the token to see the model's details.</p>
<form id="form">
<label>Images <input id="n" type="number" min="1" value="16"></label>
<label>Seed <input id="seed" type="number" min="0" value="0" placeholder="any"></label>
<label>Class <input id="label" placeholder="any"></label>
<label>Truncation <input id="truncation" type="number" min="0" max="1" step="0.05" value="1"></label>
<label>Token (if required) <input id="token" type="password" autocomplete="off"></label>
<button>Generate</button>
</form>
<p id="message" role="status"></p>
<img id="image" alt="">
<p id="caption"></p>
<pre id="command"></pre>
<p>Media types for <code>Accept</code>: <code>image/png</code> (one image, or a grid), <code>image/webp</code>,
<code>application/json</code>, <code>application/x-npz</code>, <code>application/zip</code>.
API description: <a id="openapi-link" href="/openapi.json">openapi.json</a>.</p>
</main>
<script>{SCRIPT}</script>
</html>
""".encode()


def _csp_digest(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


CONTENT_SECURITY_POLICY = (
    f"default-src 'none'; script-src 'sha256-{_csp_digest(SCRIPT)}'; style-src 'sha256-{_csp_digest(STYLE)}'; "
    "img-src blob: data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""Allows only the script and the style above."""
