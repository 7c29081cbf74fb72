"""Items found for a list: by likeness, by age, by words. One statement each, one round trip.

Order is total (score, then item number), so a list that is cut and filtered
afterwards is a prefix of the exact one: `Found.complete` says whether it was
cut before enough survived. Of a tenant with its own shard
(tenants/vectors/shards.py) the likest are found by index and then scored exactly.
"""
