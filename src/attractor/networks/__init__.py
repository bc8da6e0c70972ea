"""Networks from an image to maps of its size, by name.

All are made and used alike, so that a method need not know which one it has:

- `Network(channels_in, channels_out, **options)` has one decoder for each entry of `channels_out`, which may be empty;
- `forward(images)` gives the maps of all decoders, in their order, at the image's size, whatever that is;
- `heads` are the last layers of the decoders, each an `nn.ConvTranspose2d` with a bias;
- `pyramid(images)` gives the encoder's features from fine to coarse, for a method with a decoder of its own. The
  images are padded first, at the right and below, to multiples of the coarsest stride;
- `channels` and `strides` (pixels) are those of these features.
"""

from attractor.networks.erfnet import ERFNet
from attractor.networks.unet import UNet

NETWORKS = {"erfnet": ERFNet, "unet": UNet}
