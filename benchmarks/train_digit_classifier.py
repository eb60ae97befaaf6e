"""Train the digit classifier on the MNIST training digits and write its embedded weights.

    python benchmarks/train_digit_classifier.py [--epochs 10]
                                                [--out src/cardigan/backbones/digit_classifier.safetensors]

Takes three minutes on two CPU cores. Prints the accuracy on the test digits, and the distance of real training
digits: the real baseline of `fd_digits`.
"""

import argparse
import time
from pathlib import Path

import torch
from torch.nn.functional import affine_grid, cross_entropy, dropout, grid_sample

from cardigan.backbones import digit_classifier
from cardigan.backbones.digit_classifier import DigitClassifier
from cardigan.data.mnist import load_mnist
from cardigan.files.tensors import write_tensors
from cardigan.metrics.frechet import fit_gaussian, frechet_distance
from cardigan.pixels import decode
from cardigan.rng import stream

BATCH = 128


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument(
        "--out", type=Path, default=Path(digit_classifier.__file__).with_name("digit_classifier.safetensors")
    )
    options = parser.parse_args()
    began = time.monotonic()
    classifier = train_classifier(options.epochs)
    test = load_mnist("test")
    with torch.no_grad():
        features = torch.cat([classifier.features(decode(chunk)) for chunk in test.pixels.split(500)])
        accuracy = float((classifier.fc(features).argmax(1) == test.labels).float().mean())
    reference = fit_gaussian(features)
    tensors = {f"classifier.{name}": value for name, value in classifier.state_dict().items()}
    write_tensors(
        options.out,
        {**tensors, "reference.mean": reference.mean, "reference.root": reference.root},
        {"test_accuracy": accuracy},
    )
    print(f"test accuracy {accuracy:.4f}, {options.out.stat().st_size / 1e6:.2f} MB, {time.monotonic() - began:.0f} s")
    for start in (0, 5_000, 10_000):
        real = load_mnist("train").pixels[start : start + 5_000]
        with torch.no_grad():
            distance = frechet_distance(
                fit_gaussian(torch.cat([classifier.features(decode(chunk)) for chunk in real.split(500)])), reference
            )
        print(f"training digits {start}..{start + len(real)}: distance {distance:.2f}")


def train_classifier(epochs: int) -> DigitClassifier:
    """Return a classifier trained on augmented training digits; deterministic for equal hardware and thread count."""
    torch.manual_seed(0)
    classifier = DigitClassifier()
    classifier.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue] - missing in torch's stubs
    optimizer = torch.optim.AdamW(classifier.parameters(), weight_decay=0.02, fused=True)
    source = load_mnist("train")
    steps = len(source) // BATCH
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=epochs * steps)
    loss = torch.zeros(())
    for epoch in range(epochs):
        order = torch.randperm(len(source), generator=stream(0, "judge order", epoch))
        for step in range(steps):
            indices = order[step * BATCH : (step + 1) * BATCH]
            images = distort(decode(source.pixels[indices]), stream(0, "judge distortion", epoch * steps + step))
            with torch.autocast("cpu", torch.bfloat16):
                features = torch.relu(classifier.embedding(dropout(classifier.flat_features(images), 0.3)))
                logits = classifier.fc(dropout(features, 0.4))
            loss = cross_entropy(logits.float(), source.labels[indices])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        print(f"epoch {epoch + 1}/{epochs}: loss {float(loss):.4f}", flush=True)
    return classifier.eval()


def distort(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Return the digits slightly rotated, scaled, sheared and shifted."""
    count = len(images)

    def random_shift(width: float) -> torch.Tensor:
        return (torch.rand(count, generator=generator) - 0.5) * width

    angle, scale, shear = random_shift(0.35), 1 + random_shift(0.25), random_shift(0.3)
    top = torch.stack([angle.cos() * scale, -angle.sin() * scale + shear, random_shift(0.21)], dim=1)
    bottom = torch.stack([angle.sin() * scale, angle.cos() * scale, random_shift(0.21)], dim=1)
    grid = affine_grid(torch.stack([top, bottom], dim=1), list(images.shape), align_corners=False)
    return grid_sample(images + 1, grid, align_corners=False) - 1


if __name__ == "__main__":
    main()
