"""What the server answers: the forms of its OpenAPI document."""

from pydantic import BaseModel


class Prediction(BaseModel):
    """What the model says of a picture.

    `probabilities` names every class, each 0 to 1, together 1. `predicted_class` goes by the run's
    decision: with two classes and a threshold it may be the less probable one. If the picture can't
    be read, both are null and `error` says why; else `error` is null.
    """

    name: str
    predicted_class: str | None
    probabilities: dict[str, float] | None
    error: str | None


class Predictions(BaseModel):
    """An answer for each picture, in their order."""

    predictions: list[Prediction]


class Neighbour(BaseModel):
    """A validation picture that the model sees as alike.

    /validation/{id} is the picture. `similarity` is the cosine of the features, -1 to 1.
    """

    id: int
    label: str
    predicted_class: str
    similarity: float


class Part(BaseModel):
    """A part of a picture, in cells of 8 by 8: the first row and column (0 to 7), and how many."""

    row: int
    column: int
    height: int
    width: int


class Explanation(BaseModel):
    """What drives the decision on a picture.

    `picture` is what the network sees, a PNG as a data: address. `explained_class` is the one that
    was asked about, else the predicted one. `falls`, 8 by 8, first row on top: by how much its
    probability falls where that cell is hidden, -1 to 1, below 0 where it rises. `lowest` is that
    probability, 0 to 1, with `part` hidden, the part that matters most. `neighbours` has the most
    similar one first; empty without pictures in the bundle.
    """

    prediction: Prediction
    picture: str
    explained_class: str
    falls: list[list[float]]
    lowest: float
    part: Part
    neighbours: list[Neighbour]


class Validation(BaseModel):
    """Classes and probabilities of the N validation pictures; empty lists if there are none.

    `labels`: N numbers of classes, from 0. With two classes, `probabilities` holds N probabilities
    of the second one, and a picture from `threshold` on belongs to it (null: the more probable
    one). With more, it holds N probabilities of the most probable class, whose number is in `tops`.
    `shown`: the rows of which there are small pictures: /validation/0 is the first of them.
    """

    classes: list[str]
    threshold: float | None
    labels: list[int]
    tops: list[int]
    probabilities: list[float]
    shown: list[int]


class Problem(BaseModel):
    """Why a request was refused: a sentence."""

    detail: str
