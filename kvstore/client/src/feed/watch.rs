//! One watch on one connection, which ends when it is silent for too long.

use std::sync::Arc;
use std::time::Duration;

use etcd_client::{WatchOptions, WatchRequestSender, WatchResponse, WatchResponseStream};
use tokio::time::{Instant, timeout};
use tonic::Status;

use super::state::Input;
use super::wire;
use crate::call::Call;
use crate::connection::Connection;
use crate::error::ClientError;
use crate::key_range::KeyRange;
use crate::request::Requests;

const OPERATION: &str = "watch";
/// A new watch is asked for its progress this soon, so that the end of an outage shows.
const FIRST_ASK: Duration = Duration::from_millis(500);
/// It is asked again: a store does not answer while the watch catches up.
const ASK_AGAIN: Duration = Duration::from_secs(2);
/// A watch that brings nothing for this long after it was first asked is lost.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// A running watch. Dropping it ends it at the store, too.
pub(crate) struct Watch {
    requests: WatchRequestSender,
    responses: WatchResponseStream,
    connection: Arc<Connection>,
    prefix: String,
    range: KeyRange,
    /// How long to wait before asking.
    patience: Duration,
    /// How long to wait from the first message on.
    silence: Duration,
}

impl Watch {
    /// Asks for everything under `prefix` from revision `from` on, and for progress after each `silence`.
    ///
    /// # Errors
    /// [`ClientError`] if there is no connection or no answer within the request timeout.
    pub(crate) async fn open(
        requests: &Requests,
        prefix: &str,
        range: &KeyRange,
        from: i64,
        silence: Duration,
    ) -> Result<Self, ClientError> {
        let options = WatchOptions::new()
            .with_range(range.end.clone())
            .with_start_revision(from)
            .with_progress_notify();
        let send = |connection: Arc<Connection>| {
            let (mut watch, options) = (connection.watch.clone(), options.clone());
            async move { Ok(watch.watch(range.start.clone(), Some(options)).await?.split()) }
        };
        let deadline = Instant::now() + requests.timeout;
        let ((requests, responses), connection) = requests.once(OPERATION, prefix, deadline, send).await?;
        let (prefix, range) = (prefix.to_owned(), range.clone());
        Ok(Self { requests, responses, connection, prefix, range, patience: FIRST_ASK, silence })
    }

    /// The next message of the store. After an error the watch is over.
    ///
    /// # Errors
    /// [`ClientError`] if the stream broke, is silent, or says what makes no sense.
    pub(crate) async fn next(&mut self, requests: &Requests) -> Result<Input, ClientError> {
        let call = Call {
            operation: OPERATION,
            key: self.prefix.clone(),
            endpoint: self.connection.endpoint.clone(),
        };
        let input = match self.response(&call).await {
            Ok(response) => wire::meaning(response.0, &self.range, &call),
            Err(error) => Err(error),
        };
        match input {
            Ok((input, skipped)) => {
                requests.note_skipped(&self.prefix, &skipped);
                // What says that it runs came without asking.
                if !matches!(input, Input::Watching(_)) {
                    self.patience = self.silence;
                }
                Ok(input)
            }
            Err(error) => {
                requests.note(&self.connection, &error);
                Err(error)
            }
        }
    }

    async fn response(&mut self, call: &Call) -> Result<WatchResponse, ClientError> {
        let mut first_asked = None;
        loop {
            let patience = if first_asked.is_some() { ASK_AGAIN } else { self.patience };
            match timeout(patience, self.responses.message()).await {
                Ok(Ok(Some(response))) => return Ok(response),
                Ok(Ok(None)) => {
                    let source = Arc::new(Status::unavailable("the store ended the stream"));
                    return Err(ClientError::Disconnected { call: call.clone(), source });
                }
                Ok(Err(error)) => return Err(ClientError::from_library(call.clone(), error)),
                Err(_) => {}
            }
            let since = first_asked.get_or_insert_with(Instant::now).elapsed();
            // The request queues behind a stream that takes no more, if the store does not read: that is silence too.
            let asked = timeout(ASK_AGAIN, self.requests.request_progress()).await;
            if since >= ANSWER_TIMEOUT || matches!(asked, Ok(Err(_))) {
                return Err(ClientError::TimedOut { call: call.clone(), after: since });
            }
        }
    }
}
