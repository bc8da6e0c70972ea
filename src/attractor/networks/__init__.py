"""Networks from an image to maps of its size, by name; `contract` says what a network is."""

from attractor.networks.contract import Network, SuggestsOptions, TakesPretrainedEncoder
from attractor.networks.erfnet import ERFNet
from attractor.networks.unet import UNet

__all__ = ["NETWORKS", "Network", "SuggestsOptions", "TakesPretrainedEncoder"]

NETWORKS: dict[str, type[Network]] = {"erfnet": ERFNet, "unet": UNet}
