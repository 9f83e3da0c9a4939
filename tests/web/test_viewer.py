"""OHIF and the plugin over real HTTP requests: right types, no way out of the folders, nothing from other servers."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from fastapi import APIRouter, Depends, FastAPI, HTTPException
from fastapi.testclient import TestClient

from medsegr.web.viewer import RootViewer, ViewerError, plugin_folder, viewer_router

PAGE = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
INDEX = """<head><link rel="icon" href="/ohif/a.png"/><link rel="preconnect" href="https://fonts.gstatic.com" crossorigin/>
<link href="https://fonts.googleapis.com/css?family=Inter" rel="stylesheet"/><script src="/ohif/app-config.js"></script></head>"""
STYLE = "@import url(https://fonts.googleapis.com/css2?family=Inter:wght@100..900&display=swap);\nbody { color: white }"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two viewers, and a secret beside them."""
    for name in ("ohif", "npm"):
        (tmp_path / name / "assets" / "images").mkdir(parents=True)
        (tmp_path / name / "index.html").write_text(INDEX.replace("icon", f"icon {name}"))
        (tmp_path / name / "app-config.js").write_text("window.config = { extensions: [], modes: [] };")
        (tmp_path / name / "assets" / "images" / "deep.png").write_bytes(b"\x89PNG" + name.encode())
        (tmp_path / name / "code.wasm").write_bytes(b"\0asm")
        (tmp_path / name / "app.css").write_text(STYLE)
    (tmp_path / "secret.txt").write_text("secret")
    (tmp_path / "npm" / "leak.txt").symlink_to(tmp_path / "secret.txt")
    return tmp_path


def application(folder: Path, *, root: bool, guards: tuple = ()) -> TestClient:
    """As the app wires it: ours in front, then routes like the stock ones, then the root viewer."""
    app = FastAPI()
    dist = folder / "npm" if root else None
    app.include_router(viewer_router(folder / "ohif", dist, guards))
    stock = APIRouter()

    @stock.get("/")
    def swagger() -> str:
        return "stock start page"

    @stock.get("/info/")
    def info() -> dict[str, str]:
        return {"name": "stock"}

    @stock.get("/ohif/{path:path}")
    def ohif(path: str) -> str:
        return "stock ohif"

    app.include_router(stock)
    if dist:
        app.router.default = RootViewer(dist, app.router.default)
    return TestClient(app)


@pytest.fixture
def client(folder: Path) -> TestClient:
    return application(folder, root=False)


@pytest.fixture
def rooted(folder: Path) -> TestClient:
    return application(folder, root=True)


def test_the_plugin_is_javascript_that_is_asked_for_again(client: TestClient) -> None:
    reply = client.get("/medsegr/ohif/extension.js")
    assert reply.status_code == 200 and reply.text == (plugin_folder() / "extension.js").read_text()
    assert reply.headers["content-type"] == "text/javascript; charset=utf-8"
    assert reply.headers["cache-control"] == "no-cache"
    again = client.get("/medsegr/ohif/extension.js", headers={"If-None-Match": reply.headers["etag"]})
    assert again.status_code == 304 and not again.content
    assert client.head("/medsegr/ohif/mode.js").status_code == 200
    assert client.get("/medsegr/ohif/panel.css").headers["content-type"] == "text/css; charset=utf-8"


@pytest.mark.parametrize(
    "path",
    [
        "..%2fsecret.txt",
        "..%2f..%2f..%2fpyproject.toml",
        "%2e%2e/secret.txt",
        "src/%2e%2e/%2e%2e/%2e%2e/README.md",
        "%2fetc%2fpasswd",
        "//etc/passwd",
        "src",
        "nothing.js",
        "a%00b.js",
        "x" * 5000,
    ],
)
def test_nothing_outside_a_folder_is_read(rooted: TestClient, path: str) -> None:
    for prefix in ("/medsegr/ohif/", "/ohif/", "/"):
        reply = rooted.get(prefix + path, headers={"Accept": "*/*"})
        assert "secret" not in reply.text and "root:" not in reply.text and "[project]" not in reply.text
        assert reply.status_code == 404 or (prefix == "/ohif/" and "icon ohif" in reply.text), reply.text
    assert rooted.get("/leak.txt").status_code == 404  # a link that leads out


def test_a_missing_file_gets_a_sentence(client: TestClient) -> None:
    reply = client.get("/medsegr/ohif/src/gone.js")
    assert reply.status_code == 404 and reply.json()["detail"] == "There is no such file of the viewer."


def test_nested_files_of_the_bundled_viewer_are_found(client: TestClient) -> None:
    assert client.get("/ohif/assets/images/deep.png").content == b"\x89PNGohif"
    assert client.get("/ohif/code.wasm").headers["content-type"] == "application/wasm"


def test_every_page_of_the_bundled_viewer_is_its_own(client: TestClient) -> None:
    for path in ("/ohif/", "/ohif/medsegr?StudyInstanceUIDs=1.2", "/ohif/viewer/dicomweb?x=a.b"):
        reply = client.get(path, headers=PAGE)
        assert reply.status_code == 200 and "icon ohif" in reply.text
        assert reply.headers["content-type"].startswith("text/html")
    assert client.get("/ohif/assets/gone.js").status_code == 404  # a script must not get a page


def test_pages_need_no_other_server(client: TestClient) -> None:
    page = client.get("/ohif/", headers=PAGE).text
    assert "http" not in page and 'src="/ohif/app-config.js"' in page and "icon" in page
    assert client.get("/ohif/app.css").text.strip() == "body { color: white }"
    assert client.get("/ohif/app.css").headers["content-type"] == "text/css; charset=utf-8"


def test_the_bundled_configuration_gains_panel_and_mode(client: TestClient) -> None:
    config = client.get("/ohif/app-config.js")
    assert config.headers["content-type"].startswith("text/javascript")
    assert config.text.startswith("window.config = {")
    for line in (
        "extensions.push('/medsegr/ohif/extension.js')",
        "modes.push('/medsegr/ohif/mode.js')",
    ):
        assert config.text.count(line) == 1


def test_without_a_root_viewer_the_stock_pages_stay(client: TestClient) -> None:
    assert client.get("/", headers=PAGE).json() == "stock start page"
    assert client.get("/viewer", headers=PAGE).status_code == 404


def test_a_root_viewer_answers_what_no_route_does(rooted: TestClient) -> None:
    for path in ("/", "/medsegr?StudyInstanceUIDs=1.2", "/viewer/dicomweb", "/index.html"):
        reply = rooted.get(path, headers=PAGE)
        assert reply.status_code == 200 and "icon npm" in reply.text and "googleapis" not in reply.text
    assert rooted.get("/assets/images/deep.png").content == b"\x89PNGnpm"
    assert rooted.get("/info/", headers=PAGE).json() == {"name": "stock"}
    assert rooted.get("/info").json() == {"name": "stock"}  # the redirect of a missing slash still works
    assert rooted.get("/ohif/", headers=PAGE).text.count("icon ohif") == 1


def test_a_root_viewer_leaves_programs_their_errors(rooted: TestClient) -> None:
    assert rooted.get("/medsegr/nothing").json() == {"detail": "Not Found"}
    assert rooted.get("/nothing", headers={"Accept": "application/json"}).status_code == 404
    assert rooted.post("/nothing", headers=PAGE).status_code == 404
    assert rooted.delete("/assets/images/deep.png").status_code == 404


def test_the_root_configuration_names_no_other_server(rooted: TestClient) -> None:
    config = rooted.get("/app-config.js").text
    assert not re.search(r"https?:", config)
    roots = re.findall(r"(qidoRoot|wadoRoot|wadoUriRoot): '([^']*)'", config)
    assert dict(roots) == {
        "qidoRoot": "/proxy/dicom/qido",
        "wadoRoot": "/proxy/dicom/wado",
        "wadoUriRoot": "/proxy/dicom/wado",
    }
    assert "'/medsegr/ohif/extension.js'" in config and "'/medsegr/ohif/mode.js'" in config
    assert "investigationalUseDialog: { option: 'always' }" in config


def test_guards_stand_before_every_route(folder: Path) -> None:
    def refuse() -> None:
        raise HTTPException(401, "Log in first.")

    guarded = application(folder, root=True, guards=(Depends(refuse),))
    for path in ("/ohif/", "/ohif/app-config.js", "/medsegr/ohif/mode.js", "/"):
        assert guarded.get(path, headers=PAGE).status_code == 401


def test_a_folder_without_a_viewer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ViewerError, match="`--conf ohif` takes the folder `dist`"):
        RootViewer(tmp_path, lambda *_: None)


def test_the_plugin_asks_no_other_server_and_its_imports_exist() -> None:
    folder = plugin_folder()
    files = [*folder.rglob("*.js"), *folder.rglob("*.css")]
    assert {"extension.js", "mode.js"} <= {path.name for path in files}
    for path in files:
        text = path.read_text()
        assert not re.search(r"https?://", text), path
        for target in re.findall(r"""(?:from|import)\s*\(?\s*["'](\.[^"']+)["']""", text):
            assert (path.parent / target).is_file(), f"{path.name} imports {target}"
