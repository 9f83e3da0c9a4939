"""The weights that ship, on real public studies and on the phantom: open, answer, correct."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest

from medsegr.phantom import Torso, make_torso, write_multiframe, write_radiograph, write_series
from tests.system.ask_page import Answer, AskPage
from tests.system.orthanc import Orthanc
from tests.system.servers import MedSegRServer
from tests.system.studies import Plane, strip

pytestmark = pytest.mark.system


@pytest.fixture(scope="module")
def server(orthanc: Orthanc, medsegr_server: Callable[..., MedSegRServer]) -> MedSegRServer:
    """Answers with the embedded checkpoint."""
    return medsegr_server(orthanc.url)


@pytest.fixture
def page(browser: Any, server: MedSegRServer) -> AskPage:
    return AskPage(browser, server.url)


@pytest.fixture(scope="module")
def torso() -> Torso:
    return make_torso(7, (128, 128, 16), (2.75, 2.75, 18.0))


@pytest.fixture
def upload(orthanc: Orthanc) -> Callable[[list[Path]], str]:
    """Stores files of one study in the PACS; its StudyInstanceUID."""

    def store(paths: list[Path]) -> str:
        orthanc.upload(paths)
        return str(pydicom.dcmread(paths[0], stop_before_pixels=True).StudyInstanceUID)

    return store


def check_and_correct(page: AskPage, server: MedSegRServer, answer: Answer) -> dict[str, dict[Plane, Any]]:
    """OHIF shows what the server answered; a stroke of the brush is stored as OHIF shows it. {label: mask as answered}."""
    turn = server.get(f"/medsegr/turns/{answer.turn}").json()
    assert turn["findings"], f"nothing was found: {answer.text}"
    answered = {}
    for finding in turn["findings"]:
        shown = page.drawn(finding["label"])
        given = server.mask_by_instance(answer.turn, finding["n"], turn["image_id"], turn.get("stack") or 1)
        assert any(mask.any() for mask in given.values())
        assert all(np.array_equal(shown[plane], mask) for plane, mask in given.items())
        answered[finding["label"]] = given
    first = turn["findings"][0]
    page.find(f".turn.current .finding[data-n='{first['n']}'] .name").click()
    page.paint()
    page.submit()
    (correction,) = server.get("/medsegr/corrections", params={"turn": answer.turn}).json()
    assert correction["verdict"] == "edited" and correction["turn_id"] == answer.turn
    stored = server.correction_by_instance(correction["id"], 1, turn["image_id"], turn.get("stack") or 1)
    shown = page.drawn(first["label"])
    assert all(np.array_equal(shown[plane], mask) for plane, mask in stored.items())
    assert any((stored[plane] != answered[first["label"]][plane]).any() for plane in stored)
    return answered


def test_the_phantom_as_ct(
    page: AskPage, server: MedSegRServer, upload: Any, torso: Torso, tmp_path: Path
) -> None:
    paths = write_series(torso, tmp_path, patient_id="SERIES")
    page.open(upload(paths))
    answer = page.ask("Where is the liver in this scan?")
    page.snap("phantom-ct")
    found = check_and_correct(page, server, answer)["liver"]
    truth = torso.mask("liver")  # [X, Y, Z]
    planes = np.stack(list(found.values()))  # in the order of the slices, from the feet upwards
    assert dice(planes, truth.transpose(2, 1, 0)) > 0.7


def dice(one: Any, other: Any) -> float:
    return float(2 * (one & other).sum() / (one.sum() + other.sum()))


def test_the_phantom_as_one_file_of_frames(
    page: AskPage, server: MedSegRServer, upload: Any, torso: Torso, tmp_path: Path
) -> None:
    page.open(upload([write_multiframe(torso, tmp_path / "frames.dcm", patient_id="FRAMES")]))
    found = check_and_correct(page, server, page.ask("Where is the liver in this scan?"))["liver"]
    assert dice(np.stack(list(found.values())), torso.mask("liver").transpose(2, 1, 0)) > 0.7


def test_the_phantom_as_a_radiograph(
    page: AskPage, server: MedSegRServer, upload: Any, tmp_path: Path
) -> None:
    page.open(upload([write_radiograph(make_torso(7), tmp_path / "cr.dcm", patient_id="FILM")]))
    answer = page.ask("Outline the lungs.")
    page.snap("phantom-radiograph")
    assert "lungs" in answer.text and check_and_correct(page, server, answer)


def test_the_phantom_with_missing_tags(
    page: AskPage, server: MedSegRServer, upload: Any, torso: Torso, tmp_path: Path
) -> None:
    paths = write_series(torso, tmp_path, patient_id="BARE")
    for path in paths:
        strip(path, keep=("InstanceNumber",))
    page.open(upload(paths))
    check_and_correct(page, server, page.ask("Where is the liver in this scan?"))


@pytest.mark.data
def test_a_real_ct_with_its_segmentation(
    page: AskPage, server: MedSegRServer, upload: Any, data_dir: Path
) -> None:
    """A CT and a SEG in one study: the SEG is no image to ask about, and it stays as it is."""
    folder = data_dir / "dicom" / "ct_totalseg"
    study = upload([folder / "seg_totalsegmentator.dcm", *sorted((folder / "series").glob("*.dcm"))])
    page.open(study)
    answer = page.ask("Which organ filters the blood and makes urine?")
    page.snap("real-ct")
    check_and_correct(page, server, answer)


@pytest.mark.data
def test_a_real_ct_of_three_slices(page: AskPage, server: MedSegRServer, upload: Any, data_dir: Path) -> None:
    page.open(upload(sorted((data_dir / "dicom" / "ct_dcmqi_3slice" / "series").glob("*.dcm"))))
    check_and_correct(page, server, page.ask("Where is the liver?"))


@pytest.mark.data
def test_a_real_mr_study_of_five_series(
    page: AskPage, server: MedSegRServer, upload: Any, data_dir: Path
) -> None:
    """Every series can be shown and asked about in turn; each answer is about the one on the screen."""
    root = data_dir / "dicom" / "mr_brain_tumour_progression"
    first = {}
    for path in sorted(root.glob("*/*.dcm")):
        first.setdefault(path.parent, str(pydicom.dcmread(path, stop_before_pixels=True).SeriesInstanceUID))
    page.open(upload(sorted(root.glob("*/*.dcm"))))
    assert len(first) == 5
    for series in first.values():
        page.show_series(series)
        answer = page.ask("Outline the brain tumour.")
        turn = server.get(f"/medsegr/turns/{answer.turn}").json()
        assert turn["image_id"] == series and answer.text
        check_and_correct(page, server, answer)
