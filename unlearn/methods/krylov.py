"""Krylov unlearning: add back what has become of the removal, not what it was.

Single-gradient unlearning adds eta g_0. But each later step multiplied that by (I - eta H); what is left of it is
f(H) eta g_0, which a few Hessian-vector products give (`curvature/transport.py`). The
recursion is that of influence for SGD (Hara et al. 2019) and of Hessian-free recollection (arXiv 2404.01712).

Eigenvalues are clamped to [0, 1/eta], eta that of each step: without that, negative curvature has blown the update up
by hundreds.
"""

from dataclasses import dataclass
from typing import ClassVar

from unlearn.curvature.krylov import krylov
from unlearn.curvature.transport import Removal, transport
from unlearn.methods.method import Unlearned
from unlearn.train.hessian import Sample, chunk_for, curvature_at, sample_points
from unlearn.train.recording import Trained
from unlearn.values.errors import at_least, choice
from unlearn.values.streams import generator


@dataclass(frozen=True)
class KrylovUnlearning:
    """Krylov unlearning.

    Attributes:
        name: for logs.
        products: m, Hessian-vector products.
        samples: training points that the curvature is taken on, drawn by seed.
        chunk: the most points in one graph; None chooses by the size of the network.
        curvature: `hessian`, or `gauss_newton`, which has no negative eigenvalues to clamp.
    """

    name: str
    products: int
    samples: int
    chunk: int | None
    curvature: str
    online: ClassVar[bool] = False

    def __post_init__(self) -> None:
        at_least("method.products", self.products, 1)
        at_least("method.samples", self.samples, 1)
        at_least("method.chunk", self.chunk, 1)
        choice("method.curvature", self.curvature, ("hessian", "gauss_newton"))

    @property
    def needs(self) -> frozenset[str]:
        """What each visit did."""
        return frozenset({"visits"})

    def unlearn(self, trained: Trained) -> Unlearned:
        """Add the transported removal back.

        Args:
            trained: M and its visits.

        Returns:
            w'' = w_t + y.
        """
        recipe, original, visits = trained.recipe, trained.original, trained.recording.visits
        assert visits is not None  # `needs` asked for it
        if visits.nothing():
            return Unlearned(original.weights, original.buffers)
        points = sample_points(len(recipe.objective.split), self.samples, generator(trained.seed, "method"))
        chunk = chunk_for(len(original.weights), self.chunk, original.weights.device)
        draws = recipe.objective.frozen_draws
        sample = Sample(points.to(original.weights.device), True, recipe.schedule.batch_size, chunk, draws)
        operator = curvature_at(recipe.objective, original, sample, self.curvature)
        removal = Removal(None, visits.all(), trained.recording.flow())
        space = krylov(operator, removal.flat().d, self.products)
        y = -transport(space, removal, clamp=True).d
        # a product costs about three gradients of the sample
        return Unlearned(original.weights + y, original.buffers, 3 * space.products * len(points))
