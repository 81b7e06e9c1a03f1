//! The client against real stores over loopback. Each scenario takes the kind of store, so that another store only
//! needs a line in [`scenarios`].
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

/// Runs each of the named `async fn(Kind)` against each kind of store.
macro_rules! scenarios {
    ($($name:ident),+ $(,)?) => {
        mod etcd {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $name() {
                    if landbridge_lab::requirement::met(&[landbridge_lab::requirement::Requirement::Etcd]) {
                        super::$name(crate::store::ETCD).await;
                    }
                }
            )+
        }

        mod ours {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $name() {
                    super::$name(crate::store::OURS).await;
                }
            )+
        }
    };
}

mod certificates;
mod feed;
mod kept;
mod lease;
mod proxy;
mod requests;
mod store;
mod tls;
mod view;
