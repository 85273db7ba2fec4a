//! The one runtime for sockets, started with the first connection, and how a thread waits for it.
//!
//! Invariant: only threads of the program wait here, never a task of the runtime itself; a task never blocks.

use std::future::Future;
use std::sync::OnceLock;
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};

use crate::error::LinkError;

const THREADS: usize = 2;

/// The runtime; an error where the system gives no more threads.
pub(crate) fn runtime() -> Result<&'static Runtime, LinkError> {
    static RUNTIME: OnceLock<Result<Runtime, String>> = OnceLock::new();
    let started = RUNTIME.get_or_init(|| {
        Builder::new_multi_thread()
            .worker_threads(THREADS)
            .thread_name("instep-wire")
            .enable_all()
            .build()
            .map_err(|e| e.to_string())
    });
    started
        .as_ref()
        .map_err(|e| LinkError::Lost(format!("start threads for connections: {e}")))
}

/// Waits for it on this thread.
pub(crate) fn wait<T>(work: impl Future<Output = Result<T, LinkError>>) -> Result<T, LinkError> {
    runtime()?.block_on(work)
}

/// Waits for it so long; none when it is not done by then.
pub(crate) fn wait_at_most<T>(
    time: Duration,
    work: impl Future<Output = Result<T, LinkError>>,
) -> Result<Option<T>, LinkError> {
    wait(async {
        match tokio::time::timeout(time, work).await {
            Ok(done) => done.map(Some),
            Err(_) => Ok(None),
        }
    })
}
