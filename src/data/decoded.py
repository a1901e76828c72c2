"""In which sizes pictures are decoded, and which of them the cache holds."""

from collections.abc import Iterator
from contextlib import closing, contextmanager

import numpy as np

from src.data.audit import Keep
from src.data.cache import Part, fill, open_store
from src.data.index import Index
from src.data.room import limit_bytes
from src.data.segments import Stored
from src.data.writer import Writer
from src.preprocess import MAX_ASPECT, Interpolation, Rule, StoredRule

Form = tuple[int, StoredRule, Interpolation]  # side in pixels, resize rule, way to mix pixels
TRAIN = "train"


class Decoded:
    """The decoded pictures of a data set, those to train on in a size of their own if wanted.

    Args:
        cache: As `data.cache`.
        image_size: Side of the pictures that are scored.
        resize: Their rule.
        cache_size: Side of those to train on; None means that all are decoded alike.
        interpolation: How pixels are mixed.
    """

    def __init__(
        self,
        cache: bool | str,
        image_size: int,
        resize: Rule,
        cache_size: int | None,
        interpolation: Interpolation = "bilinear",
    ) -> None:
        self.interpolation = interpolation
        self.cache, self.image_size, self.resize = cache, image_size, resize
        self.cache_size = cache_size
        self._stored: dict[Form, Stored] = {}  # in the order of the index

    def form(self, split: str) -> Form:
        """Return the size and the rules of the pictures of a split."""
        if split != TRAIN or self.cache_size is None:
            return self.image_size, self.resize, self.interpolation
        rule: StoredRule = "stretch" if self.resize == "stretch" else "cover"
        return self.cache_size, rule, self.interpolation

    def training_shapes(self) -> list[tuple[int, int]]:
        """Return height and width of square, tall and wide training pictures; or of all."""
        size, rule, _ = self.form(TRAIN)
        long = size * MAX_ASPECT if rule == "cover" else size
        return list(dict.fromkeys([(size, size), (long, size), (size, long)]))

    @contextmanager
    def keeping(self, split: str) -> Iterator[Keep | None]:
        """Give what keeps a picture while it is looked at, in the form of a split."""
        store = open_store(self.cache, *self.form(split))
        if store is None:
            yield None
            return
        with closing(Writer(store, limit_bytes())) as writer:
            yield writer.keep

    def fill(self, index: Index) -> None:
        """See to it that the cache holds each picture in its form, as far as it may."""
        splits = list(index.counts())
        parts: dict[Form, Part] = {}
        for form in dict.fromkeys(map(self.form, splits)):
            store = open_store(self.cache, *form)
            if store is not None:
                names = [name for name in splits if self.form(name) == form]
                parts[form] = store, np.isin(index.splits, names)
        self._stored = dict(zip(parts, fill(list(parts.values()), index), strict=True))

    def of(self, index: Index, split: str) -> Stored | None:
        """Return the pixels of one split of the index that was filled."""
        stored = self._stored.get(self.form(split))
        return stored and stored.take(np.flatnonzero(index.splits == split))
