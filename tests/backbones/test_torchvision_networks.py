"""torchvision's networks at stride 16: the cells of the original among those of the denser map."""

from __future__ import annotations

import torch
from torch import nn

from sppdet.backbones import load_backbone
from sppdet.backbones.sequential import SequentialBackbone


def test_resnet_dilation_keeps_the_original_cells() -> None:
    from torchvision.models import resnet18, resnet50

    for name, build in (("resnet18", resnet18), ("resnet50", resnet50)):
        net = load_backbone(name, pretrained=False)
        assert isinstance(net, SequentialBackbone)
        original = build().eval()
        original.load_state_dict(
            {
                **original.state_dict(),
                **{
                    f"{child}.{key}": value
                    for child, index in (("conv1", 0), ("bn1", 1))
                    for key, value in net.layers[index].state_dict().items()
                },
                **{
                    f"layer{n}.{key}": value
                    for n in range(1, 5)
                    for key, value in net.layers[3 + n].state_dict().items()
                },
            }
        )
        x = torch.randn(1, 3, 64, 96)
        chain = nn.Sequential(*list(original.children())[:-2])
        expected, dilated = chain(x), net(x)["layer4"]
        assert dilated.shape[2:] == (4, 6)
        torch.testing.assert_close(dilated[:, :, ::2, ::2], expected, rtol=1e-3, atol=1e-2)
