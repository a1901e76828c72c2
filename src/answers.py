"""What the server answers: the forms of its OpenAPI document."""

from pydantic import BaseModel


class Prediction(BaseModel):
    """What the model says of a picture."""

    name: str
    predicted_class: str | None
    probabilities: dict[str, float] | None
    error: str | None


class Predictions(BaseModel):
    """An answer for each picture, in their order."""

    predictions: list[Prediction]


class Neighbour(BaseModel):
    """A validation picture that the model sees as alike."""

    id: int
    label: str
    predicted_class: str
    similarity: float


class Explanation(BaseModel):
    """What drives the decision on a picture."""

    prediction: Prediction
    picture: str
    falls: list[list[float]]
    lowest: float
    neighbours: list[Neighbour]


class Validation(BaseModel):
    """The validation pictures' classes and probabilities.

    `shown` names the rows of which there are small pictures: /validation/0 is the first of them.
    """

    classes: list[str]
    threshold: float | None
    labels: list[int]
    probabilities: list[list[float]]
    shown: list[int]


class Problem(BaseModel):
    """Why a request was refused."""

    detail: str
