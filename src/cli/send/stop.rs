//! Ctrl-C: the wish to stop, which whoever waits can hear.

use std::io;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};

/// What shells give for a program that Ctrl-C ended: 128 and the number of SIGINT.
pub(super) const EXIT_CODE: u8 = 130;

/// Whether to stop. Clones are the same wish.
#[derive(Clone, Debug, Default)]
pub(super) struct Stop(Arc<(Mutex<bool>, Condvar)>);

impl Stop {
    /// From now on Ctrl-C sets it. A second Ctrl-C ends the program at once.
    pub(super) fn set_by_ctrl_c(&self) -> io::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
        let stop = self.clone();
        // The listening begins here, not when the thread gets to run.
        let mut signals = runtime.block_on(async { signal(SignalKind::interrupt()) })?;
        // Nobody waits for the thread: it ends with the program.
        std::thread::Builder::new().name("ctrl-c".to_owned()).spawn(move || {
            runtime.block_on(async {
                signals.recv().await;
                stop.set();
                signals.recv().await;
                std::process::exit(i32::from(EXIT_CODE));
            });
        })?;
        Ok(())
    }

    pub(super) fn set(&self) {
        let (stop, changed) = &*self.0;
        *stop.lock().unwrap_or_else(PoisonError::into_inner) = true;
        changed.notify_all();
    }

    pub(super) fn is_set(&self) -> bool {
        *self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits that long, or until the wish comes; says whether it came.
    pub(super) fn wait(&self, time: Duration) -> bool {
        let (stop, changed) = &*self.0;
        let guard = stop.lock().unwrap_or_else(PoisonError::into_inner);
        let (guard, _) = changed.wait_timeout_while(guard, time, |stop| !*stop).unwrap_or_else(PoisonError::into_inner);
        *guard
    }
}
