//! Starting and stopping the proxying threads, and telling them what to do.

use crate::options::Limits;
use crate::worker::{Command, Gauge, Worker};
use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use tokio::sync::{mpsc, oneshot};

/// All proxying threads.
#[derive(Debug)]
pub(crate) struct Threads {
    commands: Vec<mpsc::UnboundedSender<Command>>,
    handles: Vec<JoinHandle<()>>,
}

/// Starts the threads; they accept nothing yet.
pub(crate) fn start(count: usize, limits: &Limits, gauge: &Arc<Gauge>) -> io::Result<Threads> {
    let mut threads = Threads { commands: Vec::new(), handles: Vec::new() };
    for index in 0..count {
        let (sender, commands) = mpsc::unbounded_channel();
        let (limits, gauge) = (limits.clone(), Arc::clone(gauge));
        let handle = std::thread::Builder::new().name(format!("proxy-{index}")).spawn(move || {
            let built = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build_local(tokio::runtime::LocalOptions::default());
            match built {
                Ok(runtime) => runtime.block_on(Worker::run(index, limits, gauge, commands)),
                Err(error) => tracing::error!(thread = index, %error, "a proxying thread cannot start"),
            }
        })?;
        threads.commands.push(sender);
        threads.handles.push(handle);
    }
    Ok(threads)
}

impl Threads {
    /// Tells every thread.
    pub(crate) fn tell(&self, command: impl Fn() -> io::Result<Command>) -> io::Result<()> {
        for thread in &self.commands {
            thread.send(command()?).map_err(|_| io::Error::other("a proxying thread has ended"))?;
        }
        Ok(())
    }

    /// Waits until every thread has done what it was told.
    pub(crate) async fn settle(&self) {
        for thread in &self.commands {
            let (done, settled) = oneshot::channel();
            if thread.send(Command::Settle(done)).is_ok() {
                // An error means that the thread has ended, which it has logged.
                let _ = settled.await;
            }
        }
    }

    /// Ends every thread and with it every connection.
    pub(crate) fn stop(self) {
        drop(self.commands);
        for handle in self.handles {
            if handle.join().is_err() {
                tracing::error!("a proxying thread has panicked");
            }
        }
    }
}
