"""Which classes a data set has, and how a model's names and the data's go together."""

from __future__ import annotations

from pathlib import Path

import pytest

from sppdet.core.errors import DatasetError
from sppdet.datasets.class_names import adopt_names, choose_classes
from sppdet.datasets.raw import SIMILAR_NAMES, Findings, RawDataset, RawImage, RawObject


def made(*names: str, listed: tuple[str, ...] | None = None) -> RawDataset:
    """A data set of one image with an object of each name."""
    objects = [RawObject(name, (1, 1, 9, 9), "one") for name in names]
    image = RawImage("a", Path("a.jpg"), Path("a.txt"), objects=objects)
    return RawDataset("made", "set", [image], listed)


@pytest.mark.parametrize(
    ("data", "known", "renamed"),
    [
        ([], [], {}),
        (["ship"], ["Ship"], {"ship": "Ship"}),
        (["cargo  ship ", "dog"], ["dog", "CargoShip"], {"cargo ship": "CargoShip"}),
        (["ship", "SHIP"], ["Ship"], {"SHIP": "Ship", "ship": "Ship"}),
        # The very name is there, or two of the model's fit: nothing is guessed.
        (["ship", "Ship"], ["Ship"], {}),
        (["ship"], ["Ship", "SHIP"], {}),
        (["ship"], ["ships"], {}),
    ],
)
def test_names_that_differ_by_case_or_blanks_alone_are_the_model_s(
    data: list[str], known: list[str], renamed: dict[str, str]
) -> None:
    raw = made(*data, listed=tuple(data))
    assert adopt_names(raw, known) == renamed
    names = [renamed.get(" ".join(name.split()), name) for name in data]
    assert [one.name for one in raw.images[0].objects] == names
    assert raw.classes == tuple(names)
    assert adopt_names(raw, known) == {}


def test_a_listed_class_without_an_object_is_not_a_misspelt_one() -> None:
    raw = made("boat", "car", listed=("boat", "goat", "car"))
    with pytest.raises(DatasetError) as caught:
        choose_classes(raw, ["goat"], Findings())
    assert str(caught.value) == (
        "no object has the class 'goat', which the data lists; omit it; "
        "classes with objects: boat, car"
    )
    with pytest.raises(DatasetError, match="no object has the class 'goats'; did you mean 'boat'"):
        choose_classes(raw, ["goats"], Findings())
    with pytest.raises(DatasetError, match="'bird'; classes with objects: boat, car"):
        choose_classes(raw, ["bird"], Findings())


def test_a_slip_that_a_class_list_lacks_is_told_once() -> None:
    for listed, asked, told in (
        (None, None, True),
        (("cat", "Cat"), None, True),
        (("cat",), None, False),
        (("cat",), ["cat"], True),
    ):
        findings = Findings()
        choose_classes(made("cat", "Cat", listed=listed), asked, findings)
        assert findings.counts() == ({SIMILAR_NAMES: 1} if told else {})
        assert all("leave one out with --classes" in one.message for one in findings.all)
