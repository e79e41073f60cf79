"""Whether nvImageCodec reaches a GPU on this machine. Nothing is converted with it yet."""

import numpy as np


def try_gpu() -> str:
    """Have nvImageCodec copy an image to a GPU; its name and version.

    Raises
    ------
    ImportError
        It is not installed.
    RuntimeError
        It sees no GPU.
    """
    from nvidia import nvimgcodec

    nvimgcodec.as_image(np.zeros((8, 8, 1), np.uint8)).cuda()
    return f"nvImageCodec {nvimgcodec.__version__}"
