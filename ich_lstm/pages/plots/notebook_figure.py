"""A matplotlib figure that a notebook displays by itself."""

from io import BytesIO

from matplotlib.figure import Figure


class ShownFigure(Figure):
    """A matplotlib figure with a picture of its own for notebooks, which otherwise know one only after ``%matplotlib inline``.

    It belongs to no global state: pyplot does not know it, so nothing has to be closed, and no backend is chosen.
    """

    def _repr_png_(self) -> bytes:
        """The picture that a notebook shows below a cell that ends with the figure."""
        picture = BytesIO()
        self.savefig(picture, format="png")
        return picture.getvalue()
