"""A small vision transformer."""

from torch import nn

from byzshield_exp.networks.pictures import Shape


def vit(
    shape: Shape,
    num_classes: int,
    patch: int = 4,
    dim: int = 128,
    depth: int = 6,
    heads: int = 4,
) -> nn.Module:
    """A vision transformer: patches and a class token, layers of attention, torchvision's.

    By default it has d = 1,205,898 parameters on 3 x 32 x 32 pictures with 10 classes. The hidden
    layers of its perceptrons have 4 x ``dim`` units. There is no dropout.

    Args:
        shape: channels, height and width of a picture.
        num_classes: outputs.
        patch: pixels of a side of a patch.
        dim: entries of a token.
        depth: layers.
        heads: attention heads of a layer.

    Raises:
        ValueError: unless pictures are square and whole patches fit, ``heads`` divides ``dim``,
            and all are positive.

    Source: Dosovitskiy et al., "An Image is Worth 16x16 Words", ICLR 2021, section 3.1, without
    the hidden layer of the classifier. The last layer does not start at zero, where no other
    layer would have a gradient in the first step.
    """
    from torchvision.models import VisionTransformer  # a second and a half to import

    channels, height, width = shape
    if min(patch, dim, depth, heads) < 1:
        sizes = f"patch={patch} dim={dim} depth={depth} heads={heads}"
        raise ValueError(f"patch, dim, depth and heads must be positive, got {sizes}")
    if height != width or height % patch:
        raise ValueError(
            f"vit needs square pictures of at least {patch} x {patch}, in whole patches of "
            f"patch={patch}, got {height} x {width}"
        )
    if dim % heads:
        raise ValueError(f"heads must divide dim, got heads={heads} dim={dim}")
    network: nn.Module = VisionTransformer(
        height, patch, depth, heads, dim, mlp_dim=4 * dim, num_classes=num_classes
    )
    if channels != 3:
        stem = nn.Conv2d(channels, dim, patch, stride=patch)
        nn.init.trunc_normal_(stem.weight, std=(channels * patch**2) ** -0.5)  # as torchvision's
        nn.init.zeros_(stem.bias)  # type: ignore[arg-type]
        network.set_submodule("conv_proj", stem)
    network.get_submodule("heads.head").reset_parameters()  # type: ignore[operator]
    for name, module in list(network.named_modules()):
        if isinstance(module, nn.Dropout):
            network.set_submodule(name, nn.Identity())
    return network
