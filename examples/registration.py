"""Register the demo models on an MLflow server; what is there already is left alone.

    python -m examples.registration --tracking-uri http://127.0.0.1:5000

====================  ========  ==================================================================
registered model      versions  what it shows
====================  ========  ==================================================================
`translation_model`   1, 2, 3   versions by number and alias; 3 renames the column and is held
`question_answerer`   1         a param with a default
`delivery_time`       1         columns of four types, one optional
`domain_name`         1         a package of another release than the gateway's
`registry_guide`      1         an agent, which OpenAI's client can ask
====================  ========  ==================================================================

The modules that train import torch and scikit-learn, so they are imported where they are used: a
run that finds everything registered costs no more than a few look-ups.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import tempfile
from collections.abc import Callable, Collection, Mapping
from importlib.metadata import version as installed_version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import mlflow.pyfunc
import mlflow.sklearn
from mlflow.models import Model, ModelSignature
from mlflow.types import ColSpec, ParamSchema, ParamSpec, Schema

from .facts import FACTS, SERVED_CONTEXT
from .publishing import Edition, Publisher, Save
from .quiet import quiet_mlflow, quiet_transformers

TRANSLATION_MODEL = "translation_model"
QUESTION_ANSWERER = "question_answerer"
DELIVERY_TIME = "delivery_time"
DOMAIN_NAME = "domain_name"
REGISTRY_GUIDE = "registry_guide"
DEMO_MODELS = (TRANSLATION_MODEL, QUESTION_ANSWERER, DELIVERY_TIME, DOMAIN_NAME, REGISTRY_GUIDE)

CHAMPION = "champion"
CHAMPION_VERSION: Literal[2] = 2
DEFAULT_CACHE_DIR = Path.home() / ".cache" / "modelmux" / "demo-models"

Progress = Callable[[str], None]
TranslationVersion = Literal[1, 2, 3]

_HERE = Path(__file__).parent
_TRANSLATIONS: Mapping[TranslationVersion, Mapping[str, str]] = {
    1: {"lang_from": "en", "lang_to": "de", "input_label": "prompt"},
    2: {"lang_from": "en", "lang_to": "fr", "input_label": "prompt"},
    3: {"lang_from": "en", "lang_to": "de", "input_label": "text_to_translate"},
}
_TRANSLATION_DESCRIPTIONS: Mapping[TranslationVersion, str] = {
    1: "English to German.",
    2: "English to French.",
    3: "English to German; its input column is called text_to_translate.",
}
_TRANSFORMER_REQUIREMENTS = ("mlflow", "pandas", "torch", "transformers")
_NEEDED = ("sklearn", "tokenizers", "torch", "transformers")
_SKLEARN_REQUIREMENTS = ("mlflow", "numpy", "pandas", "scikit-learn")
_SMALL_REQUIREMENTS = ("mlflow-skinny", "numpy", "pandas")
# Not the one of constraints.txt, and small: its environment is there in seconds.
OTHER_IDNA = "idna==3.7"


def _silent(_message: str) -> None:
    """Progress for callers who want none."""


def register_demo_models(
    tracking_uri: str,
    *,
    only: Collection[str] | None = None,
    progress: Progress = _silent,
    cache_dir: Path = DEFAULT_CACHE_DIR,
) -> None:
    """Register all demo models, or those named in `only`, in the order a reader meets them.

    Can be repeated and resumed: what the registry has is skipped, and weights that were trained
    before come from `cache_dir`. An alias that somebody has moved stays where it is.

    Raises ValueError for an unknown name in `only`, and `ForeignModelError` where the registry has
    a model of such a name that the demo didn't make.
    """
    wanted = set(DEMO_MODELS if only is None else only)
    if unknown := wanted - set(DEMO_MODELS):
        raise ValueError(f"no such demo model: {', '.join(sorted(unknown))}")
    if TRANSLATION_MODEL in wanted:
        _register_translations(tracking_uri, progress, cache_dir)
    if QUESTION_ANSWERER in wanted:
        register_question_answerer(tracking_uri, progress=progress, cache_dir=cache_dir)
    if DELIVERY_TIME in wanted:
        register_delivery_time(tracking_uri, progress=progress)
    if DOMAIN_NAME in wanted:
        register_domain_name(tracking_uri, progress=progress)
    if REGISTRY_GUIDE in wanted:
        register_registry_guide(tracking_uri, progress=progress)


def register_translation(
    tracking_uri: str,
    version: TranslationVersion,
    *,
    hfhub_name: str | None = None,
    progress: Progress = _silent,
    cache_dir: Path = DEFAULT_CACHE_DIR,
) -> int:
    """Register one version of the translator: 1 German, 2 French, 3 German with another column.

    With `hfhub_name` the version loads that model of the Hub, and nothing is trained.
    Returns the number that the registry gave the version: `version`, where they come in order and
    none has been deleted.
    """
    config = dict(_TRANSLATIONS[version])

    def save(folder: Path, description: Model) -> None:
        weights = None if hfhub_name else _translator_weights(cache_dir, progress)
        _save_transformer(
            folder,
            description,
            code=_HERE / "served" / "translator.py",
            weights=weights,
            config=config | _hub(hfhub_name),
            signature=_translation_signature(config["input_label"]),
            example={config["input_label"]: "The weather is lovely today"},
        )

    edition = Edition(
        model=TRANSLATION_MODEL,
        number=version,
        model_description="Translates everyday phrases.",
        description=_TRANSLATION_DESCRIPTIONS[version],
        tags={key: config[key] for key in ("lang_from", "lang_to")},
    )
    return _register(tracking_uri, edition, save, progress)


def register_question_answerer(
    tracking_uri: str,
    *,
    context: str | None = None,
    hfhub_name: str | None = None,
    progress: Progress = _silent,
    cache_dir: Path = DEFAULT_CACHE_DIR,
) -> int:
    """Register the question answerer; it reads `context`, by default that of `facts`.

    With `hfhub_name` the version loads that model of the Hub, and nothing is trained.
    Returns the number that the registry gave the version.
    """

    def save(folder: Path, description: Model) -> None:
        weights = None if hfhub_name else _question_answerer_weights(cache_dir, progress)
        _save_transformer(
            folder,
            description,
            code=_HERE / "served" / "question_answerer.py",
            weights=weights,
            config={"context": context or SERVED_CONTEXT} | _hub(hfhub_name),
            signature=_question_answering_signature(),
            example={"question": "Where does Ray Serve run the models?"},
        )

    edition = Edition(
        model=QUESTION_ANSWERER,
        number=1,
        model_description="Finds the answers to questions in a text.",
        description="Answers questions about MLflow, Ray Serve and the gateway.",
    )
    return _register(tracking_uri, edition, save, progress)


def register_delivery_time(tracking_uri: str, *, progress: Progress = _silent) -> int:
    """Register the scikit-learn model; the number that the registry gave the version."""
    edition = Edition(
        model=DELIVERY_TIME,
        number=1,
        model_description="Estimates how many minutes the delivery of an order takes.",
        description="Gradient boosting on made-up orders; the rain may be left out.",
    )
    return _register(tracking_uri, edition, _save_delivery_time, progress)


def register_domain_name(tracking_uri: str, *, progress: Progress = _silent) -> int:
    """Register the model with a package of its own; the number that its version got."""
    edition = Edition(
        model=DOMAIN_NAME,
        number=1,
        model_description="Writes the domain names of all languages in ASCII.",
        description=f"Pins {OTHER_IDNA}, whatever the gateway has, and says which it ran with.",
    )
    return _register(tracking_uri, edition, _save_domain_name, progress)


def register_registry_guide(tracking_uri: str, *, progress: Progress = _silent) -> int:
    """Register the agent; the number that its version got."""
    edition = Edition(
        model=REGISTRY_GUIDE,
        number=1,
        model_description="Answers questions about registries and gateways.",
        description="A ResponsesAgent without weights: it finds the sentence that answers.",
    )
    return _register(tracking_uri, edition, _save_registry_guide, progress)


def main() -> None:
    """Register the demo models from the command line."""
    parser = argparse.ArgumentParser(description="Register the demo models of modelmux.")
    parser.add_argument("--tracking-uri", required=True, help="address of the MLflow server")
    parser.add_argument("--only", action="append", choices=DEMO_MODELS, help="may be repeated")
    parser.add_argument("--cache-dir", type=Path, default=DEFAULT_CACHE_DIR)
    arguments = parser.parse_args()
    if missing := [name for name in _NEEDED if find_spec(name) is None]:
        parser.error(f"the demo models need {', '.join(missing)}, which isn't installed here")
    register_demo_models(
        arguments.tracking_uri,
        only=arguments.only,
        progress=print,
        cache_dir=arguments.cache_dir,
    )


def _register_translations(tracking_uri: str, progress: Progress, cache_dir: Path) -> None:
    for edition in _TRANSLATIONS:
        number = register_translation(tracking_uri, edition, progress=progress, cache_dir=cache_dir)
        # Before the version with the other column arrives, or a gateway that is running would see
        # that one as the newest and no champion yet.
        if edition == CHAMPION_VERSION:
            publisher = Publisher(tracking_uri)
            if publisher.set_alias_once(TRANSLATION_MODEL, CHAMPION, number):
                progress(f"{TRANSLATION_MODEL}: alias {CHAMPION} on version {number}")


def _register(tracking_uri: str, edition: Edition, save: Save, progress: Progress) -> int:
    publisher = Publisher(tracking_uri)
    number = publisher.published(edition)
    if number is not None:
        progress(f"{edition.model}: version {number} is there")
        return number
    with quiet_mlflow():
        number = publisher.publish(edition, save)
    progress(f"{edition.model}: version {number} registered ({edition.description.rstrip('.')})")
    return number


def _translator_weights(cache_dir: Path, progress: Progress) -> Path:
    def train(folder: Path) -> None:
        from .translation import train_translator

        train_translator(folder)

    trained_by = _fingerprint("phrases.py", "training.py", "translation.py")
    return _trained(cache_dir / trained_by / "translator", train, progress)


def _question_answerer_weights(cache_dir: Path, progress: Progress) -> Path:
    def train(folder: Path) -> None:
        from .question_answering import train_question_answerer

        train_question_answerer(folder)

    trained_by = _fingerprint("facts.py", "training.py", "question_answering.py")
    return _trained(cache_dir / trained_by / "question_answerer", train, progress)


def _fingerprint(*sources: str) -> str:
    """A name for what would be trained: it changes with the training code and its data."""
    digest = hashlib.sha256()
    for source in sources:
        digest.update((_HERE / source).read_bytes())
    return digest.hexdigest()[:12]


def _trained(folder: Path, train: Callable[[Path], None], progress: Progress) -> Path:
    """The folder with the trained weights; trains them first where it isn't there."""
    if folder.is_dir():
        return folder
    progress(f"training the {folder.name.replace('_', ' ')} (once, about half a minute)")
    folder.parent.mkdir(parents=True, exist_ok=True)
    # Renamed when complete, so that neither an interrupted run nor one that trains at the same
    # time leaves or sees half of it.
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        finished = Path(scratch, folder.name)
        with quiet_transformers():
            train(finished)
        try:
            os.rename(finished, folder)
        except OSError:
            if not folder.is_dir():  # else somebody else finished first, with the same weights
                raise
    return folder


def _save_transformer(
    folder: Path,
    description: Model,
    *,
    code: Path,
    weights: Path | None,
    config: dict[str, Any],
    signature: ModelSignature,
    example: dict[str, str],
) -> None:
    mlflow.pyfunc.save_model(
        folder,
        python_model=code,
        artifacts={"weights": str(weights)} if weights else None,
        model_config=config,
        signature=signature,
        input_example=[example],
        pip_requirements=_pinned(_TRANSFORMER_REQUIREMENTS),
        mlflow_model=description,
    )


def _save_delivery_time(folder: Path, description: Model) -> None:
    from .delivery import fit_delivery_time

    order = {"zone": "hills", "items": 3, "distance_km": 4.5, "express": False, "rain_mm": 6.0}
    mlflow.sklearn.save_model(
        fit_delivery_time(),
        folder,
        # Plain pickle can refer to what libraries define, and carries no code of this folder.
        serialization_format=mlflow.sklearn.SERIALIZATION_FORMAT_PICKLE,
        signature=_delivery_time_signature(),
        input_example=[order],
        pip_requirements=_pinned(_SKLEARN_REQUIREMENTS),
        mlflow_model=description,
    )


def _save_domain_name(folder: Path, description: Model) -> None:
    mlflow.pyfunc.save_model(
        folder,
        python_model=_HERE / "served" / "domain_writer.py",
        signature=_domain_name_signature(),
        input_example=[{"name": "bücher.example"}],
        pip_requirements=[*_pinned(_SMALL_REQUIREMENTS), OTHER_IDNA],
        mlflow_model=description,
    )


def _save_registry_guide(folder: Path, description: Model) -> None:
    mlflow.pyfunc.save_model(
        folder,
        python_model=_HERE / "served" / "registry_guide.py",
        model_config={"sentences": [fact.sentence for fact in FACTS]},
        pip_requirements=_pinned(_SMALL_REQUIREMENTS),
        mlflow_model=description,
    )


def _translation_signature(input_label: str) -> ModelSignature:
    return ModelSignature(
        inputs=Schema([ColSpec("string", input_label)]),
        outputs=Schema([ColSpec("string", "translation_text")]),
    )


def _question_answering_signature() -> ModelSignature:
    return ModelSignature(
        inputs=Schema([ColSpec("string", "question")]),
        outputs=Schema(
            [
                ColSpec("double", "score"),
                ColSpec("long", "start"),
                ColSpec("long", "end"),
                ColSpec("string", "answer"),
            ]
        ),
        params=ParamSchema([ParamSpec("max_answer_len", "long", 15)]),
    )


def _delivery_time_signature() -> ModelSignature:
    return ModelSignature(
        inputs=Schema(
            [
                ColSpec("string", "zone"),
                ColSpec("long", "items"),
                ColSpec("double", "distance_km"),
                ColSpec("boolean", "express"),
                ColSpec("double", "rain_mm", required=False),
            ]
        ),
        outputs=Schema([ColSpec("double", "minutes")]),
    )


def _domain_name_signature() -> ModelSignature:
    return ModelSignature(
        inputs=Schema([ColSpec("string", "name")]),
        outputs=Schema([ColSpec("string", "ascii"), ColSpec("string", "idna")]),
    )


def _hub(hfhub_name: str | None) -> dict[str, str]:
    return {"hfhub_name": hfhub_name} if hfhub_name else {}


def _pinned(packages: Collection[str]) -> list[str]:
    """What the versions here need, as installed here; a build like +cpu isn't on every index.

    MLflow is asked itself: it may be installed as mlflow-skinny, of the same version."""
    installed = {name: installed_version(name) for name in packages if name != "mlflow"}
    installed["mlflow"] = mlflow.__version__
    return [f"{name}=={installed[name].partition('+')[0]}" for name in packages]


if __name__ == "__main__":
    main()
