"""The webhook by which MLflow tells a gateway that its registry changed.

Owns the list of events that the gateway wants, and registering for them so that it can be repeated.
What a delivery is worth is the gateway's affair (`gateway.security.webhook_signatures`). Must not
import ray."""

from __future__ import annotations

from dataclasses import dataclass

from mlflow import MlflowClient
from mlflow.entities.webhook import Webhook, WebhookEventStr, WebhookStatus
from mlflow.exceptions import MlflowException

EVENTS: tuple[WebhookEventStr, ...] = (
    "registered_model.created",
    "model_version.created",
    "model_version_tag.set",
    "model_version_tag.deleted",
    "model_version_alias.created",
    "model_version_alias.deleted",
)
"""What MLflow 3.17 can tell of, but for prompts: it has no events for tags of registered models and
for what is deleted."""

_NAME = "modelmux"
_DESCRIPTION = "Tells modelmux to look at the registry; made by `modelmux webhook`."


class WebhookRefused(Exception):
    """MLflow doesn't take the webhook, or its deliveries fail; the sentence is for people."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RegisteredWebhook:
    """What MLflow has now: the webhook's id, and whether it was there before."""

    id: str
    was_there: bool


def register_webhook(
    url: str, secret: str, *, tracking_uri: str, registry_uri: str | None = None
) -> RegisteredWebhook:
    """Have MLflow tell `url` of what changes, signed with `secret`, and try one delivery.

    A webhook of that URL which is there is brought up to date, so this can be repeated. Raises
    WebhookRefused; a webhook whose delivery failed stays registered.
    """
    client = MlflowClient(tracking_uri, registry_uri or tracking_uri)
    try:
        present = _webhook_for(client, url)
        if present is None:
            made = client.create_webhook(
                name=_NAME, url=url, events=[*EVENTS], description=_DESCRIPTION, secret=secret
            )
        else:
            made = client.update_webhook(
                present.webhook_id, events=[*EVENTS], secret=secret, status=WebhookStatus.ACTIVE
            )
        tried = client.test_webhook(made.webhook_id, EVENTS[0])
    except MlflowException as error:
        raise WebhookRefused(f"MLflow doesn't take the webhook: {error.message}") from error
    if not tried.success:
        why = tried.error_message or f"it was answered with {tried.response_status}"
        raise WebhookRefused(f"The webhook is registered, but a delivery to {url} fails: {why}")
    return RegisteredWebhook(id=made.webhook_id, was_there=present is not None)


def _webhook_for(client: MlflowClient, url: str) -> Webhook | None:
    token: str | None = None
    while True:
        page = client.list_webhooks(max_results=100, page_token=token)
        for webhook in page:
            if webhook.url == url:
                return webhook
        token = page.token
        if not token:
            return None
