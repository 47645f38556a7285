"""inference.yaml and evaluate.yaml over many files: bad ones, a run that was stopped, several processes."""

from __future__ import annotations

import json
import logging
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
from bundle_kinds import BUNDLES, QUICK
from html_page import Page
from ignite.engine import Engine
from monai.engines.utils import IterationEvents
from prepared_python import TORCHRUN
from test_evaluation import cases_in
from workplace import Run, Workplace, find_case

from ldseg_monai.inference.case_evaluator import FailedCases

EVALUATION = ("train.yaml", "evaluate.yaml")
LAUNCHER = (TORCHRUN, "--standalone", "--nnodes=1", "--nproc_per_node=2")
one_bundle = pytest.mark.parametrize(
    "bundle",
    [name if name == QUICK else pytest.param(name, marks=pytest.mark.slow) for name in BUNDLES],
    indirect=True,
)

pytestmark = pytest.mark.usefixtures("process_left_as_it_was")


@pytest.fixture
def damaged(phantoms: Path, tmp_path: Path) -> Path:
    """The phantoms, one of which is cut short."""
    folder = tmp_path / "damaged"
    shutil.copytree(phantoms, folder, copy_function=shutil.copy2)
    path = find_case(folder / "images", "case_001")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return folder


def infer(workplace: Workplace, dataset_dir: Path, output_dir: Path, **overrides: Any) -> None:
    places = {"dataset_dir": str(dataset_dir), "output_dir": str(output_dir), "device": "cpu"}
    workflow = workplace.workflow("infer", ["inference.yaml"], **places, **overrides)
    workflow.initialize()
    workflow.run()


def evaluate(workplace: Workplace, **overrides: Any) -> None:
    workflow = workplace.workflow("eval", list(EVALUATION), device="cpu", **overrides)
    workflow.initialize()
    workflow.run()


def failed(error: BaseException) -> str:
    """What is said of the failed cases, behind what MONAI says."""
    while error.__cause__ is not None:
        error = error.__cause__
    assert isinstance(error, FailedCases)
    return str(error)


def contents(folder: Path) -> dict[str, bytes]:
    """What every file of a case holds."""
    return {path.name: path.read_bytes() for path in folder.glob("case_*")}


def test_inference_does_the_good_images_and_later_those_that_were_bad(
    workplace: Workplace,
    segmented: Run,
    phantoms: Path,
    damaged: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    whole, out = contents(segmented.output_dir), tmp_path / "out"
    with pytest.raises(RuntimeError) as caught:
        infer(workplace, damaged, out, **{"dataloader#num_workers": 2})
    assert "images/case_001" in failed(caught.value) and "\n" in failed(caught.value)
    assert contents(out) == {
        name: content for name, content in whole.items() if not name.startswith("case_001")
    }

    shutil.copy(find_case(phantoms / "images", "case_001"), damaged / "images")
    times = {path: path.stat().st_mtime_ns for path in out.glob("case_*")}
    with caplog.at_level(logging.INFO, "ldseg_monai"):
        infer(workplace, damaged, out)
    done = len(cases_in(phantoms / "images"))
    assert f"{done - 1} of {done} cases are finished already" in caplog.text
    assert contents(out) == whole
    assert {path: path.stat().st_mtime_ns for path in times} == times


@one_bundle
def test_inference_that_was_stopped_between_the_files_of_a_case_ends_as_if_it_was_not(
    workplace: Workplace,
    segmented: Run,
    phantoms: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def interrupt(engine: Engine) -> None:
        if engine.state.iteration == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):

        def attach(self, engine):
            engine.add_event_handler(IterationEvents.MODEL_COMPLETED, interrupt)

        patch.setattr("ldseg_monai.evaluation.SaveOverlay.attach", attach)
        infer(workplace, phantoms, tmp_path)
    assert len((tmp_path / "finished.jsonl").read_text().splitlines()) == 1
    assert find_case(tmp_path, "case_001_label").stat().st_size  # written, not noted as finished
    find_case(tmp_path, "case_000_label").unlink()  # noted as finished, and gone
    infer(workplace, phantoms, tmp_path)
    assert contents(tmp_path) == contents(segmented.output_dir)


def test_another_seed_or_another_part_of_the_config_does_all_again(
    workplace: Workplace, segmented: Run, phantoms: Path, tmp_path: Path
) -> None:
    places = {"dataset_dir": str(phantoms), "output_dir": str(segmented.output_dir)}
    every = list(range(len(cases_in(phantoms / "images"))))

    def left(**overrides: Any) -> list[int]:
        given = {"device": "cpu", **places, **overrides}
        workflow = workplace.workflow("infer", ["inference.yaml"], **given)
        workflow.initialize()
        return workflow.parser.get_parsed_content("finished").remaining()

    assert left() == []
    moved = shutil.copytree(segmented.output_dir, tmp_path / "moved", copy_function=shutil.copy2)
    same = {"output_dir": str(moved), "dataloader#num_workers": 1, "world_size": 2, "rank": 1}
    assert left(**same) == []
    assert left(run=["$print(1)"], initialize=[]) == []  # as overlays for several processes have it
    changes = {
        "displayable_configs#seed": 1,
        "num_samples": 4,
        "amp": True,
        "save_overlay": False,
        "resume": False,
        "evaluator#inferer": "$@inferer",
        "postprocessing#transforms#0#allow_missing_keys": True,
    }
    for name, value in changes.items():
        assert left(**{name: value}) == every, name


def test_evaluation_scores_the_good_cases_and_lists_the_bad(
    workplace: Workplace, evaluated: Run, damaged: Path, tmp_path: Path
) -> None:
    with pytest.raises(RuntimeError) as caught:
        evaluate(
            workplace, dataset_dir=str(damaged), output_dir=str(tmp_path / "out"), num_workers=1
        )
    assert "images/case_001" in failed(caught.value)
    rows = (evaluated.output_dir / "metrics.csv").read_text().splitlines()
    assert (tmp_path / "out" / "metrics.csv").read_text().splitlines() == [
        row for row in rows if not row.startswith("case_001")
    ]
    assert "case_001" not in Page(tmp_path / "out" / "report.html").text


@one_bundle
def test_two_processes_infer_as_one_does(
    workplace: Workplace, segmented: Run, phantoms: Path, tmp_path: Path
) -> None:
    configs, places = (
        ("inference.yaml", "multi_gpu_inference.yaml"),
        {"output_dir": str(tmp_path / "out")},
    )
    printed = workplace.run(*configs, launcher=LAUNCHER, dataset_dir=str(phantoms), **places)
    assert contents(tmp_path / "out") == contents(segmented.output_dir)
    notes = (tmp_path / "out" / "finished.jsonl").read_text().splitlines()
    assert sorted(json.loads(note)["case"] for note in notes) == cases_in(phantoms / "images")
    assert "finished already" not in printed


@one_bundle
def test_two_processes_evaluate_as_one_does_and_list_the_bad_cases_once(
    workplace: Workplace, damaged: Path, tmp_path: Path
) -> None:
    outs, options = (
        (tmp_path / "one", tmp_path / "two"),
        {"dataset_dir": str(damaged), "num_samples": 2},
    )
    with pytest.raises(RuntimeError):
        evaluate(workplace, output_dir=str(outs[0]), **options)
    configs = (*EVALUATION, "multi_gpu_evaluate.yaml")
    with workplace.start(
        *configs, launcher=LAUNCHER, output_dir=str(outs[1]), **options
    ) as command:
        assert command.wait() != 0
    assert (
        len(
            [
                line
                for line in command.printed.splitlines()
                if line.startswith("  ") and "case_001" in line
            ]
        )
        == 1
    )
    for name in ("metrics.csv", "summary.json"):
        assert (outs[0] / name).read_bytes() == (outs[1] / name).read_bytes()
    assert contents(outs[0]) == contents(outs[1])
    one, two = (Page(out / "report.html").images() for out in outs)
    assert one.keys() == two.keys() and len(one) > 3
    assert [name for name in one if (one[name] != two[name]).any()] == []


@pytest.mark.slow
def test_more_processes_than_cases_share_them(
    workplace: Workplace, segmented: Run, tmp_path: Path
) -> None:
    launcher = (*LAUNCHER[:-1], "--nproc_per_node=3")
    for configs in (
        ("inference.yaml", "multi_gpu_inference.yaml"),
        (*EVALUATION, "multi_gpu_evaluate.yaml"),
    ):
        out = tmp_path / configs[0]
        options = {"dataset_dir": "", "output_dir": str(out), "num_phantoms": 2, "seed": 0}
        done = workplace.run_anew(*configs, launcher=launcher, **options)  # by torchrun itself
        assert done.returncode == 0, done.stdout[-6000:]
        assert done.stdout.count("wrote 2 ") == 1, "the phantoms should be generated once"
        assert len(list(out.glob("case_*_overlay.png"))) == 2


@pytest.mark.slow
def test_inference_killed_and_started_again_ends_with_the_same_bytes(
    workplace: Workplace, segmented: Run, phantoms: Path, tmp_path: Path
) -> None:
    with workplace.start(
        "inference.yaml", dataset_dir=str(phantoms), output_dir=str(tmp_path)
    ) as command:
        command.wait_until(lambda: len(list(tmp_path.glob("*_label.*"))) > 1, "a second label")
        command.send_signal(signal.SIGKILL)
    assert command.returncode == -signal.SIGKILL
    printed = workplace.run("inference.yaml", dataset_dir=str(phantoms), output_dir=str(tmp_path))
    assert "cases are finished already" in printed
    assert contents(tmp_path) == contents(segmented.output_dir)
