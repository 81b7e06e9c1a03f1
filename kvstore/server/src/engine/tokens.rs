//! Simple tokens: drawn by the member that was asked, valid on every member that has applied the command that says so.
//!
//! Invariants:
//! - They are in memory alone. One that is not used for its time to live has ended.
//! - There are no more than [`CAPACITY`]: the one that would end first makes room.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use landbridge_kvstore_store::auth::AuthOutcome;

/// A token costs about 200 bytes, and a password is looked at for each: a user that asks for more than this in five
/// minutes loses its first ones.
const CAPACITY: usize = 1 << 15;

/// The tokens of a member.
#[derive(Debug)]
pub(super) struct Tokens {
    ttl: Duration,
    by_text: HashMap<String, Token>,
}

#[derive(Debug)]
struct Token {
    user: Arc<str>,
    ends: Instant,
}

impl Tokens {
    pub(super) fn new(ttl: Duration) -> Self {
        Self { ttl, by_text: HashMap::new() }
    }

    /// Takes note of a command about users that was carried out.
    pub(super) fn follow(&mut self, now: Instant, outcome: &AuthOutcome) {
        match outcome {
            AuthOutcome::Done => {}
            AuthOutcome::Disabled => self.clear(),
            AuthOutcome::TokensEnd { user } => self.by_text.retain(|_, token| *token.user != **user),
            AuthOutcome::Authenticated { user, token: text } => {
                self.make_room(now);
                let token = Token { user: user.as_str().into(), ends: now + self.ttl };
                self.by_text.insert(text.clone(), token);
            }
        }
    }

    /// Ends all.
    pub(super) fn clear(&mut self) {
        self.by_text.clear();
    }

    /// Whom a token names. It lives for its whole time again then.
    pub(super) fn user(&mut self, now: Instant, text: &str) -> Option<Arc<str>> {
        let token = self.by_text.get_mut(text)?;
        if token.ends <= now {
            self.by_text.remove(text);
            return None;
        }
        token.ends = now + self.ttl;
        Some(Arc::clone(&token.user))
    }

    fn make_room(&mut self, now: Instant) {
        if self.by_text.len() < CAPACITY {
            return;
        }
        self.by_text.retain(|_, token| token.ends > now);
        // A quarter at once, so that the next ones find room without looking at all again.
        if self.by_text.len() >= CAPACITY {
            let mut ends: Vec<Instant> = self.by_text.values().map(|token| token.ends).collect();
            let (_, kept_from, _) = ends.select_nth_unstable(CAPACITY / 4);
            let kept_from = *kept_from;
            self.by_text.retain(|_, token| token.ends > kept_from);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TTL: Duration = Duration::from_mins(5);

    fn assign(tokens: &mut Tokens, now: Instant, user: &str, secret: &str) {
        let token = format!("{secret}.7");
        tokens.follow(now, &AuthOutcome::Authenticated { user: user.into(), token });
    }

    #[test]
    fn a_token_lives_as_long_as_it_is_used() {
        let (mut tokens, start) = (Tokens::new(TTL), Instant::now());
        assign(&mut tokens, start, "a", "x");
        assert_eq!(tokens.user(start + TTL / 2, "x.7").as_deref(), Some("a"));
        assert_eq!(tokens.user(start + TTL, "x.7").as_deref(), Some("a"));
        assert_eq!(tokens.user(start, "x.8"), None);
        assert_eq!(tokens.user(start + TTL * 2, "x.7"), None);
        assert_eq!(tokens.user(start, "x.7"), None, "it has ended for good");
    }

    #[test]
    fn a_changed_password_ends_the_tokens_of_its_user_and_no_others() {
        let (mut tokens, now) = (Tokens::new(TTL), Instant::now());
        assign(&mut tokens, now, "a", "x");
        assign(&mut tokens, now, "b", "y");
        tokens.follow(now, &AuthOutcome::TokensEnd { user: "a".into() });
        assert_eq!(tokens.user(now, "x.7"), None);
        assert_eq!(tokens.user(now, "y.7").as_deref(), Some("b"));
        tokens.follow(now, &AuthOutcome::Disabled);
        assert_eq!(tokens.user(now, "y.7"), None);
    }

    #[test]
    fn tokens_are_bounded_and_the_newest_stay() {
        let (mut tokens, start) = (Tokens::new(TTL), Instant::now());
        for (step, secret) in (0u32..).zip(0..CAPACITY * 2) {
            assign(&mut tokens, start + Duration::from_micros(1) * step, "a", &secret.to_string());
            assert!(tokens.by_text.len() <= CAPACITY);
        }
        let newest = format!("{}.7", CAPACITY * 2 - 1);
        assert!(tokens.user(start, &newest).is_some());
    }
}
