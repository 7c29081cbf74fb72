"""Domains in the one form that names them in the DNS."""

import idna


def ascii_domain(domain: str) -> str:
    """In lower case and, where it has other letters, in A-labels (IDNA 2008 after the mapping of UTS 46).

    `straße.example` and `strasse.example` are two domains and stay two. Raises ValueError for what is none.
    """
    if domain.isascii():
        return domain.lower()
    # idna.IDNAError is a ValueError.
    return idna.encode(domain, uts46=True, transitional=False).decode("ascii")
