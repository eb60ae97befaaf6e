"""The short help of `cardigan train`: what most trainings need. `--help-all` shows every setting."""

COMMON_OPTIONS = (
    ("--minutes M", "stop after M minutes, starting and saving included"),
    ("--images N", "stop after N training images"),
    ("--size S", "side of the training images in pixels, as in 64 or 96x64"),
    ("--out RUN", "the folder of the run (default: runs/DATE-TIME-NAME)"),
    ("--resume", "continue the run in --out, bit for bit"),
    ("--from MODEL", "start from a trained model or a starter; auto chooses"),
    ("--conditional", "train on the classes of the images"),
    ("--data.labels L", "where classes are: folders, a column, a CSV file"),
    ("--recipe NAME", "another recipe (cardigan recipes lists them)"),
    ("--batch-size N", "images per step"),
    ("--device D", "auto, cpu, cuda, cuda:1 or mps"),
    ("--seed N", "seed of all randomness (default: 0)"),
    ("--studio", "watch the run in the browser"),
    ("--track NAME", "send the run to tensorboard, wandb, mlflow or trackio"),
    ("--quiet", "print nothing but errors"),
)
"""Options as they are written, and what they do, at most 80 columns together."""


def short_help() -> str:
    lines = [f"  {option:<17} {purpose}" for option, purpose in COMMON_OPTIONS]
    return "\n".join(
        [
            "usage: cardigan train SOURCE [options]",
            "",
            "Train a GAN. SOURCE is mnist, stacked-mnist, a folder of images, a zip, tar,",
            ".npz, .npy or parquet file, hf:NAME, or shards. Settings that you do not give",
            "are chosen for the images and this machine, and printed with their reasons.",
            "",
            *lines,
            "",
            "All settings:      cardigan train --help-all",
            "Examples:          cardigan train mnist --minutes 2",
            "                   cardigan train photos/ --minutes 60",
            "                   cardigan train photos/ --from icons-64",
        ]
    )
