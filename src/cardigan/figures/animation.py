"""Encode frames as WebP, GIF or MP4 bytes. Writes only temporary files."""

import importlib
import io
import tempfile
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image

from cardigan.errors import CardiganError

Frames = UInt8[torch.Tensor, "_ _ _ _"]
"""[n, c, h, w]"""

FORMATS = ("webp", "gif", "mp4")
MIN_SIDE = 192
"""Minimum shorter side in pixels. Smaller frames are upscaled by an integer factor."""
MAX_LOSSLESS_PIXELS = 512 * 512
"""Maximum pixels per frame for lossless WebP."""
BACKGROUND = 255
"""Background of transparent images in formats without transparency."""


def encode_animation(frames: Frames, fps: float, file_format: str) -> bytes:
    """Return the frames [n, c, h, w], c = 1, 3 or 4, as a looping animation (WebP, GIF) or a video (MP4).

    WebP keeps transparency; the others use a white background. Raises CardiganError for an unknown format, no frames,
    a frame rate outside (0, 100], or MP4 without imageio-ffmpeg.
    """
    if file_format not in FORMATS:
        raise CardiganError(f"The animation format is {file_format!r}: expected {', '.join(FORMATS)}.")
    if not 0 < fps <= 100 or len(frames) == 0:
        raise CardiganError(
            f"An animation of {len(frames)} frames at {fps} per second: expected at least 1 frame and a rate above 0, "
            "at most 100."
        )
    upscaled = upscale(drop_alpha(frames, keep_alpha=file_format == "webp"))
    if file_format == "mp4":
        return _mp4(upscaled, fps)
    images = [Image.fromarray(frame) for frame in upscaled.permute(0, 2, 3, 1).contiguous().numpy()]
    return _webp(images, fps) if file_format == "webp" else _gif(images, fps)


def drop_alpha(frames: Frames, keep_alpha: bool = False) -> Frames:
    """Return the frames as RGB, on white unless `keep_alpha`. Other channel counts use the first channel as gray."""
    if frames.shape[1] == 3 or (keep_alpha and frames.shape[1] == 4):
        return frames
    if frames.shape[1] != 4:
        return frames[:, :1].expand(-1, 3, -1, -1)
    alpha = frames[:, 3:].float() / 255
    return (frames[:, :3].float() * alpha + BACKGROUND * (1 - alpha)).round().to(torch.uint8)


def upscale(frames: Frames, min_side: int = MIN_SIDE) -> Frames:
    """Return the frames with repeated pixels, so that the shorter side has at least `min_side`."""
    factor = -(-min_side // min(frames.shape[2:]))
    return frames if factor == 1 else frames.repeat_interleave(factor, dim=2).repeat_interleave(factor, dim=3)


def frame_durations(count: int, fps: float, unit: int) -> list[int]:
    """Return the duration of each frame in milliseconds, in multiples of `unit`. The mean rate is exact."""
    ends = [round(1000 * (number + 1) / fps / unit) * unit for number in range(count)]
    return [max(unit, end - begin) for begin, end in zip([0, *ends], ends, strict=False)]


def _webp(images: list[Image.Image], fps: float) -> bytes:
    lossless = images[0].width * images[0].height <= MAX_LOSSLESS_PIXELS
    buffer = io.BytesIO()
    images[0].save(
        buffer,
        format="WEBP",
        save_all=True,
        append_images=images[1:],
        duration=frame_durations(len(images), fps, 1),
        loop=0,
        lossless=lossless,
        quality=60 if lossless else 90,
        method=2,
        minimize_size=False,
    )
    return buffer.getvalue()


def _gif(images: list[Image.Image], fps: float) -> bytes:
    """Encode a GIF. Its time unit is 10 ms, and viewers require at least 20 ms per frame."""
    quantized = [image.quantize(256, dither=Image.Dither.NONE) for image in images]
    buffer = io.BytesIO()
    quantized[0].save(
        buffer,
        format="GIF",
        save_all=True,
        append_images=quantized[1:],
        duration=[max(20, length) for length in frame_durations(len(quantized), fps, 10)],
        loop=0,
        optimize=False,
    )
    return buffer.getvalue()


def _mp4(frames: Frames, fps: float) -> bytes:
    """Encode H.264 with 4:2:0 color for compatibility. It needs even sides, so odd ones are padded."""
    try:
        ffmpeg = importlib.import_module("imageio_ffmpeg")
    except ImportError as error:
        raise CardiganError("An MP4 needs ffmpeg: pip install 'cardigan[video]', or choose .webp or .gif.") from error
    height, width = frames.shape[2:]
    padded = np.pad(frames.permute(0, 2, 3, 1).numpy(), ((0, 0), (0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "animation.mp4"
        writer = ffmpeg.write_frames(
            str(path),
            (padded.shape[2], padded.shape[1]),
            fps=fps,
            codec="libx264",
            pix_fmt_out="yuv420p",
            quality=None,
            macro_block_size=1,
            ffmpeg_log_level="error",
            output_params=[
                "-crf",
                "16",
                "-movflags",
                "+faststart",
                "-threads",
                "1",
                "-fflags",
                "+bitexact",
                "-flags",
                "+bitexact",
            ],
        )
        writer.send(None)
        for frame in padded:
            writer.send(np.ascontiguousarray(frame))
        writer.close()
        return path.read_bytes()
