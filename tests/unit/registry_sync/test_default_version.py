"""Which version is the default, and what the gate holds."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.catalog import UNSIGNED, UNTYPED_SIGNATURE, HeldVersion, ModelVersion, ServedModel
from registry_sync.default_version import BEING_LOADED, DefaultChoice, DefaultPolicy, LoadFacts
from tests.support.catalogs import BREAKING, LOOSER, PLAIN, catalog, served, signature, version

POLICY = DefaultPolicy()
NOTHING_LOADED = LoadFacts()


def test_a_new_model_without_champion_gets_its_newest_ready_version() -> None:
    """The newest READY version is the default where no alias says otherwise."""
    versions = (
        version(1),
        version(2, BREAKING),
        version(3, registry_status="PENDING_REGISTRATION"),
    )
    choice = POLICY.choose(versions, {}, previous=None, facts=NOTHING_LOADED)
    assert (choice.number, choice.contract) == (2, BREAKING)


def test_the_champion_alias_wins_over_the_newest() -> None:
    """The alias names the default, whatever else is registered."""
    choice = POLICY.choose(
        (version(1), version(2)), {"champion": 1}, previous=None, facts=NOTHING_LOADED
    )
    assert choice.number == 1


def test_another_alias_can_be_the_champion() -> None:
    """The alias's name is a setting."""
    policy = DefaultPolicy(champion_alias="prod")
    choice = policy.choose(
        (version(1), version(2)), {"champion": 2, "prod": 1}, previous=None, facts=NOTHING_LOADED
    )
    assert choice.number == 1


def test_a_new_model_skips_a_newest_version_that_cannot_be_served() -> None:
    """A broken newest version doesn't take a new model down."""
    versions = (version(1), version(2, None, problem="no signature"))
    assert POLICY.choose(versions, {}, previous=None, facts=NOTHING_LOADED).number == 1


def test_a_champion_that_cannot_be_served_is_not_replaced_silently() -> None:
    """Where the alias names a broken version, the model says so and serves nothing by default."""
    versions = (version(1), version(2, None, problem="It has no signature."))
    choice = POLICY.choose(versions, {"champion": 2}, previous=None, facts=NOTHING_LOADED)
    assert (choice.number, choice.problem) == (None, "Version 2: It has no signature.")


def test_a_compatible_newer_version_takes_over_with_its_contract() -> None:
    """A default that keeps the contract moves, and its signature is the contract from then on."""
    versions = (version(1), version(2, LOOSER))
    choice = POLICY.choose(versions, {}, previous=served(versions[0]), facts=NOTHING_LOADED)
    assert (choice.number, choice.contract, choice.held) == (2, LOOSER, None)


def test_what_an_earlier_contract_took_is_taken_as_long_as_nothing_breaks() -> None:
    """A default that drops an optional column goes on taking it; one that would mean something
    else by that column is held; one that breaks on purpose starts anew."""
    wide, narrow = signature(("x", "double"), ("b", "string", False)), PLAIN
    other = signature(("x", "double"), ("b", "long", False))
    one, two, three = version(1, wide), version(2, narrow), version(3, other)
    choice = POLICY.choose((one, two), {}, previous=served(one), facts=NOTHING_LOADED)
    assert (choice.number, choice.contract, choice.earlier_contracts) == (2, narrow, (wide,))

    model = served(one, two, three, default=2, earlier_contracts=choice.earlier_contracts)
    resolution = catalog(model).resolve("m", None)
    assert resolution.contract.parse(b'{"x": 1, "b": "still"}').frames[0][1].names == ("x",)
    later = POLICY.choose((one, two, three), {}, previous=model, facts=NOTHING_LOADED)
    assert (later.number, later.earlier_contracts) == (2, (wide,))

    accepted = version(3, other, accept_breaking=True)
    broken = POLICY.choose((one, two, accepted), {}, previous=model, facts=NOTHING_LOADED)
    assert (broken.number, broken.earlier_contracts) == (3, ())


def test_a_stale_tag_does_not_make_a_version_stand_in() -> None:
    """Only what keeps the contract stands in for a deleted default; an old tag chose nothing."""
    tagged = version(2, BREAKING, accept_breaking=True)
    newest = version(4, signature(("third", "double")))
    before = served(version(1), tagged, version(3), newest, default=3)
    choice = POLICY.choose((version(1), tagged, newest), {}, previous=before, facts=NOTHING_LOADED)
    assert choice.number == 1


def test_a_breaking_newer_version_is_held_with_its_differences() -> None:
    """A default that would break is kept back; the old one goes on answering."""
    versions = (version(1), version(2, BREAKING))
    choice = POLICY.choose(versions, {}, previous=served(versions[0]), facts=NOTHING_LOADED)
    assert (choice.number, choice.contract) == (1, PLAIN)
    assert choice.held is not None
    assert choice.held.number == 2
    assert {d["change"] for d in choice.held.differences} == {"added", "removed"} or (
        choice.held.differences
    )


def test_the_tag_lets_a_breaking_version_through() -> None:
    """`modelmux.accept_breaking` moves the default and with it the contract."""
    versions = (version(1), version(2, BREAKING, accept_breaking=True))
    choice = POLICY.choose(versions, {}, previous=served(versions[0]), facts=NOTHING_LOADED)
    assert (choice.number, choice.contract, choice.held) == (2, BREAKING, None)


def test_moving_the_champion_to_a_breaking_version_is_held_too() -> None:
    """The gate is the same whether a version is newer or an alias moved."""
    versions = (version(1), version(2, BREAKING))
    choice = POLICY.choose(
        versions, {"champion": 2}, previous=served(*versions, default=1), facts=NOTHING_LOADED
    )
    assert choice.number == 1
    assert choice.held is not None


def _choose(previous: ServedModel, **facts: Any) -> DefaultChoice:
    """What becomes of a model whose version 2 keeps the contract of version 1."""
    versions = (version(1), version(2))
    return POLICY.choose(versions, {}, previous=previous, facts=LoadFacts(**facts))


@pytest.mark.parametrize(
    ("facts", "number"),
    [
        ({}, 2),
        ({"loaded": {"f2"}}, 2),
        ({"loaded": {"f1"}}, 1),
        ({"loaded": {"f1", "f2"}}, 2),
        ({"loaded": {"f1"}, "prepared": {"f2"}}, 2),
        ({"is_running": lambda model: True}, 1),
        ({"loaded": {"f1", "f2"}, "is_running": lambda model: True}, 1),
        ({"prepared": {"f2"}, "is_running": lambda model: True}, 2),
    ],
)
def test_what_takes_over_was_prepared_or_replaces_nothing_that_ran(
    facts: dict[str, Any], number: int
) -> None:
    """A version waits where its model runs, and where it was never loaded and the default was."""
    choice = _choose(served(version(1)), **facts)
    assert choice.number == number
    if number == 1:
        assert choice.waiting == version(2)
        assert choice.held is not None
        assert (choice.held.number, choice.held.reason) == (2, BEING_LOADED)
    else:
        assert (choice.waiting, choice.held) == (None, None)


def test_a_version_that_could_not_be_prepared_waits_with_the_reason() -> None:
    """It stays held, and goes on waiting for another try."""
    choice = _choose(served(version(1)), loaded={"f1"}, failed={"f2": "It can't be loaded."})
    assert choice.held is not None
    assert choice.held.reason == "It can't be loaded."
    assert choice.waiting == version(2)


def test_a_version_is_held_until_its_environment_is_there() -> None:
    """Nothing is loaded meanwhile, and nobody is asked to prepare it."""
    problems: dict[int, str | None] = {2: "Its environment is being built."}

    def problem(model: ServedModel, wanted: ModelVersion) -> str | None:
        return problems.get(wanted.number)

    choice = _choose(served(version(1)), environment_problem=problem)
    assert (choice.number, choice.waiting) == (1, None)
    assert choice.held == HeldVersion(number=2, reason="Its environment is being built.")
    problems.clear()
    assert _choose(served(version(1)), environment_problem=problem).number == 2


def test_a_first_default_does_not_wait_for_its_environment() -> None:
    """Nothing else could answer, and its callers are told what it waits for."""
    facts = LoadFacts(environment_problem=lambda model, wanted: "Its environment is being built.")
    assert POLICY.choose((version(1),), {}, previous=None, facts=facts).number == 1


def test_a_version_that_the_gate_holds_does_not_wait() -> None:
    """Nothing is loaded of what would break the contract."""
    choice = POLICY.choose(
        (version(1), version(2, BREAKING)), {}, previous=served(version(1)),
        facts=LoadFacts(loaded={"f1"}),
    )  # fmt: skip
    assert choice.held is not None
    assert choice.waiting is None


def test_a_version_that_was_loaded_stands_in_while_a_new_one_is_prepared() -> None:
    """A deleted default isn't replaced by what was never loaded, where another one was; among
    versions that never were, and for one that was, nothing waits."""
    before = served(version(1), version(2), version(3), default=3)
    left = (version(1), version(2), version(4))

    def choose(*loaded: str) -> DefaultChoice:
        return POLICY.choose(left, {}, previous=before, facts=LoadFacts(loaded=set(loaded)))

    waiting = choose("f1", "f3")
    assert (waiting.number, waiting.waiting) == (1, version(4))
    assert choose("f3").number == 4
    assert choose("f1", "f4").number == 4


def test_a_broken_newer_version_is_held_for_its_reason() -> None:
    """A version that can't be served never replaces one that can."""
    versions = (version(1), version(2, None, problem="It has no signature."))
    choice = POLICY.choose(versions, {}, previous=served(versions[0]), facts=NOTHING_LOADED)
    assert choice.number == 1
    assert choice.held is not None
    assert choice.held.reason == "It has no signature."


def test_the_newest_version_that_keeps_the_contract_stands_in_for_a_deleted_default() -> None:
    """Where the default is gone, a compatible version answers, not a breaking one."""
    before = served(version(1), version(2), version(3), version(4, BREAKING), default=3)
    left = (version(1), version(2), version(4, BREAKING))
    choice = POLICY.choose(left, {}, previous=before, facts=NOTHING_LOADED)
    assert choice.number == 2
    assert choice.held is not None
    assert choice.held.number == 4


def test_nothing_stands_in_for_a_contract_that_nobody_keeps() -> None:
    """The contract outlives its version: a breaking one isn't served by accident. Each look says
    the same about it."""
    before = served(version(1), version(2, BREAKING), default=1)
    choice = POLICY.choose((version(2, BREAKING),), {}, previous=before, facts=NOTHING_LOADED)
    assert (choice.number, choice.contract) == (None, PLAIN)
    assert choice.problem is not None
    assert "modelmux.accept_breaking" in choice.problem
    model = before.model_copy(update={"default_version": None, "problem": choice.problem})
    later = POLICY.choose((version(2, BREAKING),), {}, previous=model, facts=NOTHING_LOADED)
    assert later == choice
    assert "None" not in choice.problem


def test_a_version_registered_again_under_its_number_must_keep_the_contract() -> None:
    """The same number with other artifacts is another version."""
    before = served(version(1))
    again = (version(1, BREAKING, fingerprint="other"),)
    assert POLICY.choose(again, {}, previous=before, facts=NOTHING_LOADED).number is None


@pytest.mark.parametrize(("compatibility", "number"), [("compatible", 2), ("exact", 1)])
def test_the_exact_setting_holds_what_is_only_compatible(compatibility: str, number: int) -> None:
    """`exact` asks for equal signatures, `compatible` for the rules."""
    policy = DefaultPolicy(compatibility=compatibility)  # type: ignore[arg-type]
    versions = (version(1), version(2, LOOSER))
    choice = policy.choose(versions, {}, previous=served(versions[0]), facts=NOTHING_LOADED)
    assert choice.number == number


def test_a_stage_names_the_default_where_it_counts_and_no_alias_does() -> None:
    """With a champion stage the newest version in it is the default, unless the alias names one."""
    policy = DefaultPolicy(champion_stage="production")
    versions = (
        version(1, stage="Production"),
        version(2, stage="Production"),
        version(3, stage="Staging"),
    )
    chosen = policy.choose(versions, {}, previous=None, facts=NOTHING_LOADED)
    named = policy.choose(versions, {"champion": 3}, previous=None, facts=NOTHING_LOADED)
    unknown = POLICY.choose(versions, {}, previous=None, facts=NOTHING_LOADED)
    assert (chosen.number, named.number, unknown.number) == (2, 3, 3)
    none_there = policy.choose((version(4),), {}, previous=None, facts=NOTHING_LOADED)
    assert none_there.number == 4


def _after(
    *versions: ModelVersion,
    before: ServedModel | None,
    aliases: dict[str, int] | None = None,
    policy: DefaultPolicy = POLICY,
) -> ServedModel:
    """The model after a look that finds these versions and aliases."""
    choice = policy.choose(versions, aliases or {}, previous=before, facts=NOTHING_LOADED)
    return ServedModel(
        name="m",
        versions=versions,
        aliases=aliases or {},
        default_version=choice.number,
        contract=choice.contract,
        earlier_contracts=choice.earlier_contracts,
        default_cause=choice.cause,
        former_defaults=choice.former,
        passed_over=choice.passed_over,
        held=choice.held,
        problem=choice.problem,
    )


def _let_in() -> tuple[tuple[ModelVersion, ...], ServedModel]:
    """Version 3 broke the contract of version 2 and was let in; the alias names it."""
    versions = (version(1), version(2), version(3, BREAKING, accept_breaking=True))
    model = _after(*versions[:1], before=None, aliases={"champion": 1})
    model = _after(*versions[:2], before=model, aliases={"champion": 2})
    return versions, _after(*versions, before=model, aliases={"champion": 3})


def test_going_back_after_a_breaking_version_was_let_in_is_one_act() -> None:
    """The alias moved back to what was the default before takes over at once, with the contract
    that it had; and forward again, by the contract that that one had."""
    versions, model = _let_in()
    assert (model.default_version, model.contract, model.default_cause) == (3, BREAKING, "named")
    back = _after(*versions, before=model, aliases={"champion": 2})
    assert (back.default_version, back.contract, back.held) == (2, PLAIN, None)
    assert back.default_cause == "rolled_back"
    assert [former.number for former in back.former_defaults] == [1, 3]
    assert back.default_before is not None
    assert back.default_before.number == 1  # nobody is sent back to what was rolled back
    again = _after(*versions, before=back, aliases={"champion": 3})
    assert (again.default_version, again.contract, again.held) == (3, BREAKING, None)
    assert again.default_cause == "named"  # forward isn't told as a rollback
    assert again.default_before is not None
    assert again.default_before.number == 2


def test_what_was_never_the_default_is_held_still() -> None:
    """Going back is for versions that answered before; another one that breaks is held."""
    versions, model = _let_in()
    stranger = version(4, PLAIN)
    held = _after(*versions, stranger, before=model, aliases={"champion": 4})
    assert held.default_version == 3
    assert held.held is not None
    assert held.held.number == 4


@pytest.mark.parametrize("aliases", [{}, {"champion": 3}])
def test_deleting_the_default_falls_back_to_the_one_before(aliases: dict[str, int]) -> None:
    """With its contract, alias or not; what was there meanwhile isn't the default for being the
    newest, but what is registered later is."""
    versions, model = _let_in()
    later = version(4, signature(("x", "double"), ("w", "string", False)))
    model = _after(*versions, later, before=model, aliases={"champion": 3})
    fell = _after(*versions[:2], later, before=model, aliases=aliases)
    assert (fell.default_version, fell.contract, fell.default_cause) == (2, PLAIN, "fell_back")
    stays = _after(*versions[:2], later, before=fell)
    assert (stays.default_version, stays.default_cause) == (2, "fell_back")
    newer = _after(*versions[:2], later, version(5), before=stays)
    assert (newer.default_version, newer.default_cause) == (5, "newest")


def test_without_an_alias_nothing_goes_live_where_the_setting_says_so() -> None:
    """A new model has no default, and a default stays what it is when the alias is taken away; the
    alias alone moves it."""
    policy = DefaultPolicy(rule="champion")
    model = _after(version(1), before=None, policy=policy)
    assert model.default_version is None
    assert "champion" in (model.problem or "")
    assert catalog(model).resolve("m", "1").version.number == 1
    named = _after(version(1), before=model, aliases={"champion": 1}, policy=policy)
    assert named.default_version == 1
    stays = _after(version(1), version(2), before=named, policy=policy)
    assert (stays.default_version, stays.held) == (1, None)


def _unsigned(number: int, text: str | None = UNTYPED_SIGNATURE, **fields: Any) -> ModelVersion:
    fields.setdefault("fingerprint", f"f{number}{UNSIGNED}")
    problem = None if text is not None else "The model has no signature."
    return version(number, text, unsigned="The model has no signature.", problem=problem, **fields)


def test_untyped_versions_hold_nothing_and_are_not_held() -> None:
    """There is nothing to compare with: in both directions, and whatever was promised."""
    for before, after in ((version(1), _unsigned(2)), (_unsigned(1), version(2, BREAKING))):
        choice = POLICY.choose((before, after), {}, previous=served(before), facts=NOTHING_LOADED)
        assert (choice.number, choice.contract, choice.held) == (2, after.signature, None)
        assert choice.earlier_contracts == ()


@pytest.mark.parametrize("before", [UNTYPED_SIGNATURE, PLAIN])
def test_a_signature_that_was_written_into_the_default_is_its_contract(before: str) -> None:
    """At once, be it what callers could rely on before or not: the artifacts have no other."""
    old = _unsigned(1, before)
    new = version(1, BREAKING, fingerprint=old.registered_as)
    choice = POLICY.choose((new,), {}, previous=served(old), facts=NOTHING_LOADED)
    assert (choice.number, choice.contract, choice.problem) == (1, BREAKING, None)
    looser = version(1, LOOSER, fingerprint=old.registered_as)
    choice = POLICY.choose((looser,), {}, previous=served(old), facts=NOTHING_LOADED)
    assert (choice.number, choice.contract, choice.problem) == (1, LOOSER, None)


def test_a_tag_on_the_default_changes_how_it_is_served() -> None:
    """Untyped from the next look on; without the tag it can't be served, and says why."""
    inferred = _unsigned(1, PLAIN)
    choice = POLICY.choose((_unsigned(1),), {}, previous=served(inferred), facts=NOTHING_LOADED)
    assert (choice.number, choice.contract) == (1, UNTYPED_SIGNATURE)
    untagged = _unsigned(1, None)
    gone = POLICY.choose((untagged,), {}, previous=served(_unsigned(1)), facts=NOTHING_LOADED)
    assert (gone.number, gone.problem) == (None, "Version 1: The model has no signature.")
