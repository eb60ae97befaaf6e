// Interpolation in latent space, as in cardigan/latents/interpolation.py: arcs between normal latents, lines between uniform ones.

/** Return the latent at t (0..1) between two. */
function interpolate(a, b, t, distribution) {
  if (t === 0 || t === 1) return Float32Array.from(t ? b : a); // without rounding: a corner is that seed's image
  const dot = (p, q) => p.reduce((sum, x, i) => sum + x * q[i], 0);
  const line = () => a.map((x, i) => x + t * (b[i] - x));
  const lengths = [Math.sqrt(dot(a, a)), Math.sqrt(dot(b, b))];
  if (distribution !== "normal" || a.length === 1 || !lengths[0] || !lengths[1]) return line();
  const one = Array.from(a, (x) => x / lengths[0]), other = Array.from(b, (x) => x / lengths[1]);
  const apart = Math.sqrt(one.reduce((sum, x, i) => sum + (x - other[i]) ** 2, 0)), along = Math.sqrt(one.reduce((sum, x, i) => sum + (x + other[i]) ** 2, 0));
  const angle = 2 * Math.atan2(apart, along);
  if (angle < 1e-5) return line();
  const smallest = one.reduce((least, x, i) => (Math.abs(x) < Math.abs(one[least]) ? i : least), 0);
  const plane = Math.PI - angle < 1e-5 ? one.map((_, i) => (i === smallest ? 1 : 0)) : other; // opposite latents span no plane
  const shared = dot(one, plane), across = plane.map((x, i) => x - shared * one[i]), length = Math.sqrt(dot(across, across));
  const size = lengths[0] + t * (lengths[1] - lengths[0]), [toward, aside] = [Math.cos(t * angle) * size, Math.sin(t * angle) * size / length];
  return Float32Array.from(one, (x, i) => toward * x + aside * across[i]);
}

/** Return the latent at (x, y) of a square whose corners are top left, top right, bottom left, bottom right. */
function interpolateCorners(corners, x, y, distribution) {
  return interpolate(interpolate(corners[0], corners[1], x, distribution), interpolate(corners[2], corners[3], x, distribution), y, distribution);
}

/** Return the weight of each corner at (x, y). */
const cornerWeights = (x, y) => [(1 - x) * (1 - y), x * (1 - y), (1 - x) * y, x * y];

/** Return the columns x rows places spread `span` around (x, y), row by row; those that would be outside lie on the edge. */
function gridPositions(x, y, grid, span) {
  const steps = Array.from({ length: grid }, (_, step) => (grid === 1 ? 0 : span * (step / (grid - 1) - 0.5)));
  const inside = (value) => Math.min(1, Math.max(0, value));
  return steps.flatMap((down) => steps.map((across) => [inside(x + across), inside(y + down)]));
}
