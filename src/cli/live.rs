//! `hepgate dump` without a file: listens as the gateway does, and prints what comes.

use std::cell::RefCell;
use std::io::{self, BufWriter, Stdout};
use std::net::SocketAddr;
use std::process::ExitCode;
use std::rc::Rc;

use actix::{Actor, Addr, Context, Handler};
use tokio::sync::oneshot;

use super::capture::Flow;
use super::printer::{Format, Printer};
use super::tell::{count, tell};
use crate::config::{self, ListenAddr, ListenerId, Transport};
use crate::ledger::{Ledger, Page, Rows, ids};
use crate::listener::{BindError, Bound, ConnectionLimits, Intake, TcpListener, Teller, UdpListener, bind};
use crate::message::{Batch, Received};

/// Where it listens if nobody says.
const DEFAULT_LISTEN: [&str; 2] = ["hep_udp:*", "hep_tcp:*"];
/// Batches that may be under way to the printer. It shares their thread; a listener has at most 64 of its own.
const MAILBOX: usize = 1 << 20;

/// Why nothing is dumped.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "each names itself")]
pub enum LiveError {
    #[error("--listen: {0}")]
    Address(String),
    #[error(transparent)]
    Bind(#[from] BindError),
    #[error("cannot listen: {0}")]
    Start(io::Error),
    #[error("cannot write to standard output: {0}")]
    Output(io::Error),
}

/// Prints what comes in at these addresses, until Ctrl-C or until so many packets were printed.
///
/// # Errors
/// [`LiveError`].
pub fn dump(listen: &[String], format: Format, wanted: Option<u64>) -> Result<ExitCode, LiveError> {
    let listeners = settings(listen)?;
    let mut bound = Vec::new();
    for listener in &listeners {
        bound.push(bind(listener, 1)?);
    }
    actix_rt::System::new().block_on(print_until_done(&listeners, bound, format, wanted))
}

fn settings(listen: &[String]) -> Result<Vec<config::Listener>, LiveError> {
    let given = listen.iter().map(String::as_str);
    let addresses: Vec<&str> = if listen.is_empty() { DEFAULT_LISTEN.to_vec() } else { given.collect() };
    let proto_hep = config::ProtoHep::default();
    let one = |text: &str| {
        let listen = ListenAddr::parse(text, proto_hep.hep_port).map_err(LiveError::Address)?;
        if listen.transport == Transport::Tls {
            return Err(LiveError::Address(format!("{text:?}: dump listens over hep_udp: and hep_tcp:")));
        }
        Ok(config::Listener::with_defaults(text, listen, &proto_hep))
    };
    addresses.into_iter().map(one).collect()
}

async fn print_until_done(
    listeners: &[config::Listener],
    bound: Vec<Bound>,
    format: Format,
    wanted: Option<u64>,
) -> Result<ExitCode, LiveError> {
    let (done, end) = oneshot::channel();
    let printer = Printer::new(BufWriter::new(io::stdout()), format);
    let output = Rc::new(RefCell::new(Output { printer, packets: 0, errors: 0, wanted, done: Some(done) }));
    let names = listeners.iter().map(|listener| listener.name.clone()).collect();
    let ledger = Ledger::new(Rows { listeners: names, ..Rows::default() });
    let page = Rc::new(ledger.page());
    for listening in &bound {
        let transport = if matches!(listening, Bound::Udp(..)) { "udp" } else { "tcp" };
        tell(&format!("listening at hep_{transport}:{}", listening.address()));
    }
    let screen = Screen { output: Rc::clone(&output) }.start();
    for ((id, listener), bound) in ids(listeners, ListenerId).zip(bound) {
        start_listener(id, listener, bound, &page, &screen, &output).map_err(LiveError::Start)?;
    }
    let result = tokio::select! {
        result = end => result.unwrap_or(Ok(())),
        _ = tokio::signal::ctrl_c() => output.borrow_mut().printer.flush(),
    };
    let output = output.borrow();
    match result {
        // Whoever reads has seen enough: `hepgate dump | head`.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
        Err(error) => return Err(LiveError::Output(error)),
        Ok(()) => tell(&format!("{}, {}", count(output.packets, "packet"), count(output.errors, "error"))),
    }
    Ok(ExitCode::SUCCESS)
}

fn start_listener(
    id: ListenerId,
    listener: &config::Listener,
    bound: Bound,
    page: &Rc<Page>,
    screen: &Addr<Screen>,
    output: &Rc<RefCell<Output>>,
) -> io::Result<()> {
    let (transport, local) = match &bound {
        Bound::Udp(_, local) => (Transport::Udp, *local),
        Bound::Tcp(_, local) => (Transport::Tcp, *local),
    };
    let intake = Intake::new(id, &listener.name, Rc::clone(page)).telling(teller(transport, local, output));
    match bound {
        Bound::Udp(sockets, _) => {
            if let Some(socket) = sockets.into_iter().next() {
                UdpListener::new(socket, intake, screen.clone().recipient())?.start();
            }
        }
        Bound::Tcp(sockets, _) => {
            let limits = listener.stream;
            let admission = ConnectionLimits::new(limits.connections_max, limits.connections_per_peer_max);
            if let Some(socket) = sockets.into_iter().next() {
                TcpListener::new(socket, intake, limits, admission, None, screen.clone().recipient())?.start();
            }
        }
    }
    Ok(())
}

fn teller(transport: Transport, local: SocketAddr, output: &Rc<RefCell<Output>>) -> Teller {
    let output = Rc::clone(output);
    Box::new(move |why, peer| {
        let mut output = output.borrow_mut();
        output.errors += 1;
        let flow = Flow { transport, source: peer, destination: local };
        let result = output.printer.error(why, None, Some(flow)).and_then(|()| output.printer.flush());
        output.end_on_error(result);
    })
}

/// What is printed, and how much of it.
struct Output {
    printer: Printer<BufWriter<Stdout>>,
    packets: u64,
    errors: u64,
    wanted: Option<u64>,
    /// Told once when it is over.
    done: Option<oneshot::Sender<io::Result<()>>>,
}

impl Output {
    fn print(&mut self, packets: &[Received]) {
        for received in packets {
            if self.wanted.is_some_and(|wanted| self.packets >= wanted) {
                break;
            }
            self.packets += 1;
            let result = self.printer.packet(&received.packet, Some(received.origin.received_at.as_micros()));
            self.end_on_error(result);
        }
        // Whoever reads may be watching.
        let result = self.printer.flush();
        self.end_on_error(result);
        if self.wanted.is_some_and(|wanted| self.packets >= wanted) {
            self.end(Ok(()));
        }
    }

    fn end_on_error(&mut self, result: io::Result<()>) {
        if result.is_err() {
            self.end(result);
        }
    }

    fn end(&mut self, result: io::Result<()>) {
        if let Some(done) = self.done.take() {
            // Whoever waits may have stopped for another reason.
            let _ = done.send(result);
        }
    }
}

/// The actor that listeners hand their packets to.
struct Screen {
    output: Rc<RefCell<Output>>,
}

impl Actor for Screen {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(MAILBOX);
    }
}

impl Handler<Batch> for Screen {
    type Result = ();

    fn handle(&mut self, batch: Batch, _: &mut Self::Context) {
        self.output.borrow_mut().print(&batch.packets);
    }
}
