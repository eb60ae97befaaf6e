# ---
# jupyter:
#   jupytext:
#     formats: py:percent,ipynb
#   kernelspec:
#     display_name: Python 3
#     name: python3
# ---

# %% [markdown]
# # A DCGAN on MNIST, step by step
#
# A GAN has two networks. The **generator** G turns random numbers into images. The **discriminator** D takes an image
# and outputs the probability that it is real. D learns to distinguish real and generated images. G learns to make D
# wrong. G never sees a real digit: its only signal is the gradient of D with respect to the generated images.
#
# The objective, for a real image $x$ and random numbers $z$ (Goodfellow et al., 2014, arXiv:1406.2661):
# $\min_G \max_D \; \mathbb E \log D(x) + \mathbb E \log (1 - D(G(z)))$.
#
# Here you write the training loop by hand. It trains the model of the Apache MXNet tutorial "DCGAN on MNIST"; at the
# end one command does the same. The script runs as it is (`python docs/tutorial/dcgan_mnist.py`), and `jupytext --to
# ipynb docs/tutorial/dcgan_mnist.py` converts it to a notebook.

# %%
import os
from pathlib import Path

import torch
from torch.nn.functional import softplus

import cardigan
from cardigan.figures.grid import png_bytes, side_by_side
from cardigan.pixels import encode

STEPS = int(os.environ.get("TUTORIAL_STEPS", "200"))  # an epoch is 938
WIDTH = int(os.environ.get("TUTORIAL_WIDTH", "16"))  # the tutorial's networks have 128
OUT = Path(os.environ.get("TUTORIAL_OUT", "runs/tutorial-by-hand"))
BATCH, SEED = 64, 0

# %% [markdown]
# ## 1. The digits
#
# MNIST is part of the package. The 10,000 test digits are not used for training, but for evaluation. The size of a
# DCGAN is usually a power of two, so each 28x28 digit is resized to 64x64, scaled from 0..255 to [-1, 1] (the range
# of the generator's last layer, a tanh), and repeated over three channels.
#
# A batch is a function of the number of images seen before it, so the data loader has no state to save.

# %%
config = cardigan.override(
    cardigan.config_for("mnist", "tutorial"), {"generator.width": WIDTH, "discriminator.width": WIDTH}
)
batches = cardigan.Batches(cardigan.load_mnist("train"), config.data, SEED)
real = batches.batch_at(images_seen=0, batch_size=BATCH).images
print(real.shape, float(real.min()), float(real.max()))

# %% [markdown]
# Your own images work the same way: an `ImageSource` holds any uint8 tensor [N, channels, height, width], and `Batches`
# shuffles, resizes and scales it as above. Here, only the sevens:

# %%
digits = cardigan.load_mnist("train")
is_seven = digits.labels == 7
sevens = cardigan.ImageSource("sevens", digits.pixels[is_seven], digits.labels[is_seven], num_classes=10)
print(len(sevens), cardigan.Batches(sevens, config.data, SEED).batch_at(0, BATCH).images.shape)

# %% [markdown]
# ## 2. Your own source of random numbers
#
# Each image starts from 100 samples of N(0, 1). `stream(seed, purpose, step)` returns a new random number generator
# that depends only on its arguments: step 500 gets the same numbers after step 499 and after loading a checkpoint. To
# try another distribution, change this function. The DCGAN paper uses `2 * torch.rand(...) - 1`.


# %%
def latents(step: int) -> torch.Tensor:
    return torch.randn(BATCH, config.latent.size, generator=cardigan.stream(SEED, "latents", step))


# %% [markdown]
# ## 3. The two networks
#
# G starts with a 4x4 feature map of many channels and doubles its side four times with 4x4 transposed convolutions,
# each followed by batch normalization and a ReLU. D does the reverse: four strided convolutions with LeakyReLU, and
# one number at the end. That number is a *logit*: `torch.sigmoid` turns it into a probability. The initial weights of
# both networks are samples of N(0, 0.02).

# %%
spec = cardigan.ImageSpec(channels=3, height=64, width=64, num_classes=0)
torch.manual_seed(SEED)
generator = cardigan.build_generator(config, spec)
discriminator = cardigan.build_discriminator(config, spec)
print(generator)


# %%
def adam(network: torch.nn.Module) -> torch.optim.Adam:
    return torch.optim.Adam(
        [weight for weight in network.parameters() if weight.requires_grad], lr=2e-4, betas=(0.5, 0.999)
    )


generator_adam, discriminator_adam = adam(generator), adam(discriminator)

# %% [markdown]
# ## 4. One iteration, in five steps
#
# For a logit $l$, the loss for the label "real" is `softplus(-l)`, and for the label "generated" it is `softplus(l)`:
# the cross entropy of a sigmoid, without overflow.
#
# The last step is the most important one. We compute D's loss on generated images with the label "real". Then we take
# its gradient *with respect to the images* and pass it back into G. The weights of D do not change.


# %%
def iteration(step: int) -> tuple[float, float, float, float]:
    real = batches.batch_at(step * BATCH, BATCH).images
    # 1. G generates a batch.
    fake = generator(latents(step))
    # 2. D's loss on the generated batch, with the label "generated". Keep the gradients.
    discriminator_adam.zero_grad()
    fake_logits = discriminator(fake.detach())
    fake_loss = softplus(fake_logits).mean()
    fake_loss.backward()
    # 3. D's loss on the real batch, with the label "real". PyTorch adds the gradients to those of step 2.
    real_logits = discriminator(real)
    real_loss = softplus(-real_logits).mean()
    real_loss.backward()
    # 4. Update D.
    discriminator_adam.step()
    # 5. The updated D's loss on the generated batch with the label "real". The gradient goes through the images to G.
    generator_adam.zero_grad()
    generator_loss = softplus(-discriminator(fake)).mean()
    (image_gradient,) = torch.autograd.grad(generator_loss, fake)
    fake.backward(image_gradient)
    generator_adam.step()
    d_real, d_fake = torch.sigmoid(real_logits).mean().item(), torch.sigmoid(fake_logits).mean().item()
    return (fake_loss + real_loss).item(), generator_loss.item(), d_real, d_fake


# %% [markdown]
# The generated and the real batch pass through D separately: batch normalization uses the statistics of the batch,
# and a mixed batch would leak information between the two.
#
# ## 5. Train
#
# Every fifty steps the script writes an image: generated on the left, real on the right.

# %%
OUT.mkdir(parents=True, exist_ok=True)
for step in range(STEPS):
    d_loss, g_loss, d_real, d_fake = iteration(step)
    if step % 50 == 0 or step == STEPS - 1:
        with torch.no_grad():
            samples = encode(generator(latents(0)))
        (OUT / f"{step:06d}.png").write_bytes(
            png_bytes(side_by_side(samples, encode(batches.batch_at(0, BATCH).images)))
        )
        print(f"step {step:4d}  D loss {d_loss:.3f}  G loss {g_loss:.3f}  D(x) {d_real:.3f}  D(G(z)) {d_fake:.3f}")

# %% [markdown]
# ## 6. Reading the numbers
#
# - **D(x) and D(G(z)) near 0.5, D loss near 2 log 2 = 1.386**: D is guessing: the images are good, or D is too weak.
# - **D(x) near 1 and D(G(z)) near 0, D loss near 0, G loss growing**: D has won. Its gradient no longer helps G.
# - **D's loss far above 1.386**: G exploits a weakness of D, often by repeating the same image. Look at the samples.
# - The losses do not measure image quality: they compare the two networks with each other. Metrics do (`cardigan
#   evaluate`), and so does looking at the images.
#
# ## 7. The same in one command
#
#     cardigan train mnist --recipe tutorial
#
# trains the full networks and writes checkpoints, images and a journal. `--resume` continues after Ctrl-C or a crash,
# bit for bit. In Python:

# %%
run = cardigan.train(
    "mnist",
    recipe="tutorial",
    out=OUT / "run",
    resume=True,
    images=min(STEPS, 20) * BATCH,
    overrides={"generator.width": WIDTH, "discriminator.width": WIDTH},
)
images = cardigan.load(run.path).sample(4, seed=0)
print(run.stopped_by, run.images_seen, images.shape)
