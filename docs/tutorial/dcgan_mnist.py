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
# Two networks play a game. The **generator** G turns random numbers into pictures. The **discriminator** D looks at a picture and says
# how likely it is to be a real one. D learns to tell the two kinds apart; G learns to make D wrong. Nobody ever shows G a real digit: all it
# gets to know about digits is the direction in which D would have liked its own pictures better.
#
# The game, for a real picture $x$ and random numbers $z$ (Goodfellow and others, 2014, arXiv:1406.2661):
# $\min_G \max_D \; \mathbb E \log D(x) + \mathbb E \log (1 - D(G(z)))$.
#
# Here you write the training loop by hand. It is the game of the Apache MXNet tutorial "DCGAN on MNIST"; at the end the same thing is one command.
# The script runs as it is (`python docs/tutorial/dcgan_mnist.py`), and `jupytext --to ipynb docs/tutorial/dcgan_mnist.py` makes a notebook of it.

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
# MNIST travels with the package. The 10,000 test digits stay out of the game: they are for judging. A DCGAN's natural size is a power of two,
# so each 28x28 digit is stretched to 64x64, scaled from 0..255 to [-1, 1] (the range of the generator's last layer, a tanh), and
# repeated over three channels.
#
# A batch is a function of how many images were seen before it. Nothing has to remember where the last epoch stopped.

# %%
config = cardigan.override(
    cardigan.config_for("mnist", "tutorial"), {"generator.width": WIDTH, "discriminator.width": WIDTH}
)
batches = cardigan.Batches(cardigan.load_mnist("train"), config.data, SEED)
real = batches.batch_at(images_seen=0, batch_size=BATCH).images
print(real.shape, float(real.min()), float(real.max()))

# %% [markdown]
# Your own pictures come in the same way: anything you can turn into a uint8 tensor [N, channels, height, width] is an `ImageSource`, and
# `Batches` shuffles it, stretches it and scales it as above. Here, only the sevens:

# %%
digits = cardigan.load_mnist("train")
is_seven = digits.labels == 7
sevens = cardigan.ImageSource("sevens", digits.pixels[is_seven], digits.labels[is_seven], num_classes=10)
print(len(sevens), cardigan.Batches(sevens, config.data, SEED).batch_at(0, BATCH).images.shape)

# %% [markdown]
# ## 2. Your own source of random numbers
#
# A hundred draws from N(0, 1) for each picture. `stream(seed, purpose, step)` gives a fresh generator of random numbers that depends on its arguments
# and nothing else: step 500 draws the same numbers whether you came from step 499 or from a checkpoint.
# To try another distribution, change this function. The DCGAN paper used `2 * torch.rand(...) - 1`.


# %%
def latents(step: int) -> torch.Tensor:
    return torch.randn(BATCH, config.latent.size, generator=cardigan.stream(SEED, "latents", step))


# %% [markdown]
# ## 3. The two networks
#
# G begins with a 4x4 picture of many channels and doubles its sides four times with 4x4 transposed convolutions; batch normalisation and a ReLU stand
# between them. D goes the other way: four strided convolutions, LeakyReLU, and one number at the end. That number is a *logit*:
# `torch.sigmoid` makes a probability of it. Both start from weights drawn from N(0, 0.02).

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
# With logits $l$, "this is real" costs `softplus(-l)` and "this is generated" costs `softplus(l)`: the cross entropy of a sigmoid,
# without its overflow.
#
# The last step is the heart of it. D judges G's pictures against the label "real", which they are not. We ask for the gradient of
# that error *with respect to the pictures* and pass it back into G. D itself is left alone.


# %%
def iteration(step: int) -> tuple[float, float, float, float]:
    real = batches.batch_at(step * BATCH, BATCH).images
    # 1. The generator draws.
    fake = generator(latents(step))
    # 2. D judges the generated batch against the label "generated". Keep the gradients.
    discriminator_adam.zero_grad()
    fake_logits = discriminator(fake.detach())
    fake_loss = softplus(fake_logits).mean()
    fake_loss.backward()
    # 3. D judges the real batch against the label "real". PyTorch adds the new gradients to the old ones.
    real_logits = discriminator(real)
    real_loss = softplus(-real_logits).mean()
    real_loss.backward()
    # 4. D learns from both.
    discriminator_adam.step()
    # 5. The updated D judges the generated batch against the label "real"; the gradient goes through the pictures into G, which learns.
    generator_adam.zero_grad()
    generator_loss = softplus(-discriminator(fake)).mean()
    (wish,) = torch.autograd.grad(generator_loss, fake)
    fake.backward(wish)
    generator_adam.step()
    d_real, d_fake = torch.sigmoid(real_logits).mean().item(), torch.sigmoid(fake_logits).mean().item()
    return (fake_loss + real_loss).item(), generator_loss.item(), d_real, d_fake


# %% [markdown]
# The fake and the real batch pass through D one after the other, never mixed: batch normalisation uses the statistics of the batch it sees, and
# a mixed batch would let the two kinds leak into each other.
#
# ## 5. Watch it learn
#
# Every fifty steps: generated pictures on the left, real ones on the right.

# %%
OUT.mkdir(parents=True, exist_ok=True)
for step in range(STEPS):
    d_loss, g_loss, d_real, d_fake = iteration(step)
    if step % 50 == 0 or step == STEPS - 1:
        with torch.no_grad():
            drawn = encode(generator(latents(0)))
        (OUT / f"{step:06d}.png").write_bytes(png_bytes(side_by_side(drawn, encode(batches.batch_at(0, BATCH).images))))
        print(f"step {step:4d}  D loss {d_loss:.3f}  G loss {g_loss:.3f}  D(x) {d_real:.3f}  D(G(z)) {d_fake:.3f}")

# %% [markdown]
# ## 6. Reading the numbers
#
# - **D(x) and D(G(z)) near 0.5, D loss near 2 log 2 = 1.386**: D is guessing. Either the pictures are good, or D is too weak to say.
# - **D(x) near 1 and D(G(z)) near 0, D loss near 0, G loss growing**: D has won. Its judgement no longer tells G what to change.
# - **D's loss rises far above 1.386**: G has found something that fools D and pushes it; often the same picture again and again. Look at the samples.
# - The losses do not say how good the pictures are: they measure each player against the other. That is what a judge is for, and why
#   the pictures, not the curves, are shown first.
#
# ## 7. The same in one command
#
#     cardigan train mnist --recipe tutorial
#
# plays this game with the full networks, checkpoints, pictures and a journal; `--resume` goes on after Ctrl-C or a crash, bit for bit. In Python:

# %%
run = cardigan.train(
    "mnist",
    recipe="tutorial",
    out=OUT / "run",
    resume=True,
    images=min(STEPS, 20) * BATCH,
    overrides={"generator.width": WIDTH, "discriminator.width": WIDTH},
)
pictures = cardigan.load(run.path).sample(4, seed=0)
print(run.stopped_by, run.images_seen, pictures.shape)
