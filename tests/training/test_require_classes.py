from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from ignite.engine import Engine

from ldseg_monai.runtime.errors import InputError
from ldseg_monai.training.handlers import RequireClasses

NAMES = {0: "background", 1: "femur", 2: "tibia"}


class Data:
    """Cases by the classes that their labels have, and how often one was read."""

    def __init__(self) -> None:
        self.read = 0

    def part(self, *classes: tuple[int, ...]) -> list[dict[str, Any]]:
        return [
            {"image": f"images/{self.name(own)}.png", "label": f"labels/{self.name(own)}.png"}
            for own in classes
        ]

    @staticmethod
    def name(classes: tuple[int, ...]) -> str:
        return "has_" + "".join(map(str, classes))

    def load(self, case: dict[str, Any]) -> dict[str, torch.Tensor]:
        self.read += 1
        digits = case["label"].split("_")[-1].removesuffix(".png")
        return {"label": torch.tensor([[0, *map(int, digits)]])}


def check(training: list[tuple[int, ...]], validation: list[tuple[int, ...]]) -> Data:
    data = Data()
    handler = RequireClasses(
        data.part(*training), data.part(*validation), data.load, 3, class_names=NAMES
    )
    engine = Engine(lambda engine, batch: pytest.fail("trained"))
    handler.attach(engine)
    if training == validation == [(1, 2)]:
        engine = Engine(lambda engine, batch: None)
        handler.attach(engine)
    engine.run([0])
    return data


def test_parts_with_every_class_are_read_no_further_than_needed() -> None:
    assert check([(1, 2)], [(1, 2)]).read == 2
    data = Data()
    parts = data.part((1,), (2,), (1, 2), (1, 2)), data.part((1, 2), ())
    RequireClasses(*parts, data.load, 3)(Engine(lambda engine, batch: None))
    assert data.read == 3


@pytest.mark.parametrize(
    ("training", "validation", "message"),
    [
        (
            [(1, 2), (1,)],
            [()],
            "every label of the 1 validation cases is 0, such as labels/has_.png: expected every "
            "class from 1 on in one of them, to score it, which chooses the weights; of the "
            "training cases has_12, has_1 would do: choose other val_cases, fold or seed",
        ),
        (
            [(1,), (2,)],
            [(1,), ()],
            "no label of the 2 validation cases has class 2 (tibia), such as labels/has_1.png: "
            "expected every class from 1 on in one of them, to score it, which chooses the "
            "weights; of the training cases has_2 would do: choose other val_cases, fold or seed",
        ),
        (
            [(2,)],
            [(1, 2)],
            "no label of the 1 training cases has class 1 (femur), such as labels/has_2.png: "
            "expected every class from 1 on in one of them, to learn it; of the validation cases "
            "has_12 would do: choose other val_cases, fold or seed",
        ),
        (
            [(1,)],
            [(1,)],
            "no label of the 1 training cases has class 2 (tibia), such as labels/has_1.png: "
            "expected every class from 1 on in one of them, to learn it; no validation case has "
            "it either: correct the labels, or num_classes",
        ),
        (
            [()],
            [],
            "every label of the 1 training cases is 0, such as labels/has_.png: expected every "
            "class from 1 on in one of them, to learn it; no validation case has it either: "
            "correct the labels, or num_classes",
        ),
    ],
)
def test_part_without_a_class_is_refused_before_training(
    training: list[tuple[int, ...]], validation: list[tuple[int, ...]], message: str
) -> None:
    with pytest.raises(ValueError) as raised:
        check(training, validation)
    assert str(raised.value) == message


def test_image_in_both_parts_is_refused(tmp_path: Path) -> None:
    data = Data()
    training, validation = data.part((1, 2), (1,)), data.part((1, 2))
    for number, case in enumerate([*training, *validation]):
        case["image"] = str(tmp_path / f"{number}.png")
        Path(case["image"]).write_bytes(b"the same" if number != 1 else b"another!")
    handler = RequireClasses(training, validation, data.load, 3)
    with pytest.raises(InputError, match="0.png and .*2.png are the same image, and one would tr"):
        handler(Engine(lambda engine, batch: None))


def test_nothing_to_train_on_is_refused() -> None:
    with pytest.raises(InputError, match="no cases to train on: expected one or more; add cases"):
        check([], [(1, 2)])
