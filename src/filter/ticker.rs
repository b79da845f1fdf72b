//! The thread that ends overlong calls: it raises the engine's epoch every millisecond while a guest may be running.
//!
//! Nothing is shared and written on the way of a packet. A call only reads the ticker's state, unless the ticker is
//! about to sleep or sleeps. The rule that keeps every deadline: **the ticker never sleeps before the epoch has passed
//! every deadline that was set.** A call sets its deadline first and then sees to it that the ticker runs beyond it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{JoinHandle, Thread};
use std::time::{Duration, Instant};

use wasmtime::EngineWeak;

/// The time between two ticks: the grain of every deadline.
pub(super) const TICK: Duration = Duration::from_millis(1);
const TICKS_PER_SECOND: u64 = 1_000_000_000 / TICK.subsec_nanos() as u64;
/// Ticks that the ticker goes on after the last deadline, so that traffic that comes every few milliseconds does not
/// wake a sleeping thread for every batch.
const LINGER_TICKS: u64 = 100;
/// A ticker that has not ticked for so long while it should is taken for dead. Far above what a loaded machine does to
/// a sleeping thread (26 ms measured), as no guest runs from then on.
const LATE: Duration = Duration::from_secs(1);

/// Ends overlong calls.
#[derive(Debug)]
pub(super) struct Ticker {
    shared: Arc<Shared>,
    thread: Thread,
    join: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    start: Instant,
    /// Ticks so far. The engine's epoch is this, or one more for a moment.
    ticks: AtomicU64,
    /// The ticker may sleep when `ticks` has reached this.
    run_until: AtomicU64,
    /// When it last ticked, or was last told to wake up: nanoseconds after `start`.
    last_beat: AtomicU64,
    asleep: AtomicBool,
    stop: AtomicBool,
}

impl Ticker {
    /// Starts the thread.
    pub(super) fn start(engine: EngineWeak) -> std::io::Result<Self> {
        let shared = Arc::new(Shared {
            start: Instant::now(),
            ticks: AtomicU64::new(0),
            run_until: AtomicU64::new(0),
            last_beat: AtomicU64::new(0),
            asleep: AtomicBool::new(false),
            stop: AtomicBool::new(false),
        });
        let theirs = Arc::clone(&shared);
        let join = std::thread::Builder::new().name("hepgate-ticker".into()).spawn(move || theirs.run(&engine))?;
        Ok(Self { shared, thread: join.thread().clone(), join: Some(join) })
    }

    /// How many ticks a deadline is.
    pub(super) fn ticks(deadline: Duration) -> u64 {
        // Not by `Duration::as_nanos`: to divide 128 bits takes as long as some calls.
        let in_part = u64::from(deadline.subsec_nanos().div_ceil(TICK.subsec_nanos()));
        deadline.as_secs().saturating_mul(TICKS_PER_SECOND).saturating_add(in_part).max(1)
    }

    /// Sees to it that the epoch passes a deadline of so many ticks from now, which the caller has set already.
    ///
    /// `false`: the ticker is late, so the guest must not run.
    pub(super) fn cover(&self, deadline_ticks: u64, now: Instant) -> bool {
        let shared = &*self.shared;
        // One tick because the epoch may be ahead of `ticks`, one because it must pass the deadline.
        let needed = shared.ticks.load(Ordering::SeqCst) + deadline_ticks + 2;
        if shared.run_until.load(Ordering::SeqCst) < needed {
            shared.run_until.fetch_max(needed + LINGER_TICKS, Ordering::SeqCst);
        }
        let now = shared.nanos(now);
        if shared.asleep.load(Ordering::SeqCst) && shared.asleep.swap(false, Ordering::SeqCst) {
            shared.last_beat.store(now, Ordering::Relaxed);
            self.thread.unpark();
            return true;
        }
        let late = u64::try_from(LATE.as_nanos()).unwrap_or(u64::MAX);
        now.saturating_sub(shared.last_beat.load(Ordering::Relaxed)) < late
    }

    /// Whether the thread sleeps: an idle gateway must not tick.
    #[cfg(test)]
    fn is_asleep(&self) -> bool {
        self.shared.asleep.load(Ordering::SeqCst)
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        self.thread.unpark();
        if let Some(join) = self.join.take() {
            // It ends by itself; that it panicked, `cover` has told already.
            let _ = join.join();
        }
    }
}

impl Shared {
    fn run(&self, engine: &EngineWeak) {
        while !self.stop.load(Ordering::SeqCst) {
            if self.ticks.load(Ordering::SeqCst) >= self.run_until.load(Ordering::SeqCst) {
                self.sleep();
                continue;
            }
            std::thread::sleep(TICK);
            let Some(engine) = engine.upgrade() else { return };
            engine.increment_epoch();
            self.ticks.fetch_add(1, Ordering::SeqCst);
            self.last_beat.store(self.nanos(Instant::now()), Ordering::Relaxed);
        }
    }

    /// Sleeps until a call wakes it. A call that moved `run_until` before it could see `asleep` is seen here.
    fn sleep(&self) {
        self.asleep.store(true, Ordering::SeqCst);
        if self.ticks.load(Ordering::SeqCst) < self.run_until.load(Ordering::SeqCst) {
            self.asleep.store(false, Ordering::SeqCst);
            self.last_beat.store(self.nanos(Instant::now()), Ordering::Relaxed);
            return;
        }
        while self.asleep.load(Ordering::SeqCst) && !self.stop.load(Ordering::SeqCst) {
            std::thread::park();
        }
    }

    fn nanos(&self, at: Instant) -> u64 {
        u64::try_from(at.saturating_duration_since(self.start).as_nanos()).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ticker() -> (wasmtime::Engine, Ticker) {
        let engine = wasmtime::Engine::default();
        let ticker = Ticker::start(engine.weak()).unwrap();
        (engine, ticker)
    }

    fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
        let start = Instant::now();
        while !done() {
            assert!(start.elapsed() < Duration::from_secs(30), "{what}");
            std::thread::yield_now();
        }
    }

    #[test]
    fn an_idle_ticker_sleeps_and_a_call_wakes_it() {
        let (_engine, ticker) = ticker();
        wait_until("never slept", || ticker.is_asleep());
        let before = ticker.shared.ticks.load(Ordering::SeqCst);
        assert!(ticker.cover(5, Instant::now()));
        wait_until("did not pass the deadline", || ticker.shared.ticks.load(Ordering::SeqCst) > before + 5);
        wait_until("did not sleep again", || ticker.is_asleep());
        let ticks = ticker.shared.ticks.load(Ordering::SeqCst);
        assert_eq!(ticks, before + 5 + 2 + LINGER_TICKS);
    }

    #[test]
    fn a_ticker_that_died_is_noticed() {
        let (engine, ticker) = ticker();
        wait_until("never slept", || ticker.is_asleep());
        drop(engine);
        // Woken, it finds no engine and ends.
        assert!(ticker.cover(5, Instant::now()));
        assert!(!ticker.cover(5, Instant::now() + LATE + Duration::from_millis(1)));
    }

    #[test]
    fn a_deadline_is_at_least_a_tick() {
        let ticks = [0, 1, 1_000_000, 1_000_001, 50_000_000, 1_000_000_000, 60_000_000_001]
            .map(|nanos| Ticker::ticks(Duration::from_nanos(nanos)));
        assert_eq!(ticks, [1, 1, 1, 2, 50, 1_000, 60_001]);
        assert_eq!(Ticker::ticks(Duration::MAX), u64::MAX);
        assert_eq!(TICK.as_secs_f64() * 1_000.0, 1.0, "TICKS_PER_SECOND");
    }
}
