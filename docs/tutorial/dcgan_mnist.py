# ---
# jupyter:
#   jupytext:
#     formats: py:percent,md
#   kernelspec:
#     display_name: Python 3
#     name: python3
# ---

# %% [markdown]
# # A DCGAN on MNIST, step by step
#
# You write a GAN by hand: the data, the random numbers, the two networks, and one iteration in five steps. At the end,
# the generator draws digits that you can read. The steps are those of the Apache MXNet tutorial "DCGAN on MNIST". At
# the very end, one command does the same.
#
# A GAN has two networks. The **generator** G turns random numbers into images. The **discriminator** D takes an image
# and outputs the probability that it is real. D learns to distinguish real and generated images. G learns to make D
# wrong. G never sees a real digit: its only signal is the gradient of D with respect to the generated images.
#
# The objective, for a real image $x$ and random numbers $z$ (Goodfellow et al., 2014, arXiv:1406.2661):
# $\min_G \max_D \; \mathbb E \log D(x) + \mathbb E \log (1 - D(G(z)))$.
#
# **You need** Python, a little PyTorch (tensors, `backward`, an optimizer) and the words convolution and batch
# normalization. You do not need a GPU, and nothing is downloaded: the digits are part of the package.
#
# **How to run it.** The page `dcgan_mnist.md`, the notebook `dcgan_mnist.ipynb` and the script `dcgan_mnist.py` have
# the same content. The notebook shows the pictures while G learns, and the code of the answers is folded in it.
#
# | command | result |
# |---|---|
# | `python docs/tutorial/dcgan_mnist.py` | trains the small size, writes the images to `runs/tutorial-by-hand` |
# | `TUTORIAL=full python docs/tutorial/dcgan_mnist.py` | trains the size of the MXNet tutorial |
# | `jupyter lab docs/tutorial/dcgan_mnist.ipynb` | opens the notebook (`pip install jupyterlab`) |
#
# The MXNet tutorial, side by side with this one:
#
# | step | MXNet tutorial | here |
# |---|---|---|
# | 1 | MNIST by scikit-learn, `np.random.seed(1)`, `np.random.permutation` | `cardigan.load_mnist`, seed 1 |
# | 1 | `cv2.resize` to 64x64, `/ (255 / 2) - 1`, `np.tile` to three channels | the function `prepare` |
# | 1 | `mx.io.NDArrayIter` | our class `ImageIter` |
# | 2 | `class RandIter(mx.io.DataIter)` | our class `RandIter` |
# | 3 | `mx.sym.Deconvolution`, `mx.sym.Convolution`, `mx.sym.BatchNorm(fix_gamma=True)` | the same layers of PyTorch |
# | 3 | `mx.sym.LogisticRegressionOutput` | a logit, and the loss `softplus` |
# | 4 | `Module.bind`, `init_params(Normal(0.02))`, `init_optimizer("adam")` | `nn.init.normal_`, `torch.optim.Adam` |
# | 5 | `forward`, `backward`, `update`, gradients saved and added by hand | the same, in five steps |
# | 6 | `visualize`: generated beside real, every 50 batches | `side_by_side`, every 50 batches |

# %%
import os
import sys
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.nn.functional import interpolate, softplus

import cardigan
from cardigan.metrics import array_sampler, load_reference

# %% [markdown]
# One variable chooses the size. The channels are those of the hidden layers, from the first to the last.
#
# | size | images | channels of G | channels of D | batch | steps | time |
# |---|---|---|---|---|---|---|
# | `small` | 32x32 | 128, 64, 32 | 8, 16, 32 | 32 | 4000 | 6 minutes of processor time |
# | `full` | 64x64 | 1024, 512, 256, 128 | 128, 256, 512, 1024 | 64 | 938, one epoch | about 50 minutes, estimated |
# | `test` | 32x32 | 16, 8, 4 | 4, 8, 16 | 32 | 3 | seconds; it only shows that the code runs |
#
# The small D has a quarter of G's width. A D as wide as G wins for so long that the digits come much later.

# %%
SIZES = {
    "small": {"generator": (128, 64, 32), "discriminator": (8, 16, 32), "batch": 32, "steps": 4000},
    "full": {"generator": (1024, 512, 256, 128), "discriminator": (128, 256, 512, 1024), "batch": 64, "steps": 938},
    "test": {"generator": (16, 8, 4), "discriminator": (4, 8, 16), "batch": 32, "steps": 3},
}
SIZE = os.environ.get("TUTORIAL", "small")
GENERATOR_CHANNELS, DISCRIMINATOR_CHANNELS, BATCH, STEPS = SIZES[SIZE].values()
SIDE = 4 * 2 ** len(GENERATOR_CHANNELS)  # each layer doubles the side: 4, 8, 16, 32
LATENT = 100
SEED = int(os.environ.get("TUTORIAL_SEED", "0"))
OUT = Path(os.environ.get("TUTORIAL_OUT", "runs/tutorial-by-hand"))
OUT.mkdir(parents=True, exist_ok=True)
torch.manual_seed(SEED)

# %% [markdown]
# ## 1. The digits
#
# We take the 60,000 training digits (`"all"` adds the 10,000 test digits, as in the MXNet tutorial, but then no digits
# are left to evaluate with). We permute them with the seed 1.

# %%
digits = cardigan.load_mnist("train").pixels  # uint8 [60000, 1, 28, 28]
order = torch.from_numpy(np.random.RandomState(1).permutation(len(digits)))
digits = digits[order]
print(digits.shape, digits.dtype)


# %% [markdown]
# The side of a DCGAN's image is a power of two, because each layer doubles or halves it. So we resize 28x28 to 64x64
# (or to 32x32 for the small size), bilinearly, and round to whole gray levels. Then we scale 0..255 to [-1, 1], the
# range of G's last layer (a tanh). Last, we repeat the gray channel three times, as for a color image.


# %%
def prepare(pixels: torch.Tensor) -> torch.Tensor:
    """Return uint8 digits [N, 1, 28, 28] as images [N, 3, SIDE, SIDE] in [-1, 1]."""
    resized = interpolate(pixels.float(), size=(SIDE, SIDE), mode="bilinear", align_corners=False).round()
    scaled = resized / 127.5 - 1
    return scaled.tile(1, 3, 1, 1)


# %% [markdown]
# An image iterator returns the next batch. After the last digit it starts again with the first.


# %%
class ImageIter:
    """Endless batches of the digits, in their order."""

    def __init__(self, pixels: torch.Tensor, batch_size: int) -> None:
        self.pixels, self.batch_size = pixels, batch_size
        self.position = 0

    def __iter__(self) -> "ImageIter":
        return self

    def __next__(self) -> torch.Tensor:
        indices = torch.arange(self.position, self.position + self.batch_size) % len(self.pixels)
        self.position += self.batch_size
        return prepare(self.pixels[indices])


image_iter = ImageIter(digits, BATCH)
real = next(ImageIter(digits, 64))  # always the same digits, for the pictures
print(real.shape, real.min().item(), real.max().item())

# %% [markdown]
# Cardigan's own data pipeline gives the same images:

# %%
overrides = {
    "batch_size": BATCH,
    "data.height": SIDE,
    "data.width": SIDE,
    "generator.width": GENERATOR_CHANNELS[-1],
    "discriminator.width": DISCRIMINATOR_CHANNELS[0],
}
config = cardigan.override(cardigan.config_for("mnist", "tutorial"), overrides)
cardigan_images = cardigan.load_mnist("train").images_at(order[:64], config.data)
assert torch.equal(real, cardigan_images)

# %% [markdown]
# ## 2. Your own source of random numbers
#
# Each image starts from 100 samples of N(0, 1). G begins with a 1x1 feature map, so the shape of a batch of 64 is
# [64, 100, 1, 1].


# %%
class RandIter:
    """Endless batches of random numbers, N(0, 1)."""

    def __init__(self, batch_size: int, latent_size: int, seed: int) -> None:
        self.shape = (batch_size, latent_size, 1, 1)
        self.generator = torch.Generator().manual_seed(seed)

    def __iter__(self) -> "RandIter":
        return self

    def __next__(self) -> torch.Tensor:
        return torch.randn(self.shape, generator=self.generator)


rand_iter = RandIter(BATCH, LATENT, SEED)
z = next(RandIter(64, LATENT, seed=1))  # always the same numbers, for the pictures
print(z.shape, z.mean().item(), z.std().item())

# %% [markdown]
# ## 3. The two networks, layer by layer
#
# **Batch normalization** subtracts the mean of each channel and divides by its standard deviation. Then it adds a shift
# that is learned. The scale stays 1 (`fix_gamma` in MXNet).


# %%
def batch_norm(channels: int) -> nn.BatchNorm2d:
    layer = nn.BatchNorm2d(channels, eps=1e-5 + 1e-12)
    layer.weight.requires_grad_(False)
    return layer


# %% [markdown]
# **The generator.** The first 4x4 transposed convolution turns the 1x1 map into 4x4. Each following one doubles the
# side and halves the channels. Batch normalization and a ReLU follow each of them. The last transposed convolution has
# three channels, and a tanh brings them to [-1, 1]. No convolution has a bias.


# %%
def build_generator() -> nn.Sequential:
    layers: list[nn.Module] = [
        nn.ConvTranspose2d(LATENT, GENERATOR_CHANNELS[0], 4, stride=1, padding=0, bias=False),
        batch_norm(GENERATOR_CHANNELS[0]),
        nn.ReLU(),
    ]
    for wide, narrow in zip(GENERATOR_CHANNELS, GENERATOR_CHANNELS[1:], strict=False):
        layers += [
            nn.ConvTranspose2d(wide, narrow, 4, stride=2, padding=1, bias=False),
            batch_norm(narrow),
            nn.ReLU(),
        ]
    return nn.Sequential(
        *layers, nn.ConvTranspose2d(GENERATOR_CHANNELS[-1], 3, 4, stride=2, padding=1, bias=False), nn.Tanh()
    )


# %% [markdown]
# **The discriminator** does the reverse. Each 4x4 convolution with stride 2 halves the side and doubles the channels. A
# LeakyReLU with slope 0.2 follows, and batch normalization from the second layer on. The last convolution gives one
# number for each image, a *logit*: `torch.sigmoid` turns it into a probability.


# %%
def build_discriminator() -> nn.Sequential:
    channels = DISCRIMINATOR_CHANNELS
    layers: list[nn.Module] = [nn.Conv2d(3, channels[0], 4, stride=2, padding=1, bias=False), nn.LeakyReLU(0.2)]
    for narrow, wide in zip(channels, channels[1:], strict=False):
        layers += [
            nn.Conv2d(narrow, wide, 4, stride=2, padding=1, bias=False),
            batch_norm(wide),
            nn.LeakyReLU(0.2),
        ]
    return nn.Sequential(*layers, nn.Conv2d(channels[-1], 1, 4, stride=1, padding=0, bias=False), nn.Flatten(0))


# %% [markdown]
# The shapes after each layer:


# %%
def print_shapes(network: nn.Sequential, x: torch.Tensor) -> None:
    print(f"{'input':16}", list(x.shape))
    for layer in network:
        x = layer(x)
        print(f"{type(layer).__name__:16}", list(x.shape))


generator, discriminator = build_generator(), build_discriminator()
print_shapes(generator, z)
print_shapes(discriminator, real)

# %% [markdown]
# ## 4. Initial weights and optimizers
#
# MXNet has to *bind* a network to the shape of its input before it can run. PyTorch does not: it takes the shape from
# the input. What is left is the same. The initial weights of all convolutions are samples of N(0, 0.02). Each network
# has its own Adam with learning rate 0.0002 and beta1 0.5.


# %%
def initialize(network: nn.Module) -> None:
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.normal_(layer.weight, mean=0, std=0.02)


def trainable(network: nn.Module) -> list[nn.Parameter]:
    return [weight for weight in network.parameters() if weight.requires_grad]


initialize(generator)
initialize(discriminator)
generator_adam = torch.optim.Adam(trainable(generator), lr=2e-4, betas=(0.5, 0.999))
discriminator_adam = torch.optim.Adam(trainable(discriminator), lr=2e-4, betas=(0.5, 0.999))

# %% [markdown]
# Are these the networks of Cardigan's recipe `tutorial`? We copy our weights into them and compare the outputs.

# %%
spec = cardigan.ImageSpec(channels=3, height=SIDE, width=SIDE, num_classes=0)
cardigan_generator = cardigan.build_generator(config, spec)
cardigan_discriminator = cardigan.build_discriminator(config, spec)


def copy_weights(source: nn.Module, target: nn.Module) -> None:
    for kind in (nn.Conv2d | nn.ConvTranspose2d, nn.BatchNorm2d):
        sources = [layer for layer in source.modules() if isinstance(layer, kind)]
        targets = [layer for layer in target.modules() if isinstance(layer, kind)]
        for source_layer, target_layer in zip(sources, targets, strict=True):
            target_layer.load_state_dict(source_layer.state_dict())


copy_weights(generator, cardigan_generator)
copy_weights(discriminator, cardigan_discriminator)
with torch.no_grad():
    torch.testing.assert_close(generator(z), cardigan_generator(z.flatten(1)), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(discriminator(real), cardigan_discriminator(real), atol=1e-5, rtol=1e-4)

# %% [markdown]
# ## 5. One iteration, in five steps
#
# For a logit $l$, the loss for the label 1 (real) is `softplus(-l)`, and for the label 0 (generated) it is
# `softplus(l)`: the cross entropy of a sigmoid, without overflow.
#
# 1. G generates a batch from random numbers.
# 2. D gets the generated batch with the label 0. We save the gradients of D's weights.
# 3. D gets the real batch with the label 1. We add the saved gradients by hand.
# 4. Adam updates D.
# 5. The updated D gets the generated batch again, now with the label 1. We compute the gradient *with respect to the
#    images* and pass it back through G. Adam updates G. The weights of D do not change.
#
# The generated and the real batch go through D separately. Batch normalization uses the statistics of the batch, and a
# mixed batch would have different ones (exercise 4).


# %%
def iteration(real: torch.Tensor, z: torch.Tensor) -> dict[str, float]:
    weights = trainable(discriminator)
    # 1. G generates a batch.
    fake = generator(z)
    # 2. Label 0 for the generated batch; save the gradients.
    fake_logits = discriminator(fake.detach())
    fake_loss = softplus(fake_logits).mean()
    saved_gradients = torch.autograd.grad(fake_loss, weights)
    # 3. Label 1 for the real batch; add the saved gradients.
    real_logits = discriminator(real)
    real_loss = softplus(-real_logits).mean()
    real_gradients = torch.autograd.grad(real_loss, weights)
    for weight, fake_gradient, real_gradient in zip(weights, saved_gradients, real_gradients, strict=True):
        weight.grad = fake_gradient + real_gradient
    # 4. Update D.
    discriminator_adam.step()
    # 5. Label 1 for the generated batch; the gradient goes through the images to G. Update G.
    generator_loss = softplus(-discriminator(fake)).mean()
    (image_gradient,) = torch.autograd.grad(generator_loss, fake)
    generator_adam.zero_grad()
    fake.backward(image_gradient)
    generator_adam.step()
    return {
        "D loss": (fake_loss + real_loss).item(),
        "G loss": generator_loss.item(),
        "D(x)": torch.sigmoid(real_logits).mean().item(),
        "D(G(z))": torch.sigmoid(fake_logits).mean().item(),
    }


# %% [markdown]
# ## 6. Training, with a picture every 50 batches
#
# The picture shows 64 generated digits on the left and 64 real digits on the right. The generated ones come from the
# same random numbers each time, so you can follow each digit.


# %%
def to_pixels(images: torch.Tensor) -> np.ndarray:
    """Return images [64, 3, side, side] in [-1, 1] as one picture: 8 rows of 8, uint8 [8 * side, 8 * side, 3]."""
    side = images.shape[-1]
    tiles = images.reshape(8, 8, 3, side, side)
    sheet = tiles.permute(0, 3, 1, 4, 2).reshape(8 * side, 8 * side, 3)  # rows, y, columns, x, channels
    return ((sheet + 1) * 127.5).round().clamp(0, 255).byte().numpy()


def side_by_side(fake: torch.Tensor, real: torch.Tensor) -> Image.Image:
    """Return generated digits on the left, real ones on the right, and a gray bar between them."""
    left, right = to_pixels(fake), to_pixels(real)
    bar = np.full((len(left), 8, 3), 128, dtype=np.uint8)
    return Image.fromarray(np.concatenate([left, bar, right], axis=1))


# %%
def save(picture: Image.Image, name: str) -> Image.Image:
    """Write the picture and return it; a notebook shows what the last line of a cell returns."""
    picture.save(OUT / f"{name}.png", optimize=True)
    return picture


def show(picture: Image.Image, step: int) -> None:
    """Show the picture in a notebook, in place of the one before. A script has no page to show it on."""
    if "ipykernel" in sys.modules:
        from IPython.display import display

        display(picture, display_id="training", update=step > 0)


def compare() -> Image.Image:
    with torch.no_grad():
        return side_by_side(generator(z), real)


began = time.monotonic()
for step in range(STEPS):
    values = iteration(next(image_iter), next(rand_iter))
    if step % 50 == 0:
        show(save(compare(), f"{step:06d}"), step)
        print(f"step {step:5d}", *(f"  {name} {value:.3f}" for name, value in values.items()), flush=True)
print(f"{STEPS} steps in {time.monotonic() - began:.0f} seconds")
save(compare(), "last")

# %% [markdown]
# **What you should see** (size `small`, seed 0; generated on the left, real on the right):
#
# At step 0, noise:
#
# ![gray noise on the left, real digits on the right](images/000000.png)
#
# After 500 steps, spots of light where the digits will be:
#
# ![white spots on the left, real digits on the right](images/000500.png)
#
# After 1500 steps, strokes on a black background:
#
# ![broken strokes on the left, real digits on the right](images/001500.png)
#
# After 4000 steps, most of them are digits that you can read:
#
# ![generated digits on the left, real digits on the right](images/last.png)
#
# ## 7. Reading the numbers
#
# | numbers | meaning |
# |---|---|
# | D(x) and D(G(z)) near 0.5, D loss near 2 log 2 = 1.386 | D is guessing: the images are good, or D is too weak. |
# | D(x) near 1, D(G(z)) near 0, D loss near 0 | D is sure. Normal at the start. If the images stay bad, D has won. |
# | D loss far above 1.386 | G exploits a weakness of D, often by repeating the same image. Look at the pictures. |
#
# The losses do not measure the quality of the images: they compare the two networks with each other. Look at the
# pictures, or compute a metric. `fd_digits` is a Frechet distance over the features of a digit classifier. Smaller is
# better.


# %%
def to_mnist(images: torch.Tensor) -> torch.Tensor:
    """Return images in [-1, 1] as gray uint8 digits [N, 1, 28, 28]."""
    gray = interpolate(images.mean(dim=1, keepdim=True), size=(28, 28), mode="bilinear", antialias=True)
    return ((gray + 1) * 127.5).round().clamp(0, 255).byte()


num_samples = 128 if SIZE == "test" else 2048
with torch.no_grad():
    samples = torch.cat([to_mnist(generator(next(rand_iter))) for _ in range(num_samples // BATCH)])
report = cardigan.evaluate(
    array_sampler(samples), load_reference(config), num_samples=num_samples, metrics=["frechet"], baseline=False
)
print({name: round(value.value, 1) for name, value in report.metrics.items()})

# %% [markdown]
# Three runs of this script (`TUTORIAL_SEED=0`, 1, 2; the losses are those of step 3950; 2,048 samples):
#
# | seed | D loss | G loss | D(x) | D(G(z)) | `fd_digits` | processor time |
# |---|---|---|---|---|---|---|
# | 0 | 0.998 | 1.016 | 0.565 | 0.334 | 198.9 | 5.4 minutes |
# | 1 | 0.914 | 1.227 | 0.700 | 0.402 | 212.5 | 5.4 minutes |
# | 2 | 0.881 | 1.586 | 0.704 | 0.393 | 198.7 | 5.4 minutes |
#
# They ran at the same time, on two cores of an AMD EPYC (AVX2, no bf16) that other programs used too, with one thread
# each. For comparison: the full size after one epoch, by `cardigan train mnist --recipe tutorial`, has 199 (196-267, 3
# seeds, 5,000 samples). Real digits have 1.5.
#
# ## 8. The same in one command
#
#     cardigan train mnist --recipe tutorial
#
# trains the full networks and writes checkpoints, images and a journal. `--resume` continues after Ctrl-C or a crash,
# bit for bit. In Python, at our size:

# %%
run = cardigan.train(
    "mnist",
    recipe="tutorial",
    out=OUT / "run",
    resume=True,
    images=min(STEPS, 20) * BATCH,
    overrides=overrides,
)
images = cardigan.load(run.path).sample(4, seed=0)
print(run.stopped_by, run.images_seen, images.shape)

# %% [markdown]
# ## 9. Exercises
#
# 1. Train on the sevens only.
# 2. Take $z$ from the uniform distribution on [-1, 1], as the DCGAN paper does (arXiv:1511.06434).
# 3. Show how one digit becomes another: move $z$ in a straight line from one point to another.
# 4. Send one mixed batch of 32 real and 32 generated images through D. Are the logits of the real images the same as
#    before? Why does it matter?
# 5. G's loss in the objective above is `-softplus(fake_logits)`, and we use `softplus(-fake_logits)`. Compare their
#    gradients for a logit of -5, where D is sure that the image is generated.
# 6. Make D win: give it four updates for each update of G. Which numbers and which pictures show it?
# 7. Research: add the R1 penalty to D's loss, the squared norm of the gradient of D's logits with respect to the real
#    images (Mescheder et al., 2018, arXiv:1801.04406). Does `fd_digits` get better? Say it so that a reader can trust
#    it: how many seeds, how many steps, and how large is the spread?
#
# ## 10. Answers
#
# 1. Select the digits by their labels. Everything else stays the same.

# %%
mnist = cardigan.load_mnist("train")
sevens = mnist.pixels[mnist.labels == 7]
print(len(sevens), next(ImageIter(sevens, 64)).shape)


# %% [markdown]
# 2. Only `__next__` changes.


# %%
class UniformIter(RandIter):
    """Endless batches of random numbers, uniform on [-1, 1]."""

    def __next__(self) -> torch.Tensor:
        return 2 * torch.rand(self.shape, generator=self.generator) - 1


uniform_z = next(UniformIter(64, LATENT, seed=1))
print(uniform_z.min().item(), uniform_z.max().item())

# %% [markdown]
# 3. The 64 points of the line are one batch. In `.train()` mode, batch normalization would use the statistics of these
#    64 similar images. `.eval()` uses the averages that it collected during training.
#
#    ![a broad stroke that becomes a 5 in 64 steps](images/line.png)

# %%
start, end = z[0], z[1]
line = torch.stack([torch.lerp(start, end, number / 63) for number in range(64)])
generator.eval()
with torch.no_grad():
    images_of_line = generator(line)
generator.train()
save(Image.fromarray(to_pixels(images_of_line)), "line")

# %% [markdown]
# 4. No, they differ. In a mixed batch the mean and the deviation of each channel depend on both halves. So the logit of
#    a real image depends on the generated images beside it, and G can change D's logits of real images.

# %%
with torch.no_grad():
    fake = generator(z)
    separate = discriminator(real)[:32]
    mixed = discriminator(torch.cat([real[:32], fake[:32]]))[:32]
print("largest difference:", (separate - mixed).abs().max().item())

# %% [markdown]
# 5. The gradient of the first is nearly 0: where D is sure, G does not learn. This is why GANs use the second, the
#    *non-saturating* loss.

# %%
logit = torch.tensor(-5.0, requires_grad=True)
for name, loss in {"-softplus(l)": -softplus(logit), "softplus(-l)": softplus(-logit)}.items():
    print(name, torch.autograd.grad(loss, logit)[0].item())

# %% [markdown]
# 6. Repeat steps 2 to 4 four times. D(x) goes to 1, D(G(z)) to 0 and G's loss grows. The pictures stay gray or repeat
#    one shape, because a D that is always right gives G no useful direction.
# 7. The penalty needs the gradient of a gradient: `create_graph=True`. Add `10 / 2 * r1_penalty(real)` to `real_loss`.
#    Train both versions with the same three seeds and the same steps. The difference is a result if it is larger than
#    the spread between the seeds. Count time too: the penalty needs a second backward pass through D. Cardigan's
#    [results](../results.md) have such a table: two losses, with and without penalties.


# %%
def r1_penalty(real: torch.Tensor) -> torch.Tensor:
    """Return the mean squared norm of the gradient of D's logits with respect to real images."""
    real = real.clone().requires_grad_(True)
    (gradient,) = torch.autograd.grad(discriminator(real).sum(), real, create_graph=True)
    return gradient.square().sum(dim=(1, 2, 3)).mean()


print("R1 of our D:", r1_penalty(real).item())

# %% [markdown]
# **Where to go from here.** The whole training in one file of plain PyTorch: [one_file_gan.py](one_file_gan.py). Your
# own loss, penalty, network or distribution of $z$, with all of Cardigan around it: [extend.md](../guides/extend.md).
# [What the losses mean](../learn/losses.md), and [why GANs collapse](../learn/collapse.md). To move through the latent
# space of a longer run in this notebook: `cardigan.load("runs/NAME").explore()`.
