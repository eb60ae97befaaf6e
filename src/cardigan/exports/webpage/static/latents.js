// The latents of a seed, the same as those of `cardigan sample --seeds`: blake2b of "seed/purpose/0" seeds PyTorch's Mersenne
// Twister (cardigan/rng.py), whose numbers become normal ones in blocks of sixteen as in PyTorch (ATen/native/cpu/DistributionTemplates.h).

const MASK = (1n << 64n) - 1n;
const INITIAL = [0x6a09e667f3bcc908n, 0xbb67ae8584caa73bn, 0x3c6ef372fe94f82bn, 0xa54ff53a5f1d36f1n,
  0x510e527fade682d1n, 0x9b05688c2b3e6c1fn, 0x1f83d9abfb41bd6bn, 0x5be0cd19137e2179n];
const ORDER = [
  [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15], [14, 10, 4, 8, 9, 15, 13, 6, 1, 12, 0, 2, 11, 7, 5, 3],
  [11, 8, 12, 0, 5, 2, 15, 13, 10, 14, 3, 6, 7, 1, 9, 4], [7, 9, 3, 1, 13, 12, 11, 14, 2, 6, 5, 10, 4, 0, 15, 8],
  [9, 0, 5, 7, 2, 4, 10, 15, 14, 1, 11, 12, 6, 8, 3, 13], [2, 12, 6, 10, 0, 11, 8, 3, 4, 13, 7, 5, 15, 14, 1, 9],
  [12, 5, 1, 15, 14, 13, 4, 10, 0, 7, 6, 3, 9, 2, 8, 11], [13, 11, 7, 14, 12, 1, 3, 9, 5, 0, 15, 4, 8, 6, 2, 10],
  [6, 15, 14, 9, 11, 3, 0, 8, 12, 2, 13, 7, 1, 4, 10, 5], [10, 2, 8, 4, 7, 6, 1, 5, 15, 11, 9, 14, 3, 12, 13, 0],
];
const QUARTERS = [[0, 4, 8, 12], [1, 5, 9, 13], [2, 6, 10, 14], [3, 7, 11, 15], [0, 5, 10, 15], [1, 6, 11, 12], [2, 7, 8, 13], [3, 4, 9, 14]];

/** Return BLAKE2b (RFC 7693) with a digest of 8 bytes, read as one big-endian number, of a text shorter than 128 bytes. */
function blake2b(text) {
  const bytes = new TextEncoder().encode(text), block = new Uint8Array(128);
  block.set(bytes);
  const words = new BigUint64Array(16), view = new DataView(block.buffer);
  for (let i = 0; i < 16; i++) words[i] = view.getBigUint64(8 * i, true);
  const state = [...INITIAL];
  state[0] ^= 0x01010000n ^ 8n;
  const v = [...state, ...INITIAL];
  v[12] ^= BigInt(bytes.length);
  v[14] ^= MASK;
  const rotateRight = (x, by) => (x >> by) | ((x << (64n - by)) & MASK);
  for (let round = 0; round < 12; round++) {
    const order = ORDER[round % 10];
    QUARTERS.forEach(([a, b, c, d], i) => {
      v[a] = (v[a] + v[b] + words[order[2 * i]]) & MASK; v[d] = rotateRight(v[d] ^ v[a], 32n);
      v[c] = (v[c] + v[d]) & MASK; v[b] = rotateRight(v[b] ^ v[c], 24n);
      v[a] = (v[a] + v[b] + words[order[2 * i + 1]]) & MASK; v[d] = rotateRight(v[d] ^ v[a], 16n);
      v[c] = (v[c] + v[d]) & MASK; v[b] = rotateRight(v[b] ^ v[c], 63n);
    });
  }
  const digest = new DataView(new ArrayBuffer(8));
  digest.setBigUint64(0, state[0] ^ v[0] ^ v[8], true);
  return digest.getBigUint64(0);
}

/** Return a source of 32-bit numbers: the Mersenne Twister MT19937 (Matsumoto and Nishimura 1998). */
function mersenneTwister(seed) {
  const state = new Uint32Array(624);
  state[0] = seed;
  for (let i = 1; i < 624; i++) state[i] = Math.imul(1812433253, state[i - 1] ^ (state[i - 1] >>> 30)) + i;
  let at = 624;
  return () => {
    if (at === 624) {
      for (let i = 0; i < 624; i++) {
        const y = (state[i] & 0x80000000) | (state[(i + 1) % 624] & 0x7fffffff);
        state[i] = state[(i + 397) % 624] ^ (y >>> 1) ^ (y & 1 ? 0x9908b0df : 0);
      }
      at = 0;
    }
    let y = state[at++];
    y ^= y >>> 11; y ^= (y << 7) & 0x9d2c5680; y ^= (y << 15) & 0xefc60000;
    return (y ^ (y >>> 18)) >>> 0;
  };
}

/** Return the stream of a seed (as text or number) for a purpose, as in cardigan/rng.py. */
const stream = (seed, purpose) => mersenneTwister(Number((blake2b(`${seed}/${purpose}/0`) >> 1n) & 0xffffffffn));

/** Return the z of a seed, as in cardigan/latents/sampling.py. */
function sampleLatent(seed, size, distribution) {
  const next = stream(seed, "sample"), uniform = () => (next() & 0xffffff) / 16777216;
  const z = new Float32Array(size);
  if (distribution === "uniform") return z.map(() => Math.fround(uniform() * 2) - 1);
  if (size < 16) return boxMullerPairs(z, next);
  for (let i = 0; i < size; i++) z[i] = uniform();
  const whole = size - (size % 16);
  for (let at = 0; at < whole; at += 16) boxMullerBlock(z, at);
  if (whole < size) { // the last sixteen are drawn again
    for (let i = size - 16; i < size; i++) z[i] = uniform();
    boxMullerBlock(z, size - 16);
  }
  return z;
}

/** Turn sixteen uniform numbers into normal ones (Box and Muller 1958), eight pairs eight apart. */
function boxMullerBlock(z, at) {
  for (let i = at; i < at + 8; i++) {
    const radius = Math.sqrt(-2 * Math.log(1 - z[i])), angle = 2 * Math.PI * z[i + 8];
    z[i] = radius * Math.cos(angle);
    z[i + 8] = radius * Math.sin(angle);
  }
}

/** Fill fewer than sixteen numbers: pairs in double precision. */
function boxMullerPairs(z, next) {
  const uniform = () => { const high = next(), low = next(); return ((high & 0x1fffff) * 4294967296 + low) / 9007199254740992; };
  for (let i = 0; i < z.length; i += 2) {
    const angle = 2 * Math.PI * uniform(), radius = Math.sqrt(-2 * Math.log1p(-uniform()));
    z[i] = radius * Math.cos(angle);
    if (i + 1 < z.length) z[i + 1] = radius * Math.sin(angle);
  }
  return z;
}

/** Return the class that a seed draws by default. */
/** With `counts` in proportion to them, else each class equally often. */
function sampleLabel(seed, classes, counts) {
  const drawn = stream(seed, "label")();
  if (!counts.length) return drawn % classes;
  let rest = drawn % counts.reduce((sum, count) => sum + count, 0);
  return counts.findIndex((count) => (rest -= count) < 0);
}
