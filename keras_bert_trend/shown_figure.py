"""The figures of this package: matplotlib's, and a notebook shows them."""

import io

from matplotlib.figure import Figure


class ShownFigure(Figure):
    """A `Figure` that is its notebook cell's picture.

    A notebook draws the figures of `pyplot`, or all of them after `%matplotlib inline`; of others it prints the size.
    """

    def _repr_png_(self) -> bytes:
        picture = io.BytesIO()
        self.savefig(picture, format="png")
        return picture.getvalue()
