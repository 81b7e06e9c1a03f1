//! Connections, from their first bytes to their end.

use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::sync::Arc;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tonic::transport::server::Connected;
use tracing::debug;

use super::body::Answer;
use super::preface::Opened;
use super::requests::Requests;
use super::router::Router;
use crate::connection::Connection;
use crate::grpc::{Peer, ServiceSettings};
use crate::held::Held;

/// Requests that a client may give up before they were looked at. Whoever closes hundreds of watches at once is no attacker.
const PENDING_RESETS: usize = 4096;

/// Serves connections until `stop`, and then until those that are left have ended.
pub(crate) async fn serve(
    mut connections: mpsc::Receiver<io::Result<Connection>>,
    router: Router,
    stop: CancellationToken,
) {
    let router = Arc::new(router);
    let mut served = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => break,
            Some(_) = served.join_next() => {}
            connection = connections.recv() => match connection {
                Some(Ok(connection)) => {
                    served.spawn(serve_connection(connection, Arc::clone(&router), stop.clone()));
                }
                Some(Err(error)) => debug!(%error, "no connection"),
                None => break,
            },
        }
    }
    drop(connections);
    while served.join_next().await.is_some() {}
}

/// The most that the metadata of a call may have, in bytes. Two of these at most are held before it is known what a connection
/// wants: hardly more than it may send as data. etcd takes 16 MiB.
const LARGEST_METADATA: u32 = 1 << 20;

async fn serve_connection(connection: Connection, router: Arc<Router>, stop: CancellationToken) {
    let peer = connection.connect_info();
    let settings = router.settings();
    let opened = tokio::select! {
        biased;
        () = stop.cancelled() => return,
        opened = timeout(settings.head_deadline, Opened::look(connection)) => opened,
    };
    let Ok(Ok((opened, is_http2))) = opened else {
        debug!("a connection that said nothing has ended");
        return;
    };
    let io = TokioIo::new(opened);
    let cut = CancellationToken::new();
    let held = router.held(cut.clone());
    let service = ConnectionService { router, peer, held };
    let ended = cut.run_until_cancelled(drive(io, is_http2, service, settings, stop)).await;
    if let Some(Err(error)) = ended {
        debug!(%error, "a connection has failed");
    }
}

async fn drive(
    io: TokioIo<Opened<Connection>>,
    is_http2: bool,
    service: ConnectionService,
    settings: ServiceSettings,
    stop: CancellationToken,
) -> hyper::Result<()> {
    if is_http2 {
        let requests = Requests::default();
        let connection = http2::Builder::new(requests.clone())
            .timer(TokioTimer::new())
            .keep_alive_interval(settings.ping_interval)
            .keep_alive_timeout(settings.ping_timeout)
            .max_pending_accept_reset_streams(Some(PENDING_RESETS))
            .max_concurrent_streams(settings.max_streams)
            .max_header_list_size(LARGEST_METADATA)
            // No client of gRPC asks what time it is here.
            .auto_date_header(false)
            .serve_connection(io, service);
        requests.drive(until(connection, stop, http2::Connection::graceful_shutdown)).await
    } else {
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(settings.head_deadline)
            .serve_connection(io, service);
        until(connection, stop, http1::Connection::graceful_shutdown).await
    }
}

/// Drives a connection to its end, and tells it when that has to come.
async fn until<C: Future>(
    connection: C,
    stop: CancellationToken,
    end: impl FnOnce(Pin<&mut C>),
) -> C::Output {
    let mut connection = std::pin::pin!(connection);
    tokio::select! {
        output = &mut connection => return output,
        () = stop.cancelled_owned() => {}
    }
    end(connection.as_mut());
    connection.await
}

/// Answers the requests of one connection.
#[derive(Clone, Debug)]
struct ConnectionService {
    router: Arc<Router>,
    peer: Peer,
    held: Held,
}

impl hyper::service::Service<Request<Incoming>> for ConnectionService {
    type Response = Response<Answer>;
    type Error = Infallible;
    type Future = super::calls::Answering;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        self.router.answer(&self.peer, &self.held, request)
    }
}
