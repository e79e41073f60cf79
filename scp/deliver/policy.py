"""What a site decided that a destination need not have."""

from collections.abc import Collection
from dataclasses import dataclass, field, replace

from scp.deliver.ports import Receipt, Verdict
from scp.model import DeliveryItem


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """For one destination."""

    skips_refused: bool = False
    """What the peer will not take is skipped, not held."""
    skip_sop_classes: Collection[str] = field(default_factory=frozenset)
    """UIDs of what is not even offered to it."""
    groups_by_sender: bool = False
    """Instances of one sender go together, because each sender has an association of its own."""

    def skip(self, item: DeliveryItem) -> Receipt | None:
        """The receipt of an instance that is not to be offered; None where it is."""
        if item.identity.sop_class_uid not in self.skip_sop_classes:
            return None
        detail = f"sop_class_skipped: {item.identity.sop_class_uid}"
        return Receipt(instance=item.instance, verdict=Verdict.SKIPPED, status="", detail=detail)

    def decide(self, receipt: Receipt) -> Receipt:
        """The receipt, with a refusal turned into what the site wants then."""
        if receipt.verdict is not Verdict.REFUSED:
            return receipt
        return replace(receipt, verdict=Verdict.SKIPPED if self.skips_refused else Verdict.HELD)
