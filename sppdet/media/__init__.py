"""Images from anywhere: what Python holds, files, folders, patterns, lists and addresses."""

from sppdet.media.image_inputs import ImageInput, as_image
from sppdet.media.sources import ImageSource, Sources, find_sources

__all__ = ["ImageInput", "ImageSource", "Sources", "as_image", "find_sources"]
