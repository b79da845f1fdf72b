//! A program that a test starts, and that ends with it.

use std::net::{TcpListener, UdpSocket};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use crate::support::PATIENCE;

pub(super) struct Program {
    child: Child,
    log: PathBuf,
}

impl Program {
    /// Starts it; what it says goes into a file of that folder.
    pub(super) fn start(command: &mut Command, folder: &std::path::Path) -> Self {
        let log = folder.join("program.log");
        let out = std::fs::File::create(&log).unwrap();
        let child = command
            .stdin(Stdio::null())
            .stdout(out.try_clone().unwrap())
            .stderr(out)
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?}: {error}; tests/run installs it"));
        Self { child, log }
    }

    /// Waits until it is done, and gives what it said.
    pub(super) fn finish(mut self) -> String {
        let start = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(start.elapsed() < PATIENCE, "it does not end\n{}", self.said());
            std::thread::sleep(std::time::Duration::from_millis(5));
        };
        let said = self.said();
        assert!(status.success(), "{status}\n{said}");
        said
    }

    pub(super) fn said(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap()).into_owned()
    }

    /// It must not have ended by itself.
    pub(super) fn assert_running(&mut self) {
        let ended = self.child.try_wait().unwrap();
        assert!(ended.is_none(), "it ended: {ended:?}\n{}", self.said());
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // By SIGTERM first: some leave children behind when they are killed.
        let pid = nix::unistd::Pid::from_raw(i32::try_from(self.child.id()).unwrap());
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
        let start = Instant::now();
        while self.child.try_wait().unwrap().is_none() {
            if start.elapsed() > std::time::Duration::from_secs(5) {
                let _ = self.child.kill();
            }
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    }
}

/// A port of loopback that nobody has, neither for UDP nor for TCP.
pub(super) fn free_port() -> u16 {
    loop {
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = tcp.local_addr().unwrap().port();
        if UdpSocket::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}
