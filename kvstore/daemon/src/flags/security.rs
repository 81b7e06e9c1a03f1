//! Flags of TLS and of users.

use super::Kind::{Choice, Number, Switch, Text};
use super::{Flag, none, refused, works};

const VERSIONS: super::Kind = Choice(&["TLS1.2", "TLS1.3"]);
const NO_OWN_CERTIFICATES: &str = "the store signs no certificates: give it some";
const NO_NAMES: &str = "certificates are told apart by their CA: use one CA for those that may enter";

pub(super) const FLAGS: &[Flag] = &[
    works("cert-file", Text, "", "Certificate shown to clients, PEM"),
    works("key-file", Text, "", "Its key, PEM"),
    works("client-cert-auth", Switch, "false", "Clients show a certificate, whose common name is their user"),
    works("trusted-ca-file", Text, "", "CA of the clients' certificates, PEM"),
    works("client-crl-file", Text, "", "Clients' certificates that were revoked, DER or PEM"),
    works("peer-cert-file", Text, "", "Certificate shown to other members, PEM"),
    works("peer-key-file", Text, "", "Its key, PEM"),
    works(
        "peer-client-cert-auth",
        Switch,
        "false",
        "Other members show a certificate; they do so in any case",
    ),
    works("peer-trusted-ca-file", Text, "", "CA of the other members, PEM"),
    works("cipher-suites", Text, "", "Suites of TLS 1.2, by IANA's names; all good ones by default"),
    works("tls-min-version", VERSIONS, "TLS1.2", "Oldest version of TLS: TLS1.2, TLS1.3"),
    works("tls-max-version", VERSIONS, "", "Newest version of TLS; TLS1.3 where none is given"),
    works(
        "auth-token",
        Text,
        "simple",
        "Tokens of users: simple, or jwt,sign-method=…,pub-key=…,priv-key=…,ttl=…",
    ),
    works("bcrypt-cost", Number, "10", "What a password costs to try, 4 to 31"),
    works("auth-token-ttl", Number, "300", "Seconds that a simple token lives without use"),
    refused("auto-tls", Switch, "false", NO_OWN_CERTIFICATES),
    refused("peer-auto-tls", Switch, "false", NO_OWN_CERTIFICATES),
    none("self-signed-cert-validity", Number, "1", NO_OWN_CERTIFICATES),
    refused("client-cert-allowed-hostname", Text, "", NO_NAMES),
    refused("peer-cert-allowed-cn", Text, "", NO_NAMES),
    refused("peer-cert-allowed-hostname", Text, "", NO_NAMES),
    refused("peer-crl-file", Text, "", "members that may no longer enter are removed: use member remove"),
    refused(
        "experimental-peer-skip-client-san-verification",
        Switch,
        "false",
        "members are checked by their CA",
    ),
    none("client-cert-file", Text, "", "the store opens no connection to its own clients' port"),
    none("client-key-file", Text, "", "the store opens no connection to its own clients' port"),
    none("peer-client-cert-file", Text, "", "members show one certificate in both directions"),
    none("peer-client-key-file", Text, "", "members show one certificate in both directions"),
];
