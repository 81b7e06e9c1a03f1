//! Passwords: what is kept of them, and whether one is right.
//!
//! Both are slow on purpose. They are done beside the requests of others, and only so many at a time, so that whoever asks
//! for many waits for itself.

use std::thread::available_parallelism;

use bytes::Bytes;
use tokio::sync::Semaphore;
use tonic::Status;

/// The longest password in bytes: bcrypt does not look at what is behind that, and Go's refuses it.
const LONGEST: usize = 72;

/// Where passwords are worked on.
#[derive(Debug)]
pub(in crate::grpc) struct Passwords {
    places: Semaphore,
}

impl Default for Passwords {
    /// With half of the processors.
    fn default() -> Self {
        let processors = available_parallelism().map_or(1, std::num::NonZero::get);
        Self { places: Semaphore::new((processors / 2).max(1)) }
    }
}

impl Passwords {
    /// What is kept of a password.
    ///
    /// # Errors
    /// If it is too long.
    pub(super) async fn hash(&self, password: String, cost: u32) -> Result<Bytes, Status> {
        if password.len() > LONGEST {
            return Err(Status::unknown("bcrypt: password length exceeds 72 bytes"));
        }
        let hashed = self.work(move || bcrypt::hash(password, cost)).await?;
        hashed.map(Bytes::from).map_err(|error| Status::unknown(error.to_string()))
    }

    /// Whether a password is the one of which `hash` was kept. Nothing fits what is no hash.
    pub(super) async fn fits(&self, password: String, hash: Bytes) -> Result<bool, Status> {
        self.work(move || {
            std::str::from_utf8(&hash).is_ok_and(|hash| bcrypt::verify(password, hash).unwrap_or(false))
        })
        .await
    }

    async fn work<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, Status> {
        let _place = self.places.acquire().await.map_err(|_| Status::cancelled("the server has stopped"))?;
        tokio::task::spawn_blocking(work).await.map_err(|error| Status::internal(error.to_string()))
    }
}
