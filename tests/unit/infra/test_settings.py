"""Settings that only make sense together: an OpenID Connect provider's."""

from pathlib import Path

import pytest

from infra.settings import BadSettings, Settings

GOOD = {
    "KINDRED_OIDC_ISSUER": "https://id.corp.example/realms/x",
    "KINDRED_OIDC_CLIENT_ID": "kindred",
    "KINDRED_OIDC_DOMAINS": " corp.example, @Sub.Corp.example, Straße.example ",
}


def test_a_provider_is_its_issuer_client_and_domains() -> None:
    """A secret is for a confidential client; all else has a default."""
    settings = Settings.from_env(GOOD)
    assert settings.oidc_domains == {"corp.example", "sub.corp.example", "xn--strae-oqa.example"}
    assert (settings.oidc_role, settings.oidc_client_secret, settings.oidc_organisation) == ("developer", None, None)


def test_the_secret_may_lie_in_a_file(tmp_path: Path) -> None:
    """As orchestrators mount them, with a line break at its end."""
    file = tmp_path / "secret"
    file.write_text("of the file\n")
    assert Settings.from_env({**GOOD, "KINDRED_OIDC_CLIENT_SECRET_FILE": str(file)}).oidc_client_secret == "of the file"
    assert Settings.from_env({**GOOD, "KINDRED_OIDC_CLIENT_SECRET": "plain"}).oidc_client_secret == "plain"


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"KINDRED_OIDC_DOMAINS": ""}, "KINDRED_OIDC_DOMAINS"),
        ({"KINDRED_OIDC_CLIENT_ID": ""}, "KINDRED_OIDC_CLIENT_ID"),
        ({"KINDRED_OIDC_ISSUER": ""}, "KINDRED_OIDC_ISSUER"),
        ({"KINDRED_OIDC_ISSUER": "http://id.corp.example"}, "KINDRED_OIDC_ISSUER"),
        ({"KINDRED_OIDC_ISSUER": "https://id.corp.example?x=1"}, "KINDRED_OIDC_ISSUER"),
        ({"KINDRED_OIDC_ISSUER": "https://user@id.corp.example"}, "KINDRED_OIDC_ISSUER"),
        ({"KINDRED_OIDC_ISSUER": "id.corp.example"}, "KINDRED_OIDC_ISSUER"),
        ({"KINDRED_OIDC_DOMAINS": "*"}, "KINDRED_OIDC_DOMAINS"),
        ({"KINDRED_OIDC_DOMAINS": "corp.example,example"}, "KINDRED_OIDC_DOMAINS"),
        ({"KINDRED_OIDC_DOMAINS": "corp..example"}, "KINDRED_OIDC_DOMAINS"),
        ({"KINDRED_OIDC_DOMAINS": ","}, "KINDRED_OIDC_DOMAINS"),
        ({"KINDRED_OIDC_DOMAINS": "bü\u200dcher.example"}, "KINDRED_OIDC_DOMAINS"),
        ({"KINDRED_OIDC_ROLE": "owner"}, "KINDRED_OIDC_ROLE"),
        ({"KINDRED_OIDC_ORGANISATION": "corp"}, "KINDRED_OIDC_ORGANISATION"),
        ({"KINDRED_OIDC_CLIENT_SECRET_FILE": "/nowhere/secret"}, "KINDRED_OIDC_CLIENT_SECRET"),
        (
            {"KINDRED_OIDC_CLIENT_SECRET": "x", "KINDRED_OIDC_CLIENT_SECRET_FILE": __file__},
            "KINDRED_OIDC_CLIENT_SECRET",
        ),
    ],
    ids=str,
)
def test_what_does_not_go_together_is_named_at_start(change: dict[str, str], named: str) -> None:
    """Before anybody can sign in who should not."""
    with pytest.raises(BadSettings) as caught:
        Settings.from_env({**GOOD, **change})
    assert named in {fault.pointer for fault in caught.value.errors}
