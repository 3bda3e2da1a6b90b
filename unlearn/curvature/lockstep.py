"""Many searches at once, whose products are taken together.

A search yields what it wants multiplied and is sent the product (`spectrum.search`, `recycled.recycled`,
`tracker.Tracker.search`). So each does what it would do alone, and only the products are shared.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from unlearn.curvature.spectrum import Found, Search
from unlearn.curvature.stacked import StackedOperator
from unlearn.values.errors import NotFinite


def lockstep(searches: Mapping[int, Search[Found]], operator: StackedOperator, like: Tensor) -> dict[int, Found | None]:
    """Run searches on the rows of stacked operators.

    Args:
        searches: by row.
        operator: a row for each, and perhaps others.
        like: shape (K, dim); gives rows, length and type of the vectors.

    Returns:
        By row, what its search ends with; None where its operator is not finite.
    """
    found: dict[int, Found | None] = {}
    vectors = torch.zeros_like(like)
    going = torch.zeros(len(like), dtype=torch.bool)

    def send(row: int, product: Tensor | None) -> None:
        try:
            vectors[row] = next(searches[row]) if product is None else searches[row].send(product)
            going[row] = True
            return
        except StopIteration as end:
            found[row] = end.value
        except NotFinite:
            found[row] = None
        going[row] = False

    for row in searches:
        send(row, None)
    while bool(going.any()):
        products = operator.matvec(vectors, going)
        for row in going.nonzero().flatten().tolist():
            send(row, products[row].clone())  # a view would keep all rows in memory
    return found
