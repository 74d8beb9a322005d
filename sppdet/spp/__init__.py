"""From a feature map and boxes to vectors: projection and spatial pyramid pooling."""

from sppdet.spp.roi_pooling import spatial_pyramid_pool
from sppdet.spp.spatial_pyramid_pooling import SpatialPyramidPooling

__all__ = ["SpatialPyramidPooling", "spatial_pyramid_pool"]
