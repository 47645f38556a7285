from __future__ import annotations

import configparser
from pathlib import Path

import pytest
from jinja2 import UndefinedError

from ldseg_monai.evaluation.report.page import page, render, templates

REPOSITORY = Path(__file__).parents[3]


def test_text_is_escaped_and_sections_are_not() -> None:
    section = render("head.html", title="<b>", items={"<i>": "&"})
    assert "<h1>&lt;b&gt;</h1>" in section and "<dt>&lt;i&gt;</dt><dd>&amp;</dd>" in section
    whole = page("<u>", [section])
    assert "<title>&lt;u&gt;</title>" in whole and "<h1>&lt;b&gt;</h1>" in whole


def test_value_that_a_template_lacks_is_an_error() -> None:
    with pytest.raises(UndefinedError, match="items"):
        render("head.html", title="")


def test_templates_are_installed_with_the_package() -> None:
    setup = configparser.ConfigParser()
    setup.read(REPOSITORY / "setup.cfg")
    folder = REPOSITORY / "ldseg_monai" / "evaluation" / "report"
    pattern = setup["options.package_data"]["ldseg_monai.evaluation.report"]
    installed = {path.name for path in folder.glob(pattern)}
    assert installed == set(templates().list_templates())
