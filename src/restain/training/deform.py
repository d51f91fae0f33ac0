"""Training on pairs that match only roughly: the virtual image is moved onto the real one before they are compared.

As RegGAN (Kong et al., NeurIPS 2021, eq. 4 to 7), with one change. There one loss teaches both networks; here the registration
network has an objective of its own, a local correlation over what both images show, and the generator's losses see the
moved image with the real one where nothing was moved to. So neither gains from moving the image out of the frame, and
the generator is not taught to draw what registers well.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from restain import losses
from restain.models.deform import Deformer, densities, inside, warp
from restain.models.heads import Stained
from restain.recipe import DeformRecipe
from restain.training.batches import Batch

_COMPARED_PX = 4
"""Pixels per sample of the images whose correlation is computed: about 2 µm at 0.46 µm per px, a quarter of a nucleus."""


def deformer(recipe: DeformRecipe, mpp: float) -> Deformer:
    """The registration network for images of ``mpp`` µm per px."""
    return Deformer(recipe.width, recipe.reach_um / mpp)


def deformer_terms(recipe: DeformRecipe, field: Tensor, virtual: Tensor, real: Tensor) -> dict[str, Tensor]:
    """The registration network's objective.

    Args:
        recipe: the weights.
        field: ``(N, 2, H, W)`` in px.
        virtual: ``(N, 3, H, W)`` RGB in [0, 1], without gradient.
        real: the same.
    """
    held = F.avg_pool2d(inside(field).to(field.dtype), _COMPARED_PX)
    moved = warp(densities(virtual.float()), field)
    apart = losses.local_dissimilarity(
        F.avg_pool2d(moved, _COMPARED_PX), F.avg_pool2d(densities(real.float()), _COMPARED_PX), held.detach()
    )
    return {"R.dissimilarity": apart, "R.slope": recipe.smooth * losses.slope(field)}


def laid_on(virtual: Stained, field: Tensor, batch: Batch) -> Stained:
    """``virtual`` moved by ``field``, ``(N, 2, H, W)`` in px; where nothing was moved to, what the real image shows.

    Hematoxylin, which no loss compares, is left out.
    """
    known = inside(field)
    rgb = warp(virtual.rgb.float(), field).where(known, batch.ihc)
    if virtual.dab is None:
        return Stained(rgb, None, None)
    dab = warp(virtual.dab.float(), field).where(known, losses.dab_density(batch.ihc, batch.white))
    return Stained(rgb, dab, None)
