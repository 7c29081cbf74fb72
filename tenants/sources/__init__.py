"""The sources that recommendations are recalled from: each a fragment of SQL of one shape, joined into one statement.

A source is a function `(scene) -> SQL of (item_no, z, because)`: `z` > 0 the better the higher, on a scale of its
own, and `because` the number of the item that is the evidence, or null. It returns None where it cannot play a part
(no model is trained, the build is not ready). What it names need not be recommendable: the statement checks it before
the list is cut (tenants/sources/statement.py).
"""
