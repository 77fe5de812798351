"""Pin what floats before the step key is made: a branch to its commit, files to the digest of their bytes."""

from __future__ import annotations

from modelmill.core.progress import Progress
from modelmill.steps.fetch.contract import Settings
from modelmill.steps.fetch.selection import choose_data, choose_model
from modelmill.steps.fetch.sources.base import Purpose
from modelmill.steps.fetch.sources.registry import open_source


def resolve(settings: Settings, progress: Progress) -> Settings:
    """The settings with both pins set; what is pinned already stays.

    Nothing is downloaded. ``file:`` reads the files whole, ``package:`` its RECORD, ``s3://`` one listing, ``hf://``
    one answer, or none where the recipe names a commit.

    Raises:
        InputError: A source is not there or not as the recipe says.
        SourceError: A source is away.
    """
    choose = {Purpose.MODEL: choose_model(settings.model), Purpose.DATA: choose_data(settings.data)}
    pins = {}
    for purpose, section in ((Purpose.MODEL, settings.model), (Purpose.DATA, settings.data)):
        if section.pin is None:
            pins[purpose] = open_source(section.source, purpose, settings.mounts).pin(choose[purpose])
            progress.fact(f"{section.source} is {pins[purpose]}")
        else:
            pins[purpose] = section.pin
    return settings.model_copy(
        update={
            "model": settings.model.model_copy(update={"pin": pins[Purpose.MODEL]}),
            "data": settings.data.model_copy(update={"pin": pins[Purpose.DATA]}),
        }
    )
