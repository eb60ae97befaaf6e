"""Options that people know from other programs, and what does the same here.

The programs: PyTorch's DCGAN example, the StyleGAN family, lightweight-gan, diffusers, and common habits.
"""

OTHER_WORDS: dict[tuple[str, ...], tuple[str, str]] = {
    ("epochs", "epoch", "num-epochs", "n-epochs", "niter", "num-train-epochs"): (
        "--images",
        "training images in all; an epoch is as many as the source has",
    ),
    ("kimg", "total-kimg", "duration"): ("--images", "1 kimg is 1,000 images"),
    ("steps", "num-steps", "max-steps", "iterations", "iters", "num-iterations", "num-train-steps"): (
        "--images",
        "steps times --batch-size",
    ),
    ("lr", "learning-rate"): (
        "--generator-optimizer.learning-rate",
        "and --discriminator-optimizer.learning-rate; each network has its own",
    ),
    ("lr-g", "glr", "g-lr"): ("--generator-optimizer.learning-rate", ""),
    ("lr-d", "dlr", "d-lr"): ("--discriminator-optimizer.learning-rate", ""),
    ("beta1",): ("--generator-optimizer.beta1", "and --discriminator-optimizer.beta1"),
    ("resolution", "image-size", "img-size", "imsize", "imagesize", "crop-size"): ("--size", ""),
    ("gpu", "gpu-id", "device-id"): ("--device", "as in cuda:0"),
    ("gpus", "num-gpus", "ngpu", "nproc", "num-processes"): (
        "--devices",
        "processes on this machine, one per GPU",
    ),
    ("cuda", "no-cuda", "cpu", "mps"): ("--device", "cpu, cuda, cuda:1 or mps"),
    ("num-workers", "workers", "dataloader-num-workers"): ("--data.num-workers", ""),
    ("outdir", "out-dir", "outf", "output", "output-dir", "results-dir", "save-dir", "logdir", "log-dir", "name"): (
        "--out",
        "",
    ),
    ("batch", "bs", "batchsize", "train-batch-size"): ("--batch-size", ""),
    ("accum", "gradient-accumulate-every", "gradient-accumulation-steps"): ("--gradient-accumulation", ""),
    ("snap", "save-every", "checkpointing-steps", "save-frequency"): ("--checkpoint-every-images", ""),
    ("nz", "z-dim", "zdim", "latent-dim", "latent-size"): ("--latent.size", ""),
    ("ngf",): ("--generator.width", ""),
    ("ndf",): ("--discriminator.width", ""),
    ("mirror", "xflip", "flip", "random-flip"): ("--horizontal-flip", ""),
    ("cond", "class-conditional"): ("--conditional", ""),
    ("gamma", "r1", "r1-gamma"): ("--objective.penalties.r1", ""),
    ("loss", "loss-type"): ("--objective.loss", ""),
    ("aug", "augment", "diffaugment", "ada"): ("--augment.operations", ""),
    ("augpipe", "aug-types"): ("--augment.operations", ""),
    ("target",): ("--target-score", ""),
    ("fp16", "amp", "bf16", "fp32", "mixed-precision"): ("--precision", "auto, fp32, tf32 or bf16"),
    ("arch", "network", "model", "cfg"): ("--recipe", "or --generator.network and --discriminator.network"),
    ("pretrained", "init", "initialize-from", "finetune", "start-from"): ("--from", ""),
    ("freezed", "freeze-d"): ("--discriminator.frozen-stages", ""),
    ("ckpt", "checkpoint", "load", "resume-from-checkpoint", "continue"): (
        "--resume",
        "with the --out of the run",
    ),
    ("subset", "max-samples", "max-train-samples"): ("--data.max-images", ""),
    ("time", "hours", "max-time"): ("--minutes", ""),
    ("num", "num-samples", "n-samples", "count", "samples", "num-images"): ("-n", ""),
    ("seeds", "seed"): ("--seed", ""),
    ("trunc", "psi", "truncation-psi"): ("--truncation", ""),
    ("labels", "class", "label"): ("--label|--data.labels", ""),
}
"""From words without dashes to the option here, or several by command, and what to know about it."""
SOURCE_WORDS = {"data", "dataset", "dataroot", "data-dir", "data-path", "train-data-dir", "dataset-name", "images-dir"}
"""Words for what is the argument SOURCE here."""


def advice(flag: str, known_flags: list[str]) -> str:
    """Return what to use instead of an option of another program, as the end of a sentence, or nothing."""
    word = flag.lstrip("-").replace("_", "-").lower()
    if word in SOURCE_WORDS and "--size" in known_flags:
        return "name the images without an option, as in `cardigan train FOLDER`"
    for words, (options, remark) in OTHER_WORDS.items():
        option = next((each for each in options.split("|") if each in known_flags), "")
        if word in words and option and option != flag:
            return f"here it is {option}{f' ({remark})' if remark else ''}"
    return ""
