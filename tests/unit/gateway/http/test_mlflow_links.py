"""Addresses in MLflow's own web interface."""

from gateway.http.pages.mlflow_links import MlflowLinks


def test_names_are_segments_of_a_route() -> None:
    """Whatever is in a name stays in it."""
    links = MlflowLinks("http://mlflow:5000/")
    assert links.model("a/b c#1") == "http://mlflow:5000/#/models/a%2Fb%20c%231"
    assert links.version("m", 3) == "http://mlflow:5000/#/models/m/versions/3"
    assert links.run("abc") == "http://mlflow:5000/#/runs/abc"


def test_without_an_address_or_a_run_nothing_is_linked() -> None:
    """A registry in a database or in files has no page."""
    assert MlflowLinks().model("m") is MlflowLinks().version("m", 1) is None
    assert MlflowLinks("http://mlflow").run(None) is MlflowLinks().run("abc") is None
