"""The deliverer of notices, as the settings want it."""

from __future__ import annotations

from app.api.notice import notice_body
from app.notify.deliverer import Deliverer, DeliverySettings
from app.notify.sender import Sender, Timeouts
from app.notify.signing import key_of, own_secret
from app.service.ground import Ground

WEBHOOK_SECRET_FILE = "webhook-secret"  # noqa: S105 - the file's name


def make_deliverer(ground: Ground) -> Deliverer:
    """Its notices are signed with the configured secrets, or with one that this data folder keeps.

    Raises OSError where that one can be neither read nor written.
    """
    settings = ground.settings
    given = [secret.get_secret_value() for secret in settings.webhook_secrets]
    return Deliverer(
        ground.store.outbox,
        Sender(
            allow_private=settings.allow_private_addresses,
            ca_file=settings.ca_file,
            timeouts=Timeouts(
                settings.webhook_connect_timeout_s, settings.webhook_read_timeout_s, settings.webhook_total_timeout_s
            ),
            connections=settings.webhook_concurrency,
        ),
        owner=ground.node.id,
        keys=[key_of(secret) for secret in given or [own_secret(ground.data_dir / WEBHOOK_SECRET_FILE)]],
        render=notice_body,
        settings=DeliverySettings(
            settings.webhook_concurrency, settings.webhook_concurrency_per_endpoint, settings.webhook_schedule_s
        ),
        observer=ground.metrics.notices,
        tracing=ground.tracing,
    )
