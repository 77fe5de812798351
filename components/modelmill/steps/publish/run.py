"""The work of publish: assemble the bundle of the passed lanes."""

from __future__ import annotations

from collections.abc import Sequence

from modelmill.core import bundle as bundles
from modelmill.core import history, registry
from modelmill.core.contract import Report
from modelmill.core.evidence import TRIALS, LaneEvidence
from modelmill.core.progress import Progress
from modelmill.reports.render import render_run
from modelmill.reports.unrendered import rendered
from modelmill.reports.view import RunStatus, RunView, unavailable_in_words
from modelmill.steps.publish import assemble, card, materials, provenance, sign, summary
from modelmill.steps.publish.contract import Inputs, Outputs, Settings


def run(inputs: Inputs, outputs: Outputs, settings: Settings, progress: Progress) -> Report:
    """Assemble the bundle; no channel moves here (`modelmill.steps.publish.promote`).

    Raises:
        InputError: The model's or the channel's name is no name, or the signing key is not the one that was resolved.
        ModelError: No lane passed, or a model is not the one that its verdict judged.
    """
    registry.check_name(settings.model, "model")
    registry.check_name(settings.channel, "channel")
    key = sign.signing_key_of(settings)
    directory = outputs.bundle
    lanes = assemble.read_lanes(inputs, _targets(settings))
    passed = [lane for lane in lanes if lane.passed]
    refused = [lane for lane in lanes if not lane.passed]
    paths = assemble.place(passed)
    files, placed = assemble.copy_models(directory, passed, paths, progress)
    shown = [lane.evidence if settings.texts else lane.evidence.without_texts() for lane in passed]

    evidence = {}
    for lane, found in zip(passed, shown, strict=True):
        folder = f"{assemble.EVIDENCE}/{lane.target}"
        verdict = f"{folder}/{assemble.VERDICT}"
        evidence[verdict] = assemble.write_document(directory / verdict, found.model_dump(mode="json"))
        choice = f"{folder}/{bundles.CHOICE}"
        evidence[choice] = assemble.write_document(directory / choice, lane.choice)
        if lane.trials:
            trials = f"{folder}/{TRIALS}"
            evidence[trials] = assemble.write_document(directory / trials, lane.trials)
    recipe = directory / assemble.RECIPE
    evidence[assemble.RECIPE] = assemble.write_document(recipe, settings.recipe)
    digest = bundles.digest_of(files)
    told = history.of(path for port in (inputs.models, inputs.choices, inputs.verdicts) for path in port.values())
    report = rendered(lambda: _report(settings, digest, shown, lanes), settings.model, progress)
    for name, text in (
        (assemble.CARD, card.write(settings, digest, passed, paths, refused, provenance.licence_of(told))),
        (assemble.REPORT, report),
    ):
        evidence[name] = assemble.write_text(directory / name, text)
    for name, written in (
        (bundles.EVIDENCE_DOCUMENT, summary.summary(settings, digest, passed, refused, paths, told)),
        (bundles.BILL_OF_MATERIALS, materials.bill_of_materials(settings, digest, passed, paths, files, told)),
    ):
        evidence[name] = assemble.write_document(directory / name, written)
    statement = provenance.statement(settings, digest, files, evidence, told)
    evidence[bundles.PROVENANCE] = assemble.write_document(directory / bundles.PROVENANCE, statement)
    if key is not None:
        signed = sign.envelope_of(statement, key)
        evidence[bundles.SIGNED_PROVENANCE] = assemble.write_text(directory / bundles.SIGNED_PROVENANCE, signed)
    document = bundles.write_bundle(directory, settings.model, placed, files, evidence)
    signer = settings.keyless.who if settings.keyless else key
    if signer is not None:
        sign.write(directory, document, signer)
    for lane in refused:
        progress.fact(f"{lane.target} is left out: {lane.evidence.verdict.value}")
    for lane in passed:
        untried = lane.evidence.untried
        if untried is not None:
            progress.fact(f"{lane.target} was not tried in a server: {untried or 'no smoke test'}")
    return Report(
        facts={
            "bundle": document.digest,
            "lanes": {target: lane.path for target, lane in document.lanes.items()},
            "left_out": [lane.target for lane in refused],
            "unavailable": list(settings.unavailable),
            "size_bytes": sum(entry.size for entry in files.values()),
        }
    )


def _targets(settings: Settings) -> list[str]:
    """The targets in the recipe's order, which outlives every mapping on its way here."""
    targets = settings.recipe.get("targets")
    named = [item.get("name") for item in targets if isinstance(item, dict)] if isinstance(targets, list) else []
    return [name for name in named if isinstance(name, str)]


def _report(settings: Settings, digest: str, shown: Sequence[LaneEvidence], lanes: Sequence[assemble.Lane]) -> str:
    return render_run(
        RunView(
            title=settings.model,
            status=RunStatus.ASSEMBLED,
            lanes=list(shown),
            searches={lane.target: lane.searched for lane in lanes if lane.passed and lane.searched},
            recipe=settings.recipe,
            bundle=digest,
            channel=settings.channel,
            warnings=[
                *(card.left_out(lane) for lane in lanes if not lane.passed),
                *(unavailable_in_words(name, why) for name, why in settings.unavailable.items()),
            ],
        )
    )
