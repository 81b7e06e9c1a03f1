//! Signed tokens.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation, decode, encode};
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair,
    RsaKeyPair,
};
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;

use super::{AuthTokenError, duration};

/// How long a token is good for, unless something else is set.
const TTL: Duration = Duration::from_mins(5);
/// Tokens that were checked and need not be checked again. A check costs more than the rest of a request.
const KEPT: usize = 4096;

/// Makes and checks signed tokens.
pub struct Jwt {
    algorithm: Algorithm,
    /// `None` can check tokens, and makes none.
    signing: Option<EncodingKey>,
    checking: DecodingKey,
    ttl: Duration,
    checked: Mutex<HashMap<String, Claims>>,
}

impl std::fmt::Debug for Jwt {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Jwt").field("algorithm", &self.algorithm).finish_non_exhaustive()
    }
}

/// What a token says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Claims {
    pub(crate) user: Arc<str>,
    /// The revision of users and roles when it was made.
    pub(crate) revision: u64,
    /// Seconds since 1970; none lasts.
    ends: Option<u64>,
}

/// A key and the file that it is from.
struct KeyFile<'a> {
    path: &'a Path,
    bytes: Vec<u8>,
    method: &'a str,
}

impl Jwt {
    pub(super) fn from_options(options: &BTreeMap<&str, &str>) -> Result<Self, AuthTokenError> {
        let option = |name| options.get(name).copied().filter(|value: &&str| !value.is_empty());
        let method = option("sign-method").unwrap_or_default();
        let algorithm = method
            .parse()
            .map_err(|_| AuthTokenError::Value { name: "sign-method", value: method.to_owned() })?;
        let ttl = match option("ttl") {
            None => TTL,
            Some(value) => duration::parse(value)
                .ok_or_else(|| AuthTokenError::Value { name: "ttl", value: value.to_owned() })?,
        };
        let file = |name| option(name).map(|path| KeyFile::read(Path::new(path), method)).transpose();
        let (private, public) = (file("priv-key")?, file("pub-key")?);
        let (signing, own) = match &private {
            Some(file) => {
                file.private(algorithm).map(|(signing, checking)| (Some(signing), Some(checking)))?
            }
            None => (None, None),
        };
        let checking = match (&public, own) {
            (Some(file), _) if !is_symmetric(algorithm) => file.public(algorithm)?,
            (_, Some(own)) => own,
            (_, None) => return Err(AuthTokenError::NoKey),
        };
        let jwt = Self { algorithm, signing, checking, ttl, checked: Mutex::default() };
        if let (Some(public), Some(_)) = (&public, &private) {
            let made = jwt.sign("", 0);
            if made.is_some_and(|token| jwt.check(&token, 0).is_none()) {
                return Err(public.refused(&"it does not belong to priv-key"));
            }
        }
        Ok(jwt)
    }

    /// Makes a token; nothing without the key for it.
    pub(crate) fn sign(&self, user: &str, revision: u64) -> Option<String> {
        let ends = (now() + self.ttl).as_secs();
        let claims = serde_json::json!({ "username": user, "revision": revision, "exp": ends });
        encode(&Header::new(self.algorithm), &claims, self.signing.as_ref()?).ok()
    }

    /// What a token says; nothing if it is not genuine or has ended.
    pub(crate) fn verify(&self, token: &str) -> Option<Claims> {
        let now = now().as_secs();
        let mut checked = self.checked.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(claims) = checked.get(token) {
            if claims.ends.is_none_or(|ends| now <= ends) {
                return Some(claims.clone());
            }
            checked.remove(token);
            return None;
        }
        drop(checked);
        let claims = self.check(token, now)?;
        let mut checked = self.checked.lock().unwrap_or_else(PoisonError::into_inner);
        if checked.len() >= KEPT {
            checked.clear();
        }
        checked.insert(token.to_owned(), claims.clone());
        Some(claims)
    }

    fn check(&self, token: &str, now: u64) -> Option<Claims> {
        let mut validation = Validation::new(self.algorithm);
        // A token without an end lasts, in Go's library.
        validation.required_spec_claims.clear();
        validation.validate_exp = false;
        validation.validate_nbf = true;
        validation.validate_aud = false;
        validation.leeway = 0;
        let claims = decode::<serde_json::Value>(token, &self.checking, &validation).ok()?.claims;
        let ends = match claims.get("exp") {
            None => None,
            Some(ends) => Some(whole(ends)?),
        };
        if ends.is_some_and(|ends| now > ends) {
            return None;
        }
        Some(Claims {
            user: claims.get("username")?.as_str()?.into(),
            revision: whole(claims.get("revision")?)?,
            ends,
        })
    }
}

/// A number without what is behind its point.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "Go's conversion, clamped")]
fn whole(number: &serde_json::Value) -> Option<u64> {
    number.as_u64().or_else(|| number.as_f64().map(|number| number as u64))
}

fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

fn is_symmetric(algorithm: Algorithm) -> bool {
    matches!(algorithm, Algorithm::HS256 | Algorithm::HS384 | Algorithm::HS512)
}

impl<'a> KeyFile<'a> {
    fn read(path: &'a Path, method: &'a str) -> Result<Self, AuthTokenError> {
        let bytes =
            fs::read(path).map_err(|source| AuthTokenError::Read { path: path.to_owned(), source })?;
        Ok(Self { path, bytes, method })
    }

    fn refused(&self, reason: &dyn std::fmt::Display) -> AuthTokenError {
        let (path, method) = (self.path.to_owned(), self.method.to_owned());
        AuthTokenError::Key { path, method, reason: reason.to_string() }
    }

    /// A private key, for signing, and what checks its signatures.
    fn private(&self, algorithm: Algorithm) -> Result<(EncodingKey, DecodingKey), AuthTokenError> {
        if is_symmetric(algorithm) {
            return Ok((EncodingKey::from_secret(&self.bytes), DecodingKey::from_secret(&self.bytes)));
        }
        let der = PrivateKeyDer::from_pem_slice(&self.bytes).map_err(|error| self.refused(&error))?;
        let refused = |error: ring::error::KeyRejected| self.refused(&error);
        let pkcs8 = || {
            if let PrivateKeyDer::Pkcs8(der) = &der {
                return Ok(der.secret_pkcs8_der());
            }
            let reason = "it has to be in PKCS #8 form: \"openssl pkcs8 -topk8 -nodes\" makes it so";
            Err(self.refused(&reason))
        };
        Ok(match algorithm {
            Algorithm::ES256 | Algorithm::ES384 => {
                let curve = match algorithm {
                    Algorithm::ES256 => &ECDSA_P256_SHA256_FIXED_SIGNING,
                    _ => &ECDSA_P384_SHA384_FIXED_SIGNING,
                };
                let pair =
                    EcdsaKeyPair::from_pkcs8(curve, pkcs8()?, &SystemRandom::new()).map_err(refused)?;
                (EncodingKey::from_ec_der(pkcs8()?), DecodingKey::from_ec_der(pair.public_key().as_ref()))
            }
            Algorithm::EdDSA => {
                let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(pkcs8()?).map_err(refused)?;
                (EncodingKey::from_ed_der(pkcs8()?), DecodingKey::from_ed_der(pair.public_key().as_ref()))
            }
            _ => {
                let pair = match &der {
                    PrivateKeyDer::Pkcs1(der) => RsaKeyPair::from_der(der.secret_pkcs1_der()),
                    _ => RsaKeyPair::from_pkcs8(pkcs8()?),
                };
                let pair = pair.map_err(refused)?;
                let public: &[u8] = pair.public_key().as_ref();
                let signing = EncodingKey::from_rsa_pem(&self.bytes).map_err(|error| self.refused(&error))?;
                (signing, DecodingKey::from_rsa_der(public))
            }
        })
    }

    fn public(&self, algorithm: Algorithm) -> Result<DecodingKey, AuthTokenError> {
        let key = match algorithm {
            Algorithm::ES256 | Algorithm::ES384 => DecodingKey::from_ec_pem(&self.bytes),
            Algorithm::EdDSA => DecodingKey::from_ed_pem(&self.bytes),
            _ => DecodingKey::from_rsa_pem(&self.bytes),
        };
        key.map_err(|error| self.refused(&error))
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use proptest::prelude::*;

    use super::*;

    fn file(bytes: &[u8]) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(bytes).unwrap();
        file
    }

    fn jwt(method: &str, key: &tempfile::NamedTempFile, ttl: &str) -> Result<Jwt, AuthTokenError> {
        let path = key.path().to_str().unwrap();
        Jwt::from_options(&[("sign-method", method), ("priv-key", path), ("ttl", ttl)].into())
    }

    #[test]
    fn a_token_says_what_was_signed_and_nothing_else_is_believed() {
        let ec = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        let ed = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
        let keys = [
            ("HS256", file(b"a secret")),
            ("ES256", file(ec.serialize_pem().as_bytes())),
            ("EdDSA", file(ed.serialize_pem().as_bytes())),
        ];
        let other = jwt("HS256", &file(b"another secret"), "1m").unwrap();
        for (method, key) in keys {
            let jwt = jwt(method, &key, "1m").unwrap();
            let token = jwt.sign("alice", 7).unwrap();
            for _ in 0..2 {
                let claims = jwt.verify(&token).unwrap();
                assert_eq!((&*claims.user, claims.revision), ("alice", 7), "{method}");
            }
            assert_eq!(jwt.verify(&other.sign("alice", 7).unwrap()), None, "{method}");
            assert_eq!(jwt.verify(&token[..token.len() - 2]), None, "{method}");
            assert_eq!(jwt.verify("abcdefghijklmnop.7"), None);
        }
    }

    proptest! {
        /// Whatever is changed in a token, nothing is believed that was not signed; nor does anything that is no token do harm.
        #[test]
        fn a_token_that_was_changed_says_nothing(
            at: prop::sample::Index,
            byte: u8,
            cut: prop::sample::Index,
            anything in ".{0,60}",
        ) {
            let jwt = jwt("HS256", &file(b"a secret"), "1m").unwrap();
            let token = jwt.sign("alice", 7).unwrap();
            let mut bytes = token.clone().into_bytes();
            let at = at.index(bytes.len());
            bytes[at] = byte;
            let changed = String::from_utf8_lossy(&bytes).into_owned();
            // Some bits of the last letter of a part are of no byte.
            if let Some(claims) = jwt.check(&changed, 0) {
                prop_assert_eq!((&*claims.user, claims.revision), ("alice", 7));
            }
            prop_assert_eq!(jwt.check(&token[..cut.index(token.len())], 0), None);
            let parts: Vec<&str> = token.split('.').collect();
            for garbage in [
                anything.clone(),
                format!("{anything}.{}.{}", parts[1], parts[2]),
                format!("{}.{anything}.{}", parts[0], parts[2]),
                format!("{}.{}.{anything}", parts[0], parts[1]),
            ] {
                prop_assert_eq!(jwt.check(&garbage, 0), None);
            }
        }
    }

    #[test]
    fn a_token_ends_after_its_time() {
        let jwt = jwt("HS256", &file(b"a secret"), "1m").unwrap();
        let token = jwt.sign("alice", 7).unwrap();
        let ends = jwt.check(&token, 0).unwrap().ends.unwrap();
        assert!(jwt.check(&token, ends).is_some());
        assert!(jwt.check(&token, ends + 1).is_none());
    }

    #[test]
    fn who_has_the_public_key_alone_checks_and_does_not_sign() {
        let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        let (private, public) =
            (file(pair.serialize_pem().as_bytes()), file(pair.public_key_pem().as_bytes()));
        let path = public.path().to_str().unwrap();
        let checks = Jwt::from_options(&[("sign-method", "ES256"), ("pub-key", path)].into()).unwrap();
        assert_eq!(checks.sign("alice", 7), None);
        let token = jwt("ES256", &private, "1m").unwrap().sign("alice", 7).unwrap();
        assert_eq!(&*checks.verify(&token).unwrap().user, "alice");

        let other = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        let other = file(other.serialize_pem().as_bytes());
        let unpaired =
            [("sign-method", "ES256"), ("pub-key", path), ("priv-key", other.path().to_str().unwrap())];
        assert!(matches!(Jwt::from_options(&unpaired.into()), Err(AuthTokenError::Key { .. })));
    }
}
