//! What the runtime knows of a socket that has just been read.

use std::io;

/// Takes from a socket what is there, through its `try_io`, and tells the runtime that nothing is left if `is_all` says so
/// of what was taken: to ask again for nothing is a system call for every packet that comes alone. What comes after that,
/// epoll tells anew.
///
/// # Errors
/// `WouldBlock` if nothing is there, or what `take` says.
pub(super) fn take_ready<T>(
    try_io: impl FnOnce(&mut dyn FnMut() -> io::Result<()>) -> io::Result<()>,
    mut take: impl FnMut() -> io::Result<T>,
    is_all: impl Fn(&T) -> bool,
) -> io::Result<T> {
    let mut taken = None;
    let told = try_io(&mut || {
        if is_all(taken.insert(take()?)) { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(()) }
    });
    match taken {
        Some(taken) => Ok(taken),
        None => Err(told.err().unwrap_or_else(|| io::ErrorKind::WouldBlock.into())),
    }
}
