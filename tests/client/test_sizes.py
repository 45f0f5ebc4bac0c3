"""The catalogue of students for some data, through the client."""

import pytest

from stillhouse.spec.errors import Invalid, NotFound
from stillhouse.spec.students import Mlp
from tests.house import House


def test_sizes_come_with_the_student_as_a_spec_writes_it(house: House) -> None:
    with house.client() as client:
        entries = {entry.name: entry for entry in client.students(shape=(30,), classes=2).data}
    sized = next(size for size in entries["mlp"].sizes if size.student == Mlp(name="mlp", hidden=(32,)))
    assert (sized.parameters, sized.macs) == (30 * 32 + 32 + 32 * 2 + 2, 30 * 32 + 32 * 2)
    assert entries["resnet"].sizes == []


def test_what_is_not_there_or_makes_no_sense_raises(house: House) -> None:
    with house.client() as client:
        with pytest.raises(NotFound):
            client.students(dataset="ds_" + "0" * 26)
        with pytest.raises(Invalid):
            client.students(shape=(1, 8, 8))
