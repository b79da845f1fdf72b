//! A program that a test starts, and that ends with it.

use std::fs::File;
use std::net::{TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use crate::support::PATIENCE;

pub(super) struct Program {
    child: Child,
    log: PathBuf,
    /// Its standard output, if that is kept apart.
    output: Option<PathBuf>,
}

impl Program {
    /// Starts it; what it says goes into a file of that folder.
    pub(super) fn start(command: &mut Command, folder: &Path) -> Self {
        let log = folder.join("program.log");
        let out = File::create(&log).unwrap();
        let child = Self::spawn(command.stdin(Stdio::null()).stdout(out.try_clone().unwrap()).stderr(out));
        Self { child, log, output: None }
    }

    /// The same, with what it writes to its standard output in a file by itself, and a standard input that does not
    /// end: OpenSSL's server ends with it.
    pub(super) fn start_apart(command: &mut Command, folder: &Path) -> Self {
        let (log, output) = (folder.join("program.log"), folder.join("program.out"));
        command.stdin(Stdio::piped()).stdout(File::create(&output).unwrap()).stderr(File::create(&log).unwrap());
        let child = Self::spawn(command);
        Self { child, log, output: Some(output) }
    }

    fn spawn(command: &mut Command) -> Child {
        let child = command.spawn();
        child.unwrap_or_else(|error| panic!("{command:?}: {error}; tests/run installs it"))
    }

    /// What it wrote, if that is kept apart.
    pub(super) fn octets(&self) -> Vec<u8> {
        std::fs::read(self.output.as_ref().unwrap()).unwrap()
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

/// Waits until somebody has that port of UDP; `check` may find that nobody ever will. What is sent is nothing to anybody.
pub(super) fn await_udp_port(port: u16, mut check: impl FnMut()) {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.connect(("127.0.0.1", port)).unwrap();
    socket.set_read_timeout(Some(std::time::Duration::from_millis(100))).unwrap();
    let start = Instant::now();
    // Loopback says at once if nobody is there.
    while socket.send(b"\r\n\r\n").is_err()
        || socket.recv(&mut [0; 16]).is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionRefused)
    {
        check();
        assert!(start.elapsed() < PATIENCE, "nobody ever takes port {port}");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}
