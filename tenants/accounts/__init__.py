"""People, the organisations they belong to, and how they prove who they are."""
