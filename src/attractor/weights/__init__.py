"""The models that come with the package: name to file."""

from pathlib import Path

MODELS = {path.stem: path for path in sorted(Path(__file__).parent.glob("*.safetensors"))}
