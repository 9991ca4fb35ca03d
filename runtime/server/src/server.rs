//! The server: listens from the start, answers once there is a model, and ends when it is told to.

use crate::connections;
use crate::front::Front;
use crate::options::ServerOptions;
use crate::state::AppState;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use trit_runtime::RuntimeError;
use trit_runtime::scheduler::Scheduler;

/// Threads that speak to clients. Those that compute are the engine's.
const THREADS: usize = 2;

/// A server that listens.
pub struct Server {
    address: SocketAddr,
    front: Arc<Front>,
    ender: Ender,
    serving: Option<JoinHandle<Drained>>,
    runtime: Runtime,
}

/// How a server ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drained {
    /// Every request that had begun was answered.
    All,
    /// Some took too long.
    CutOff {
        /// How many.
        requests: usize,
    },
}

/// Tells a server to end.
#[derive(Clone)]
pub struct Ender {
    front: Arc<Front>,
    draining: watch::Sender<bool>,
}

impl Ender {
    /// New requests get 503, those that have begun are answered, then the server ends.
    pub fn drain(&self) {
        self.front.drain();
        self.draining.send_replace(true);
    }
}

impl Server {
    /// Starts to listen. Until [`Server::open`] requests are told that the model is being loaded.
    ///
    /// # Errors
    /// Where the system refuses threads or the listener.
    pub fn start(listener: TcpListener, options: ServerOptions) -> io::Result<Server> {
        let address = listener.local_addr()?;
        listener.set_nonblocking(true)?;
        let runtime =
            Builder::new_multi_thread().worker_threads(THREADS).thread_name("server").enable_all().build()?;
        let front = Arc::new(Front::new(options, address.ip().is_loopback()));
        let (draining, told) = watch::channel(false);
        let listener = {
            let _inside = runtime.enter();
            tokio::net::TcpListener::from_std(listener)?
        };
        let serving = Some(runtime.spawn(connections::serve(listener, front.clone(), told)));
        let ender = Ender { front: front.clone(), draining };
        Ok(Server { address, front, ender, serving, runtime })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on requests are answered.
    ///
    /// # Errors
    /// [`RuntimeError::Text`] where the model's tokenizer or chat template cannot be used.
    pub fn open(&self, scheduler: impl Into<Arc<Scheduler>>) -> Result<(), RuntimeError> {
        let scheduler = scheduler.into();
        let state = AppState::new(scheduler, self.front.options().clone(), self.front.metrics().clone())?;
        self.front.open(state);
        Ok(())
    }

    /// What tells it to end.
    pub fn ender(&self) -> Ender {
        self.ender.clone()
    }

    /// Waits until it was told to end, and has.
    pub fn wait(mut self) -> Drained {
        let Some(serving) = self.serving.take() else { return Drained::All };
        let ended = self.runtime.block_on(serving);
        // What is left are templates that are being rendered for nobody; each looks whether it should end.
        self.runtime.shutdown_timeout(Duration::from_secs(1));
        ended.unwrap_or(Drained::CutOff { requests: 0 })
    }
}
