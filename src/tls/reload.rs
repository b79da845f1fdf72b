//! What was made of files, made again when they have changed.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use super::files::FileError;

/// Time between two looks at whether the files have changed.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// The files were changed, and what came of it.
pub type Reloaded = Option<Result<(), FileError>>;

/// Something made of files. All workers share it.
#[derive(Debug)]
pub(super) struct Reloading<T> {
    files: Vec<PathBuf>,
    current: Mutex<Current<T>>,
}

#[derive(Debug)]
struct Current<T> {
    made: Arc<T>,
    /// When each of the files was written last.
    written: Vec<Option<SystemTime>>,
    look_again_at: Instant,
}

impl<T> Reloading<T> {
    /// With what the files hold now.
    pub(super) fn new(
        files: Vec<PathBuf>,
        make: impl FnOnce(SystemTime) -> Result<T, FileError>,
    ) -> Result<Self, FileError> {
        let written = written(&files);
        let made = Arc::new(make(SystemTime::now())?);
        let current = Current { made, written, look_again_at: Instant::now() + LOOK_AGAIN };
        Ok(Self { files, current: Mutex::new(current) })
    }

    /// What to use now. If the files were changed, it is made again; if that fails, the old one stays.
    pub(super) fn get(
        &self,
        now: Instant,
        make: impl FnOnce(SystemTime) -> Result<T, FileError>,
    ) -> (Arc<T>, Reloaded) {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        let reloaded = self.look(&mut current, now, make);
        (Arc::clone(&current.made), reloaded)
    }

    fn look(
        &self,
        current: &mut Current<T>,
        now: Instant,
        make: impl FnOnce(SystemTime) -> Result<T, FileError>,
    ) -> Reloaded {
        if now < current.look_again_at {
            return None;
        }
        current.look_again_at = now + LOOK_AGAIN;
        let written = written(&self.files);
        if written == current.written {
            return None;
        }
        // Also if they are no good: they are told of once, and looked at again when they change again.
        current.written = written;
        Some(make(SystemTime::now()).map(|made| current.made = Arc::new(made)))
    }
}

fn written(files: &[PathBuf]) -> Vec<Option<SystemTime>> {
    files.iter().map(|path| std::fs::metadata(path).and_then(|file| file.modified()).ok()).collect()
}
