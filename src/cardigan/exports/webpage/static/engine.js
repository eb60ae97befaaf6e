// Runs a program of cardigan/exports/webpage/program.py: operation by operation, in batches of images. Independent of the page.
// All numbers live in one heap of 32-bit floats. Convolutions and linear layers are matrix products of 4 rows by 8 columns at a time
// (cardigan/exports/webpage/matmul.py); the product is WebAssembly where the browser has 128-bit vectors, and plain JavaScript elsewhere.

const ROWS = 4, LANES = 8;
const PANEL_FLOATS = 65536; // columns gathered at a time, which fit in a core's own cache
const TILE_FLOATS = 4194304; // values of a product at a time
const HEAP_FLOATS = 33554432; // 128 MB of values; larger batches are computed in chunks
const size = (shape) => shape.reduce((a, b) => a * b, 1);

/** Return the engine of a program whose tensors lie in `block` as its entries say; `module` is the matrix product in WebAssembly, or null. */
function createEngine(program, block, module) {
  const heap = createHeap(module);
  const tensors = program.operations.map((step) => loadTensors(step, program, block, heap));
  const weightsEnd = heap.end;
  const plan = planMemory(program);
  const floatsPerImage = plan.peak + size(program.operations.at(-1).shape);
  const maxBatch = Math.max(1, Math.min(64, Math.floor(HEAP_FLOATS / floatsPerImage)));

  /** Return a batch of images as [image, channel, row, column] in about [-1, 1]. */
  function generate(z, classes, count) {
    const imageSize = size(program.operations.at(-1).shape), all = new Float32Array(count * imageSize);
    for (let first = 0; first < count; first += maxBatch) {
      const batch = Math.min(maxBatch, count - first);
      const share = (numbers, each) => numbers.subarray(first * each, (first + batch) * each);
      all.set(run(share(z, program.latent_size), classes && share(classes, program.classes), batch), first * imageSize);
    }
    return all;
  }

  function run(z, classes, batch) {
    heap.end = weightsEnd;
    const work = { heap, batch, classes, at: plan.at.map((place) => weightsEnd + place * batch), scratch: weightsEnd + plan.peak * batch };
    heap.reserve(work.scratch);
    heap.floats.set(z, work.at[0]);
    program.operations.forEach((step, number) => {
      const inputs = step.inputs.map((value) => ({ at: work.at[value], shape: value ? program.operations[value - 1].shape : [program.latent_size] }));
      OPERATIONS[step.kind](work, step, inputs, work.at[number + 1], tensors[number]);
    });
    const at = work.at.at(-1);
    return heap.floats.slice(at, at + batch * size(program.operations.at(-1).shape));
  }
  return { generate, kind: module ? "WebAssembly" : "JavaScript" };
}

/** Return the memory of all numbers. `end` is the first free float; `reserve` enlarges the memory to a size. */
function createHeap(module) {
  const memory = module && new WebAssembly.Memory({ initial: 1 });
  const heap = { floats: memory ? new Float32Array(memory.buffer) : new Float32Array(16384), end: 0 };
  heap.reserve = (floats) => {
    if (floats > heap.floats.length) {
      if (memory) {
        memory.grow(Math.ceil((floats - heap.floats.length) / 16384));
        heap.floats = new Float32Array(memory.buffer);
      } else {
        const larger = new Float32Array(Math.ceil(floats * 1.25));
        larger.set(heap.floats);
        heap.floats = larger;
      }
    }
  };
  heap.take = (floats) => {
    const at = Math.ceil(heap.end / 4) * 4;
    heap.end = at + floats;
    heap.reserve(heap.end);
    return at;
  };
  const fast = module && new WebAssembly.Instance(module, { host: { memory } }).exports.matmul;
  heap.matmul = fast ? (a, b, c, ...sizes) => fast(4 * a, 4 * b, 4 * c, ...sizes) : (...given) => matmulTiles(heap.floats, ...given);
  return heap;
}

/** The matrix product of matmul.py in plain JavaScript. Addresses are in floats. */
function matmulTiles(heap, a, b, c, depth, blocks, panels) {
  for (let block = 0; block < blocks; block++) {
    for (let panel = 0; panel < panels; panel++) {
      for (let lane = 0; lane < LANES; lane += 2) {
        let c00 = 0, c01 = 0, c10 = 0, c11 = 0, c20 = 0, c21 = 0, c30 = 0, c31 = 0;
        let row = a + block * depth * ROWS, column = b + panel * depth * LANES + lane;
        for (let k = 0; k < depth; k++, row += ROWS, column += LANES) {
          const left = heap[column], right = heap[column + 1], w0 = heap[row], w1 = heap[row + 1], w2 = heap[row + 2], w3 = heap[row + 3];
          c00 += w0 * left; c01 += w0 * right; c10 += w1 * left; c11 += w1 * right;
          c20 += w2 * left; c21 += w2 * right; c30 += w3 * left; c31 += w3 * right;
        }
        const out = c + (panel * blocks + block) * ROWS * LANES + lane;
        heap[out] = c00; heap[out + 1] = c01; heap[out + 8] = c10; heap[out + 9] = c11;
        heap[out + 16] = c20; heap[out + 17] = c21; heap[out + 24] = c30; heap[out + 25] = c31;
      }
    }
  }
}

/** Return the address of each value, in floats per image. Values that are no longer read are overwritten. */
function planMemory(program) {
  const last = [], own = [0];
  program.operations.forEach((step, number) => {
    own.push(step.kind === "reshape" ? own[step.inputs[0]] : number + 1);
    step.inputs.forEach((value) => { last[own[value]] = number; });
  });
  last[own[program.operations.length]] = Infinity;
  const at = [], living = [];
  let peak = 0;
  own.forEach((value, number) => {
    if (value !== number) return at.push(at[value]);
    const floats = Math.ceil((number ? size(program.operations[number - 1].shape) : program.latent_size) / 4) * 4;
    let place = 0; // the first gap that is large enough among those that are still read, in order of place
    const taken = living.filter((other) => last[other.value] >= number - 1).sort((one, other) => one.at - other.at);
    for (const other of taken) {
      if (other.at - place >= floats) break;
      place = Math.max(place, other.at + other.floats);
    }
    living.splice(0, living.length, ...taken, { value, at: place, floats });
    peak = Math.max(peak, place + floats);
    return at.push(place);
  });
  return { at, peak };
}

/** Decode the tensors of a step into the heap; matrices are laid out as the product reads them. */
function loadTensors(step, program, block, heap) {
  const numbers = step.tensors.map((number) => (number === null ? null : decodeTensor(program.tensors[number], block)));
  const shape = step.tensors.length && program.tensors[step.tensors[0]].shape;
  if (step.kind === "linear") return { ...packMatrix(heap, numbers[0], 1, shape[0], shape[1], false), bias: numbers[1] };
  if (step.kind === "conv2d") {
    return { ...packMatrix(heap, numbers[0], step.groups, shape[0] / step.groups, size(shape.slice(1)), false), kernel: shape.slice(2), bias: numbers[1] };
  }
  if (step.kind === "conv_transpose2d") return { ...packMatrix(heap, numbers[0], 1, size(shape.slice(1)), shape[0], true), kernel: shape.slice(2), bias: numbers[1] };
  return numbers;
}

/** Return the numbers of a tensor: 16-bit floats through a table of all of them, 8-bit integers times their row's scale. */
function decodeTensor({ dtype, shape, offset, scales_offset: scalesOffset }, block) {
  const count = size(shape), here = block.byteOffset + offset;
  if (dtype === "float32") return new Float32Array(block.buffer.slice(here, here + 4 * count));
  const numbers = new Float32Array(count);
  if (dtype === "float16") {
    const halves = new Uint16Array(block.buffer, here, count);
    for (let i = 0; i < count; i++) numbers[i] = FLOAT16_TABLE[halves[i]];
    return numbers;
  }
  const integers = new Int8Array(block.buffer, here, count), row = count / shape[0];
  const factors = new Float32Array(block.buffer, block.byteOffset + scalesOffset, shape[0]);
  for (let i = 0; i < count; i++) numbers[i] = integers[i] * factors[Math.floor(i / row)];
  return numbers;
}

const FLOAT16_TABLE = new Float32Array(65536).map((_, bits) => {
  const exponent = (bits >> 10) & 31, fraction = bits & 1023, sign = bits & 32768 ? -1 : 1;
  return sign * (exponent === 31 ? (fraction ? NaN : Infinity) : exponent ? 2 ** (exponent - 15) * (1 + fraction / 1024) : 2 ** -24 * fraction);
});

/** Lay out `groups` matrices of rows x depth as [group][block of 4 rows][depth][4], filled up with zeros; `turned` reads depth x rows. */
function packMatrix(heap, numbers, groups, rows, depth, turned) {
  const blocks = Math.ceil(rows / ROWS), at = heap.take(groups * blocks * depth * ROWS), floats = heap.floats;
  for (let group = 0; group < groups; group++) {
    for (let row = 0; row < rows; row++) {
      const out = at + (group * blocks + (row >> 2)) * depth * ROWS + (row & 3), first = (group * rows + row) * depth;
      for (let k = 0; k < depth; k++) floats[out + k * ROWS] = numbers[turned ? k * rows + row : first + k];
    }
  }
  return { at, groups, rows, depth, blocks };
}

/**
 * Multiply by a matrix of `columns` columns, as many at a time as the cache holds. `gather(heap, at, first)` writes the 8 columns from `first`
 * on to a panel; `deliver(heap, at, first, count)` reads the 8 columns of the product.
 */
function tiledMatmul(work, weights, group, columns, gather, deliver) {
  const { heap } = work, { depth, blocks } = weights;
  const total = Math.ceil(columns / LANES);
  const most = Math.max(1, Math.min(total, Math.floor(PANEL_FLOATS / (depth * LANES)), Math.floor(TILE_FLOATS / (blocks * ROWS * LANES))));
  heap.end = work.scratch;
  const panels = heap.take(most * depth * LANES), piece = heap.take(most * blocks * ROWS * LANES);
  for (let first = 0; first < total; first += most) {
    const count = Math.min(most, total - first);
    for (let panel = 0; panel < count; panel++) gather(heap.floats, panels + panel * depth * LANES, (first + panel) * LANES);
    heap.matmul(weights.at + group * blocks * depth * ROWS, panels, piece, depth, blocks, count);
    for (let panel = 0; panel < count; panel++) {
      const start = (first + panel) * LANES;
      deliver(heap.floats, piece + panel * blocks * ROWS * LANES, start, Math.min(LANES, columns - start));
    }
  }
}

function linear(work, step, [x], out, weights) {
  const { rows, depth, bias } = weights, columns = work.batch * size(x.shape.slice(0, -1));
  tiledMatmul(work, weights, 0, columns, (heap, at, first) => {
    for (let lane = 0; lane < LANES; lane++) {
      const from = x.at + Math.min(first + lane, columns - 1) * depth;
      for (let k = 0; k < depth; k++) heap[at + k * LANES + lane] = heap[from + k];
    }
  }, (heap, at, first, count) => {
    for (let lane = 0; lane < count; lane++) {
      const to = out + (first + lane) * rows;
      for (let row = 0; row < rows; row++) heap[to + row] = heap[at + row * LANES + lane] + (bias ? bias[row] : 0);
    }
  });
}

const IMAGE_INDEX = new Int32Array(LANES), ROW = new Int32Array(LANES), COLUMN = new Int32Array(LANES);

/** For 8 columns of a product, which are places of maps of this size: note the image of each, and the place in it. */
function locateColumns(first, columns, height, width) {
  for (let lane = 0; lane < LANES; lane++) {
    const column = Math.min(first + lane, columns - 1), pixel = column % (height * width);
    IMAGE_INDEX[lane] = (column - pixel) / (height * width);
    ROW[lane] = Math.floor(pixel / width);
    COLUMN[lane] = pixel % width;
  }
}

function conv2d(work, step, [x], out, weights) {
  const [channels, height, width] = x.shape, [outputs, high, wide] = step.shape, { rows, kernel: [tall, broad], bias, groups } = weights;
  const [strideDown, strideAcross] = step.stride, [above, left] = step.padding, columns = work.batch * high * wide, own = channels / groups;
  const base = new Int32Array(LANES);
  for (let group = 0; group < groups; group++) {
    tiledMatmul(work, weights, group, columns, (heap, at, first) => {
      locateColumns(first, columns, high, wide);
      for (let lane = 0; lane < LANES; lane++) {
        ROW[lane] = ROW[lane] * strideDown - above;
        COLUMN[lane] = COLUMN[lane] * strideAcross - left;
        base[lane] = x.at + (IMAGE_INDEX[lane] * channels + group * own) * height * width + ROW[lane] * width + COLUMN[lane];
      }
      for (let channel = 0; channel < own; channel++) {
        for (let ky = 0; ky < tall; ky++) {
          for (let kx = 0; kx < broad; kx++, at += LANES) {
            const shift = (channel * height + ky) * width + kx;
            for (let lane = 0; lane < LANES; lane++) {
              const y = ROW[lane] + ky, across = COLUMN[lane] + kx;
              heap[at + lane] = y >= 0 && y < height && across >= 0 && across < width ? heap[base[lane] + shift] : 0;
            }
          }
        }
      }
    }, (heap, at, first, count) => {
      locateColumns(first, columns, high, wide);
      for (let lane = 0; lane < count; lane++) {
        base[lane] = out + ((IMAGE_INDEX[lane] * outputs + group * rows) * high + ROW[lane]) * wide + COLUMN[lane];
      }
      for (let row = 0; row < rows; row++) {
        const more = bias ? bias[group * rows + row] : 0, shift = row * high * wide;
        for (let lane = 0; lane < count; lane++) heap[base[lane] + shift] = heap[at + row * LANES + lane] + more;
      }
    });
  }
}

/** A transposed convolution: the product at each place is a window per channel, which is added to the output. */
function convTranspose2d(work, step, [x], out, weights) {
  const [channels, height, width] = x.shape, [outputs, high, wide] = step.shape, { kernel: [tall, broad], bias } = weights;
  const [strideDown, strideAcross] = step.stride, [above, left] = step.padding, columns = work.batch * height * width;
  const base = new Int32Array(LANES);
  for (let plane = 0; plane < work.batch * outputs; plane++) {
    const from = out + plane * high * wide;
    work.heap.floats.fill(bias ? bias[plane % outputs] : 0, from, from + high * wide);
  }
  tiledMatmul(work, weights, 0, columns, (heap, at, first) => {
    locateColumns(first, columns, height, width);
    for (let lane = 0; lane < LANES; lane++) base[lane] = x.at + (IMAGE_INDEX[lane] * channels * height + ROW[lane]) * width + COLUMN[lane];
    for (let channel = 0; channel < channels; channel++, at += LANES) {
      const shift = channel * height * width;
      for (let lane = 0; lane < LANES; lane++) heap[at + lane] = heap[base[lane] + shift];
    }
  }, (heap, at, first, count) => {
    locateColumns(first, columns, height, width);
    for (let lane = 0; lane < count; lane++) {
      ROW[lane] = ROW[lane] * strideDown - above;
      COLUMN[lane] = COLUMN[lane] * strideAcross - left;
      base[lane] = out + IMAGE_INDEX[lane] * outputs * high * wide + ROW[lane] * wide + COLUMN[lane];
    }
    for (let output = 0; output < outputs; output++) {
      for (let ky = 0; ky < tall; ky++) {
        for (let kx = 0; kx < broad; kx++, at += LANES) {
          const shift = (output * high + ky) * wide + kx;
          for (let lane = 0; lane < count; lane++) {
            const y = ROW[lane] + ky, across = COLUMN[lane] + kx;
            if (y >= 0 && y < high && across >= 0 && across < wide) heap[base[lane] + shift] += heap[at + lane];
          }
        }
      }
    }
  });
}

/** Return a step that applies a function to each number. */
const elementwise = (made) => (work, step, [x], out) => {
  const change = made(step), heap = work.heap.floats, count = work.batch * size(step.shape);
  for (let i = 0; i < count; i++) heap[out + i] = change(heap[x.at + i]);
};

/** The most frequent function has its own loop: a call per number takes three times as long. */
function leakyRelu(work, { negative_slope: slope, shape }, [x], out) {
  const heap = work.heap.floats, count = work.batch * size(shape);
  for (let i = 0; i < count; i++) {
    const value = heap[x.at + i];
    heap[out + i] = value < 0 ? slope * value : value;
  }
}

function channelAffine(work, step, [x], out, [scale, shift]) {
  const [channels, ...place_] = step.shape, pixels = size(place_), heap = work.heap.floats;
  for (let plane = 0; plane < work.batch * channels; plane++) {
    const factor = scale[plane % channels], more = shift[plane % channels];
    for (let i = plane * pixels; i < (plane + 1) * pixels; i++) heap[out + i] = heap[x.at + i] * factor + more;
  }
}

/** Return a step that combines two values. Axes of size 1 are repeated. */
const binaryOperation = (joined) => (work, step, inputs, out) => {
  const heap = work.heap.floats, shape = [work.batch, ...[1, 1, 1, ...step.shape].slice(-3)];
  const [one, other] = inputs.map((input) => {
    const own = [1, 1, 1, ...input.shape].slice(-3), strides = [own[0] * own[1] * own[2], own[1] * own[2], own[2], 1];
    return { at: input.at, strides: strides.map((stride, axis) => (axis && own[axis - 1] === 1 ? 0 : stride)) };
  });
  let to = out;
  for (let b = 0; b < shape[0]; b++) for (let c = 0; c < shape[1]; c++) for (let y = 0; y < shape[2]; y++) {
    let left = one.at + b * one.strides[0] + c * one.strides[1] + y * one.strides[2];
    let right = other.at + b * other.strides[0] + c * other.strides[1] + y * other.strides[2];
    for (let x = 0; x < shape[3]; x++, left += one.strides[3], right += other.strides[3]) heap[to++] = joined(heap[left], heap[right]);
  }
};

function embedding(work, step, inputs, out, [table]) {
  const heap = work.heap.floats, count = size(step.shape), classes = table.length / count;
  for (let b = 0; b < work.batch; b++) for (let i = 0; i < count; i++) {
    let sum = 0;
    for (let c = 0; c < classes; c++) sum += work.classes[b * classes + c] * table[c * count + i];
    heap[out + b * count + i] = sum;
  }
}

function constant(work, step, inputs, out, [numbers]) {
  for (let b = 0; b < work.batch; b++) work.heap.floats.set(numbers, out + b * numbers.length);
}

function softmax(work, step, [x], out) {
  const heap = work.heap.floats, width = step.shape.at(-1), count = work.batch * size(step.shape);
  for (let first = 0; first < count; first += width) {
    let most = -Infinity, sum = 0;
    for (let i = first; i < first + width; i++) most = Math.max(most, heap[x.at + i]);
    for (let i = first; i < first + width; i++) sum += heap[out + i] = Math.exp(heap[x.at + i] - most);
    for (let i = first; i < first + width; i++) heap[out + i] /= sum;
  }
}

function upsampleNearest(work, step, [x], out) {
  const [channels, high, wide] = step.shape, [, height, width] = x.shape, heap = work.heap.floats;
  const down = Array.from({ length: high }, (_, y) => Math.floor(y * height / high) * width);
  const across = Int32Array.from({ length: wide }, (_, at) => Math.floor(at * width / wide));
  let to = out;
  for (let plane = 0; plane < work.batch * channels; plane++) for (let y = 0; y < high; y++) {
    const from = x.at + plane * height * width + down[y];
    for (let i = 0; i < wide; i++) heap[to++] = heap[from + across[i]];
  }
}

/** Return a step that reduces each window to one number, beginning with `start`. */
const pool2d = (start, joined, ended) => (work, step, [x], out) => {
  const [channels, high, wide] = step.shape, [, height, width] = x.shape, [tall, broad] = step.kernel_size, heap = work.heap.floats;
  let to = out;
  for (let plane = 0; plane < work.batch * channels; plane++) for (let y = 0; y < high; y++) for (let i = 0; i < wide; i++) {
    let sum = start;
    for (let ky = 0; ky < tall; ky++) for (let kx = 0; kx < broad; kx++) {
      sum = joined(sum, heap[x.at + (plane * height + y * tall + ky) * width + i * broad + kx]);
    }
    heap[to++] = ended(sum, tall * broad);
  }
};

function concatenate(work, step, inputs, out) {
  const outer = work.batch * size(step.shape.slice(0, step.axis)), heap = work.heap.floats;
  const lengths = inputs.map((input) => size(input.shape.slice(step.axis)));
  let to = out;
  for (let i = 0; i < outer; i++) inputs.forEach((input, part) => {
    heap.copyWithin(to, input.at + i * lengths[part], input.at + (i + 1) * lengths[part]);
    to += lengths[part];
  });
}

function slice(work, step, [x], out) {
  const outer = work.batch * size(step.shape.slice(0, step.axis)), inner = size(step.shape.slice(step.axis + 1)), heap = work.heap.floats;
  const length = step.shape[step.axis] * inner, whole = x.shape[step.axis] * inner;
  for (let i = 0; i < outer; i++) {
    const from = x.at + i * whole + step.start * inner;
    heap.copyWithin(out + i * length, from, from + length);
  }
}

function transpose(work, step, [x], out) {
  const [tall, broad] = step.shape, heap = work.heap.floats;
  for (let b = 0; b < work.batch; b++) for (let i = 0; i < tall; i++) for (let j = 0; j < broad; j++) {
    heap[out + (b * tall + i) * broad + j] = heap[x.at + (b * broad + j) * tall + i];
  }
}

function matmul(work, step, [one, other], out) {
  const [tall, broad] = step.shape, depth = one.shape[1], heap = work.heap.floats;
  heap.fill(0, out, out + work.batch * tall * broad);
  for (let b = 0; b < work.batch; b++) for (let i = 0; i < tall; i++) for (let k = 0; k < depth; k++) {
    const factor = heap[one.at + (b * tall + i) * depth + k], from = other.at + (b * depth + k) * broad, to = out + (b * tall + i) * broad;
    for (let j = 0; j < broad; j++) heap[to + j] += factor * heap[from + j];
  }
}

const OPERATIONS = {
  linear, conv2d, conv_transpose2d: convTranspose2d, channel_affine: channelAffine, leaky_relu: leakyRelu, embedding, constant, softmax, upsample_nearest: upsampleNearest, concatenate, slice, transpose, matmul,
  tanh: elementwise(() => Math.tanh),
  sigmoid: elementwise(() => (x) => 1 / (1 + Math.exp(-x))),
  scalar_affine: elementwise(({ factor, offset }) => (x) => factor * x + offset),
  add: binaryOperation((one, other) => one + other),
  multiply: binaryOperation((one, other) => one * other),
  avg_pool2d: pool2d(0, (one, other) => one + other, (sum, count) => sum / count),
  max_pool2d: pool2d(-Infinity, Math.max, (most) => most),
  reshape: () => {}, // the same values in another shape
};
