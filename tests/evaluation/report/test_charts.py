from __future__ import annotations

from xml.etree import ElementTree

import pytest

from ldseg_monai.evaluation.report.charts import MAX_POINTS, WIDTH, dot_plot, line_chart, neighbors


def dots(svg: str) -> dict[str, tuple[float, float]]:
    """Place of each dot by what it shows on hover."""
    circles = ElementTree.fromstring(svg).iter("circle")
    return {
        circle[0].text or "": (float(circle.get("cx", "")), float(circle.get("cy", "")))
        for circle in circles
    }


def polyline(svg: str) -> list[tuple[float, float]]:
    (line,) = ElementTree.fromstring(svg).iter("polyline")
    return [
        (float(x), float(y))
        for x, y in (point.split(",") for point in line.get("points", "").split())
    ]


def texts(svg: str) -> list[str | None]:
    return [element.text for element in ElementTree.fromstring(svg).iter("text")]


def test_dot_has_the_place_of_its_value_in_the_row_of_its_group() -> None:
    groups = {"one": {"a": 0.5, "b": 0.75, "c": 1.0}, "two": {"a": 0.75}}
    svg = dot_plot(groups, ["#ff0000", "#00ff00"], "Dice")
    places = dots(svg)
    assert set(places) == {"a: 0.500", "b: 0.750", "c: 1.000", "a: 0.750"}
    (low, row), (middle, _), (high, _) = (
        places[name] for name in ("a: 0.500", "b: 0.750", "c: 1.000")
    )
    assert middle == pytest.approx((low + high) / 2, abs=0.1)
    assert places["a: 0.750"][0] == middle and places["a: 0.750"][1] > row
    assert "1" in texts(svg) and {"one", "two", "Dice"} <= set(texts(svg))


def test_equal_values_lie_beside_each_other_and_within_the_row() -> None:
    places = dots(dot_plot({"one": {str(i): 0.95 for i in range(50)}}, ["#ff0000"], "Dice"))
    heights = sorted(y for _, y in places.values())
    assert len(set(heights)) == 50 and heights[-1] - heights[0] < 60


def test_box_spans_the_quartiles_and_the_line_is_the_median() -> None:
    values = [0.90, 0.91, 0.93, 0.97, 0.98]
    svg = dot_plot({"one": {str(value): value for value in values}}, ["#ff0000"], "Dice")
    (box,) = ElementTree.fromstring(svg).iter("rect")
    (median,) = (
        line for line in ElementTree.fromstring(svg).iter("line") if line.get("class") == "median"
    )
    x = {name.split(":")[0]: place for name, (place, _) in dots(svg).items()}
    left, width = float(box.get("x", "")), float(box.get("width", ""))
    assert (left, left + width, float(median.get("x1", ""))) == pytest.approx(
        (x["0.91"], x["0.97"], x["0.93"]), abs=0.2
    )


def test_names_are_text() -> None:
    name = "<script>alert(\"1\")</script> & 'x'"
    svg = dot_plot({name: {name: 1.0}}, ["#ff0000"], "Dice")
    assert list(dots(svg)) == [f"{name}: 1.000"] and name in texts(svg)
    assert name in texts(line_chart([(1, 1)], name, "step"))


@pytest.mark.parametrize("rows", [{}, {"one": {}}])
def test_nothing_to_show_is_an_empty_chart(rows: dict[str, dict[str, float]]) -> None:
    assert dots(dot_plot(rows, ["#ff0000"], "Dice")) == {}


def test_curve_goes_through_its_points_from_left_to_right() -> None:
    svg = line_chart([(1, 3.0), (2, 1.0), (3, 2.0)], "loss", "iteration")
    points = polyline(svg)
    assert [x for x, _ in points] == sorted(x for x, _ in points)
    (_, top), (_, bottom), (_, middle) = points
    assert bottom > middle > top and middle == pytest.approx((top + bottom) / 2, abs=0.1)
    assert list(dots(svg)) == ["1: 3.0000", "2: 1.0000", "3: 2.0000"]


def test_long_curve_is_drawn_by_means() -> None:
    points = [(step, float(step % 2)) for step in range(4 * MAX_POINTS)]
    assert neighbors(points) == 4
    line = polyline(line_chart(points, "loss", "iteration"))
    assert len(line) == MAX_POINTS and len({y for _, y in line}) == 1


@pytest.mark.parametrize("points", [[(7, 0.5)], [(1, 0.0), (2, 0.0)], [(1, 1e-9), (2, 3e7)]])
def test_curves_of_any_range_stay_in_the_chart(points: list[tuple[float, float]]) -> None:
    assert all(
        0 <= x <= WIDTH and 0 <= y <= 230
        for x, y in polyline(line_chart(points, "loss", "iteration"))
    )
