"""Where figures come from: the machine and its versions, and how a model was trained."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tiedexport.report.tables import Table, seconds

if TYPE_CHECKING:
    from tiedexport.results import Environment
    from tiedexport.spec import TrainingRecord


def environment(found: Environment) -> Table:
    """Machine and versions."""
    rows = [
        ("processor", found.cpu),
        ("usable cores", str(found.cores)),
        ("platform", found.platform),
        ("Python", found.python),
        *found.packages.items(),
    ]
    return Table(("environment", ""), tuple(rows), first_number=2)


def training(record: TrainingRecord) -> Table:
    """How the model came to be, beside what the same size buys otherwise."""
    data = record.data
    rows = [
        (
            "data",
            f"{data.source}: {data.train:,} train, {data.validation:,} validation, "
            f"{data.test:,} test",
        ),
        ("epochs", f"{record.epochs} in {seconds(record.seconds)}, best {record.best_epoch}"),
        ("test RMSE", f"{record.test_rmse:.5f}"),
        ("test RMSE of PCA with the same code size", f"{record.pca_test_rmse:.5f}"),
        ("parameters", f"{record.parameters:,}"),
        ("parameters of the untied twin", f"{record.untied_parameters:,}"),
    ]
    return Table(("training", ""), tuple(rows), first_number=2)
