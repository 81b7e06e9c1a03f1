//! What a password is exchanged for, and what names a user in later requests.
//!
//! ```text
//! simple            16 letters and the entry of the log that made it count; members know it, and forget it unused
//! jwt,sign-method=… signed: whoever has the key can check it, and no member has to know it
//! ```
//!
//! Source: etcd's `--auth-token` (`server/auth/store.go`, `jwt.go`, `options.go`).

mod duration;
mod jwt;

pub use jwt::Jwt;

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

use ring::rand::{SecureRandom, SystemRandom};

/// What tokens are like.
#[derive(Clone, Debug)]
pub enum AuthToken {
    /// There are none: users show certificates.
    None,
    /// Random, and in the memory of the members.
    Simple,
    /// Signed.
    Jwt(Arc<Jwt>),
}

/// Why tokens cannot be made as a setting says.
#[derive(Debug, thiserror::Error)]
pub enum AuthTokenError {
    /// The setting has another form.
    #[error(
        "{given:?} is no kind of token: give \"simple\", or \"jwt,sign-method=RS256,pub-key=FILE,priv-key=FILE,ttl=5m\""
    )]
    Form {
        /// What was given.
        given: String,
    },
    /// A part of it makes no sense.
    #[error("{value:?} is no {name} of a token")]
    Value {
        /// Which part.
        name: &'static str,
        /// What was given.
        value: String,
    },
    /// There is no key to check tokens with.
    #[error("tokens need a key: give priv-key, or pub-key to check those that others sign")]
    NoKey,
    /// A file cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A file holds no key of the kind.
    #[error("{path} holds no key that {method} can use: {reason}")]
    Key {
        /// The file.
        path: PathBuf,
        /// How tokens are signed.
        method: String,
        /// What is wrong with it.
        reason: String,
    },
}

impl FromStr for AuthToken {
    type Err = AuthTokenError;

    /// Reads etcd's form, and the files that it names. Blocks.
    fn from_str(given: &str) -> Result<Self, AuthTokenError> {
        let form = || AuthTokenError::Form { given: given.to_owned() };
        let mut parts = given.split(',');
        let kind = parts.next().unwrap_or_default();
        let mut options = BTreeMap::new();
        for part in parts {
            let (name, value) =
                part.split_once('=').filter(|(_, value)| !value.contains('=')).ok_or_else(form)?;
            if options.insert(name, value).is_some() {
                return Err(form());
            }
        }
        match kind {
            "" => Ok(Self::None),
            "simple" => Ok(Self::Simple),
            "jwt" => Ok(Self::Jwt(Arc::new(Jwt::from_options(&options)?))),
            _ => Err(form()),
        }
    }
}

/// Letters that nobody can guess: the secret part of a simple token.
pub(crate) fn draw_secret() -> io::Result<String> {
    const LETTERS: &[u8; 52] = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
    /// Bytes from here on would make some letters likelier than others.
    const FAIR: u8 = 208;
    let random = SystemRandom::new();
    let mut secret = String::with_capacity(16);
    while secret.len() < 16 {
        let mut bytes = [0; 32];
        random.fill(&mut bytes).map_err(|_| io::Error::other("the kernel gives no random bytes"))?;
        let fair = bytes.iter().filter(|byte| **byte < FAIR);
        let letters = fair.map(|byte| char::from(LETTERS[usize::from(byte % 52)]));
        secret.extend(letters.take(16 - secret.len()));
    }
    Ok(secret)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_has_sixteen_letters_and_is_another_each_time() {
        let (one, other) = (draw_secret().unwrap(), draw_secret().unwrap());
        assert_eq!(one.len(), 16);
        assert!(one.bytes().all(|byte| byte.is_ascii_alphabetic()), "{one}");
        assert_ne!(one, other);
    }

    #[test]
    fn a_setting_that_is_no_kind_of_token_is_refused() {
        assert!(matches!("simple".parse(), Ok(AuthToken::Simple)));
        assert!(matches!("".parse(), Ok(AuthToken::None)));
        for given in ["other", "jwt,a", "jwt,a=b=c", "jwt,ttl=1s,ttl=2s"] {
            assert!(matches!(given.parse::<AuthToken>(), Err(AuthTokenError::Form { .. })), "{given}");
        }
        let no_method = "jwt,priv-key=/none".parse::<AuthToken>();
        assert!(matches!(no_method, Err(AuthTokenError::Value { name: "sign-method", .. })));
        let no_key = "jwt,sign-method=RS256".parse::<AuthToken>();
        assert!(matches!(no_key, Err(AuthTokenError::NoKey)));
    }
}
