"""What the studio changes on disk: name, star and note of a run, and runs that move to the trash."""

import fcntl
import json
import os

import pytest
from fake_runs import client_for, journal_line, make_run, progress_line

from cardigan.http.endpoint import Endpoint
from cardigan.studio.access import cookie_name
from cardigan.studio.lineage import add_parents, find_parent


@pytest.fixture
def client(tmp_path):
    make_run(tmp_path / "one", [progress_line(64)], [64])
    make_run(tmp_path / "sweep" / "two", [progress_line(64)])
    with client_for(tmp_path) as client:
        yield client


def summary(client, run_id):
    return next(run for run in client.get("/api/runs").json()["runs"] if run["id"] == run_id)


def files(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def test_annotations_are_saved_in_a_file_of_their_own(client, tmp_path):
    before = files(tmp_path)
    response = client.post("/api/annotate?run=one", json={"title": " My  best ", "starred": True, "note": "wide D\n"})
    assert response.json() == {"title": "My best", "starred": True, "note": "wide D"}
    one = summary(client, "one")
    assert (one["title"], one["starred"], one["note"]) == ("My best", True, "wide D")
    assert (summary(client, "sweep/two")["title"], summary(client, "sweep/two")["starred"]) == ("", False)
    after = files(tmp_path)
    assert after.keys() - before.keys() == {tmp_path / "one" / "studio.json"}
    assert all(after[path] == time for path, time in before.items())


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b'{"title": "x"', "not valid JSON"),
        (b"[]", "expected an object"),
        (b'{"titel": "x"}', "expected an object"),
        (b'{"title": 3}', "expected texts"),
        (b'{"starred": "yes"}', "expected texts"),
        (json.dumps({"title": "x" * 81}).encode(), "at most 80"),
        (json.dumps({"note": "x" * 4_001}).encode(), "at most 4,000"),
    ],
)
def test_invalid_annotations_are_rejected(client, tmp_path, content, words):
    response = client.post("/api/annotate?run=one", content=content, headers={"content-type": "application/json"})
    assert response.status_code == 400 and words in response.json()["error"]
    assert not (tmp_path / "one" / "studio.json").exists()


@pytest.mark.parametrize("content", [b"{", b'{"title": []}', b"x" * 70_000, b"\xff", b"[" * 60_000])
def test_damaged_annotations_count_as_none(client, tmp_path, content):
    (tmp_path / "one" / "studio.json").write_bytes(content)
    assert (summary(client, "one")["title"], summary(client, "one")["error"]) == ("", None)


@pytest.mark.parametrize("path", ["/api/annotate?run=one", "/api/trash?run=one"])
@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"content-type": "text/plain"}, 400),
        ({"content-type": "application/json", "origin": "http://evil.example"}, 403),
        ({"content-type": "application/json", "sec-fetch-site": "cross-site"}, 403),
        ({"content-type": "application/json", "host": "evil.example"}, 403),
    ],
)
def test_other_sites_cannot_change_runs(client, tmp_path, path, headers, status):
    before = files(tmp_path)
    assert client.post(path, content=b'{"run": "one"}', headers=headers).status_code == status
    assert client.get(path).status_code == 405
    assert files(tmp_path) == before


def test_changes_need_the_token(tmp_path):
    make_run(tmp_path / "one", [progress_line(64)])
    endpoint = Endpoint("127.0.0.1", 8765, "secret" * 8)
    with client_for(tmp_path, endpoint) as client:
        assert client.post("/api/trash?run=one", json={"run": "one"}).status_code == 403
        assert (tmp_path / "one").exists()
        client.cookies.set(cookie_name(endpoint), "secret" * 8)
        assert client.post("/api/trash?run=one", json={"run": "one"}).status_code == 200
    assert not (tmp_path / "one").exists()


def test_deleted_run_moves_to_the_trash(client, tmp_path):
    before = sorted(path.name for path in (tmp_path / "sweep" / "two").rglob("*"))
    moved = client.post("/api/trash?run=sweep/two", json={"run": "sweep/two"}).json()["moved_to"]
    assert moved.startswith(str(tmp_path / ".trash")) and moved.endswith("-two")
    (trashed,) = (tmp_path / ".trash").iterdir()
    assert sorted(path.name for path in trashed.rglob("*")) == before
    assert [run["id"] for run in client.get("/api/runs").json()["runs"]] == ["one"]
    assert client.get(f"/api/run?run=.trash/{trashed.name}").status_code == 404
    assert client.get(f"/api/run?run=./.trash/{trashed.name}").status_code == 404
    trashed.rename(tmp_path / "two")  # how a user restores it
    assert {run["id"] for run in client.get("/api/runs").json()["runs"]} == {"one", "two"}


def test_runs_of_the_same_name_do_not_collide_in_the_trash(client, tmp_path):
    for _ in range(3):
        make_run(tmp_path / "again", [progress_line(64)])
        assert client.post("/api/trash?run=again", json={"run": "again"}).status_code == 200
    assert len(list((tmp_path / ".trash").iterdir())) == 3


def test_training_run_is_not_deleted(client, tmp_path):
    lock = os.open(tmp_path / "one" / "lock", os.O_RDWR | os.O_CREAT)
    fcntl.flock(lock, fcntl.LOCK_EX)
    try:
        response = client.post("/api/trash?run=one", json={"run": "one"})
        assert response.status_code == 409 and "is training" in response.json()["error"]
        assert (tmp_path / "one" / "config.json").exists() and not (tmp_path / ".trash").exists()
        assert client.post("/api/annotate?run=one", json={"note": "running"}).status_code == 200
    finally:
        os.close(lock)
    assert client.post("/api/trash?run=one", json={"run": "one"}).status_code == 200


@pytest.mark.parametrize(
    ("run_id", "body", "status"),
    [("one", {}, 400), ("one", {"run": "two"}, 400), ("nothing", {"run": "nothing"}, 404), ("..", {"run": ".."}, 404)],
)
def test_only_the_named_run_is_deleted(client, tmp_path, run_id, body, status):
    assert client.post(f"/api/trash?run={run_id}", json=body).status_code == status
    assert (tmp_path / "one").exists() and not (tmp_path / ".trash").exists()


def test_single_run_and_linked_trash_are_refused(client, tmp_path, tmp_path_factory):
    with client_for(tmp_path / "one") as single:
        response = single.post("/api/trash?run=.", json={"run": "."})
        assert response.status_code == 409 and "folder above" in response.json()["error"]
    (tmp_path / ".trash").symlink_to(tmp_path_factory.mktemp("outside"))
    response = client.post("/api/trash?run=one", json={"run": "one"})
    assert response.status_code == 409 and "link" in response.json()["error"]
    assert (tmp_path / "one").exists()


def test_details_have_origin_and_evaluation(client, tmp_path):
    config = tmp_path / "one" / "config.json"
    content = json.loads(config.read_text())
    content["provenance"] = {"command": ["/bin/cardigan", "train", "mnist"], "num_processes": 4, "plugins": {"a": 1}}
    config.write_text(json.dumps(content))
    report = {"images_seen": 64, "metrics": [{"key": "fd_digits", "value": 3.5}], "protocol": "2,000 samples"}
    (tmp_path / "one" / "report.json").write_text(json.dumps(report))
    one = client.get("/api/run?run=one").json()
    assert (one["command"], one["num_processes"], one["has_report"]) == ("cardigan train mnist", 4, False)
    assert one["evaluation"] == report and one["environment"] == {"num_processes": "4", "plugins": '{"a": 1}'}
    two = client.get("/api/run?run=sweep/two").json()
    assert (two["command"], two["evaluation"], two["num_processes"]) == ("", None, 1)
    for damaged in ("{", "[]", '{"metrics": 3}', '{"metrics": [4]}'):
        (tmp_path / "one" / "report.json").write_text(damaged)
        assert client.get("/api/run?run=one").json()["evaluation"] is None


def test_report_runs_no_script_and_loads_nothing(client, tmp_path):
    (tmp_path / "one" / "report.html").write_text("<script>alert(1)</script>")
    response = client.get("/api/report?run=one")
    assert response.text == "<script>alert(1)</script>"
    policy = response.headers["content-security-policy"]
    assert "default-src 'none'" in policy and "sandbox" in policy and "script-src" not in policy
    assert client.get("/api/report?run=sweep/two").status_code == 404


def test_curves_of_chosen_metrics(client):
    found = client.get("/api/curves?run=one&series=discriminator_loss,nothing").json()
    assert found["series"].keys() == {"discriminator_loss"} and found["images_seen"] == [64]


def test_score_kinds(tmp_path):
    from cardigan.config import Config
    from cardigan.overrides import override

    for name, source in (("digits", "mnist"), ("stacked", "stacked-mnist"), ("photos", "/data/photos")):
        config = override(Config(), {"data.source": source})
        make_run(tmp_path / name, [journal_line("checkpoint", 64, score=3.0)], config=config)
    with client_for(tmp_path) as client:
        kinds = {run["id"]: run["score_kind"] for run in client.get("/api/runs").json()["runs"]}
    assert kinds == {"digits": "test digits", "stacked": "uniform modes", "photos": "photos, 32x32"}


@pytest.mark.parametrize(
    ("child", "path", "parent"),
    [
        ("b", "a", "a"),
        ("b", "runs/a/checkpoints/00000512", "a"),
        ("b", "/work/runs/a@sha256:0123", "a"),
        ("b", "hf:user/model", None),
        ("b", "icons-64", None),
        ("x/child", "same", "x/same"),  # two runs have this name: the one next to the child
        ("y/child", "runs/x/same", "x/same"),  # or the one whose path is given
        ("b", "same", None),
        ("a", "a", None),  # not its own parent
    ],
)
def test_parent_is_found_by_name(child, path, parent):
    assert find_parent(child, path, ["a", "b", "x/same", "y/other/same", "x/child", "y/child"]) == parent


def test_inherited_images_count_all_ancestors():
    def run(name, parent, images):
        facts = {"model": parent, "path": parent, "images_seen": images} if parent else None
        return {"id": name, "started_from": facts}

    runs = [run("a", None, 0), run("b", "a", 100), run("c", "b", 30), run("p", "q", 1), run("q", "p", 1)]
    add_parents(runs)
    assert [each["parent"] for each in runs] == [None, "a", "b", "q", "p"]
    assert [each["inherited_images"] for each in runs][:3] == [0, 100, 130]
