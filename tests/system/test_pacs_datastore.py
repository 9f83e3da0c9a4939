"""MONAI Label's datastore over a real Orthanc that wants a login: every modality, nothing stale, labels as DICOM SEG."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import highdicom
import numpy as np
import pydicom
import pytest

from tests.system import studies
from tests.system.orthanc import Orthanc
from tests.system.seeing_predictor import seen
from tests.system.servers import SEEING, MedSegRServer

pytestmark = pytest.mark.system


@pytest.fixture(scope="module")
def held(orthanc_with_login: Orthanc, tmp_path_factory: pytest.TempPathFactory) -> dict[str, studies.Study]:
    folder = tmp_path_factory.mktemp("held")
    made = {
        "ct": studies.reversed_ct(folder / "ct"),
        "cr": studies.single_cr(folder / "cr"),
        "views": studies.two_views(folder / "views"),
        "us": studies.multi_frame_us(folder / "us"),
        "xc": studies.colour_photograph(folder / "xc"),
    }
    for study in made.values():
        orthanc_with_login.upload(path for series in study.series for path in series.paths)
    return made


@pytest.fixture(scope="module")
def server(
    orthanc_with_login: Orthanc, held: dict[str, studies.Study], medsegr_server: Callable[..., MedSegRServer]
) -> MedSegRServer:
    assert orthanc_with_login.auth
    user, password = orthanc_with_login.auth
    login = {"MONAI_LABEL_DICOMWEB_USERNAME": user, "MONAI_LABEL_DICOMWEB_PASSWORD": password}
    return medsegr_server(orthanc_with_login.url, factory=SEEING, environment=login)


def listed(server: MedSegRServer) -> set[str]:
    return set(server.get("/datastore/", params={"output": "all"}).json()["objects"])


def test_every_modality_is_listed(server: MedSegRServer, held: dict[str, studies.Study]) -> None:
    assert {series.uid for study in held.values() for series in study.series} <= listed(server)
    assert server.get("/info/").json()["datastore"]["total"] >= len(held)


def test_a_new_series_is_seen_within_seconds(
    server: MedSegRServer, orthanc_with_login: Orthanc, tmp_path: Path
) -> None:
    listed(server)
    (series,) = studies.axial_ct(tmp_path, 3).series
    orthanc_with_login.upload(series.paths)
    end = time.monotonic() + 8
    while series.uid not in listed(server):
        assert time.monotonic() < end, "the new series did not appear"
        time.sleep(0.5)


@pytest.mark.parametrize("name", ["ct", "cr", "views", "us", "xc"])
def test_it_is_answered_on_the_instances_of_its_stacks(
    server: MedSegRServer, held: dict[str, studies.Study], name: str
) -> None:
    series = held[name].series[0]
    for stack in server.get(f"/medsegr/series/{series.uid}").json()["stacks"]:
        instance = stack["instances"][0]
        params = {"question": "Show the spleen", "instance": instance["sop"], "frame": instance["frame"]}
        reply = server.post(
            "/infer/medsegr",
            params={"image": series.uid, "output": "json"},
            files={"params": (None, json.dumps(params))},
        ).json()
        assert (reply["image"], reply["stack"], reply["outcome"]) == (series.uid, stack["n"], "found")
        expected = series.expected("spleen")
        for plane, mask in server.mask_by_instance(reply["turn_id"], 1, series.uid, stack["n"]).items():
            assert np.array_equal(mask, expected[plane]), plane


def test_a_final_label_is_a_dicom_seg_in_the_pacs(
    server: MedSegRServer, orthanc_with_login: Orthanc, held: dict[str, studies.Study]
) -> None:
    study = held["ct"]
    series = study.series[0]
    asked: Any = server.post(
        "/infer/medsegr",
        params={"image": series.uid},
        files={
            "params": (
                None,
                json.dumps({"question": "Show the spleen and the liver", "result_extension": ".nrrd"}),
            )
        },
    )
    content = asked.content[asked.content.index(b"NRRD") : asked.content.rindex(b"\r\n--")]
    names = [{"name": "liver", "idx": 1}, {"name": "spleen", "idx": 2}]
    saved = server.put_label(series.uid, content, {"label_info": names})
    assert saved.status_code == 200, saved.text
    told = saved.json()["dicom_seg"]
    assert told["stored"], told
    status = server.get("/info/").json()["datastore"]
    assert status["completed"] == 1 and status["label_tags"]["final"] == 1  # at once, not in two hours
    assert told["series"] not in listed(server)  # a SEG is no image
    found = orthanc_with_login.get(f"/series?SeriesInstanceUID={told['series']}").json()
    study_uid = found[0]["0020000D"]["Value"][0]
    reply = orthanc_with_login.get(f"/studies/{study_uid}/series/{told['series']}")
    part = reply.content[reply.content.index(b"DICM") - 128 :]
    seg = highdicom.seg.Segmentation.from_dataset(pydicom.dcmread(io.BytesIO(part), force=True))
    assert seg.segmented_property_types[0].meaning and seg.number_of_segments == 2
    labels = {seg.get_segment_description(n).segment_label: n for n in (1, 2)}
    by_instance = seg.get_pixels_by_source_instance(
        [image.sop for image in series.images], assert_missing_frames_are_empty=True
    )
    for k, image in enumerate(series.images):
        for label, n in labels.items():
            assert np.array_equal(by_instance[k, ..., n - 1] > 0, seen(image.values, label)), (
                image.sop,
                label,
            )


def test_a_series_that_grew_is_asked_about_whole(
    server: MedSegRServer, orthanc_with_login: Orthanc, tmp_path: Path
) -> None:
    (series,) = studies.sagittal_mr(tmp_path, 6).series
    orthanc_with_login.upload(series.paths[:4])
    assert len(server.stack(series.uid)) == 4
    orthanc_with_login.upload(series.paths[4:])
    assert len(server.stack(series.uid)) == 6
    assert server.get("/medsegr/series/1.2.3.4.5").status_code == 404


def test_what_the_pacs_password_is_stays_unknown(server: MedSegRServer, orthanc_with_login: Orthanc) -> None:
    assert orthanc_with_login.auth
    assert orthanc_with_login.auth[1] not in server.logs()
    assert orthanc_with_login.auth[1] not in server.get("/info/").text


def test_a_wrong_password_is_a_bad_gateway(
    orthanc_with_login: Orthanc, held: dict[str, studies.Study], medsegr_server: Callable[..., MedSegRServer]
) -> None:
    login = {"MONAI_LABEL_DICOMWEB_USERNAME": "pacsuser", "MONAI_LABEL_DICOMWEB_PASSWORD": "wrong"}
    server = medsegr_server(orthanc_with_login.url, factory=SEEING, environment=login)
    reply = server.get(f"/medsegr/series/{held['ct'].series[0].uid}")
    assert reply.status_code == 502 and "login" in reply.json()["detail"]
    assert server.get("/info/").status_code == 200
