"""PNG bytes of tensors and of arrays."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from cardigan.figures.grid import array_png_bytes, png_bytes


@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (2, "L"), (3, "RGB"), (4, "RGBA"), (5, "L")])
def test_png_of_tensor_and_array_hold_the_image(channels, mode):
    image = torch.randint(256, (channels, 5, 7), dtype=torch.uint8)
    array = np.ascontiguousarray(image.permute(1, 2, 0).numpy())
    assert png_bytes(image) == array_png_bytes(array)
    with Image.open(io.BytesIO(array_png_bytes(array))) as stored:
        assert stored.mode == mode
        assert np.array_equal(np.asarray(stored), array if channels in (3, 4) else array[:, :, 0])
