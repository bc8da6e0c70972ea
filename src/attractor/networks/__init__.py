"""Networks from an image to maps of its size."""

from attractor.networks.erfnet import ERFNet

NETWORKS = {"erfnet": ERFNet}
