"""A matplotlib figure that notebooks display without further setup."""

from io import BytesIO

from matplotlib.figure import Figure


class ShownFigure(Figure):
    """A matplotlib figure that notebooks display without ``%matplotlib inline``.

    It is not registered with pyplot, so it need not be closed, and no backend is selected.
    """

    def _repr_png_(self) -> bytes:
        """Make the PNG that a notebook shows below a cell that ends with the figure."""
        picture = BytesIO()
        self.savefig(picture, format="png")
        return picture.getvalue()
