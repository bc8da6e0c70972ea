"""Image files in and out: every conversion between a file's pixels and our arrays happens here, once.

A file's content decides how it is read, not its suffix; each format is one function. PNG, WebP, BMP and GIF go to
Pillow, JPEG to simplejpeg, TIFF to tifffile, PGM and PPM to netpbmfile. Pixels keep the values that are stored: they
are never rescaled or cut to 8 bits. A file that promises more pixels than it can hold is refused by its header, and
one whose data end early is never filled up. Only the file that was given is opened. Whatever a decoder throws becomes
an `InputError` that names the file.

Shapes: `h` rows, `w` columns, `c` channels. Images are uint8, uint16 or float32; label images int32.
"""

from __future__ import annotations

from attractor.images.arrays import as_channels, as_image
from attractor.images.calibration import pixel_size
from attractor.images.files import (
    IMAGE_SUFFIXES,
    OUTPUT_ENDINGS,
    Found,
    atomic,
    check_folder_of,
    durable,
    find_images,
    flush,
    images_in,
    made,
)
from attractor.images.reading import image_shape, n_axes_of, read_image, read_labels
from attractor.images.unfinished import temporary_folder
from attractor.images.volumes import find_volumes, volumes_in
from attractor.images.writing import encode_labels, image_suffix, write_image, write_labels, write_mask

__all__ = [
    "IMAGE_SUFFIXES",
    "OUTPUT_ENDINGS",
    "Found",
    "as_channels",
    "as_image",
    "atomic",
    "check_folder_of",
    "durable",
    "encode_labels",
    "find_images",
    "find_volumes",
    "flush",
    "image_shape",
    "image_suffix",
    "images_in",
    "made",
    "n_axes_of",
    "pixel_size",
    "read_image",
    "read_labels",
    "temporary_folder",
    "volumes_in",
    "write_image",
    "write_labels",
    "write_mask",
]
