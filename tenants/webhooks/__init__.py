"""Telling a tenant's own systems what happened: events in an outbox, endpoints, deliveries and how they went."""
