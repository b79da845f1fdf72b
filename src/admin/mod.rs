//! HTTP for those who watch: metrics, health, readiness. On a thread of its own, which no guest and no traffic shares.

mod guests;
mod metrics;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use actix::Recipient;
use actix_web::dev::ServerHandle;
use actix_web::http::header::ContentType;
use actix_web::{App, HttpResponse, HttpServer, web};

use crate::config::Limits;
use crate::filter::Belongings;
use crate::ledger::Ledger;
use crate::message::Drain;
use crate::tenant::Standing;

/// Simultaneous requests: one who watches, and a few who are curious.
const CONNECTIONS_MAX: usize = 64;

/// A filter, for those who watch.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FilterInfo {
    /// Its name.
    pub name: String,
    /// Its component.
    pub sha256: String,
}

/// A filter in a tenant's chain, for those who watch.
#[derive(Clone, Debug)]
pub struct SeatInfo {
    /// What its instances may use.
    pub limits: Limits,
    /// How it stands with the tenant, on all workers together.
    pub standing: Arc<Standing>,
    /// What it remembers, and its own metrics.
    pub belongings: Belongings,
}

/// What can be seen of a running gateway.
#[derive(Debug)]
pub struct View {
    /// The counters.
    pub ledger: Arc<Ledger>,
    /// The filters that are loaded.
    pub filters: Vec<FilterInfo>,
    /// The filters in chains, in the order of the ledger's seats.
    pub seats: Vec<SeatInfo>,
    /// The actors that must be there, by what they are.
    pub actors: Vec<(String, Recipient<Drain>)>,
    /// Whether packets are taken.
    pub ready: AtomicBool,
}

impl View {
    /// The actors that have died: their part of the work is not done any more.
    #[must_use]
    pub fn dead_actors(&self) -> Vec<&str> {
        let dead = self.actors.iter().filter(|(_, actor)| !actor.connected());
        dead.map(|(name, _)| name.as_str()).collect()
    }
}

/// The server, and its thread.
#[derive(Debug)]
pub struct Admin {
    address: SocketAddr,
    handle: ServerHandle,
    thread: JoinHandle<io::Result<()>>,
}

/// Why there is no server.
#[derive(Debug, thiserror::Error)]
#[error("admin: {address}: {reason}")]
pub struct AdminError {
    /// Where it was to listen.
    pub address: SocketAddr,
    /// What the system said.
    pub reason: io::Error,
}

/// Binds the server's socket.
///
/// # Errors
/// [`AdminError`].
pub fn bind(address: SocketAddr) -> Result<TcpListener, AdminError> {
    TcpListener::bind(address).map_err(|reason| AdminError { address, reason })
}

/// Serves `/metrics`, `/healthz` and `/readyz`.
///
/// # Errors
/// [`AdminError`]: there is no thread to be had, or the socket cannot be watched.
pub fn serve(listener: TcpListener, view: Arc<View>) -> Result<Admin, AdminError> {
    let address = listener.local_addr().unwrap_or_else(|_| SocketAddr::from(([0, 0, 0, 0], 0)));
    let error = |reason| AdminError { address, reason };
    let (started, handle) = std::sync::mpsc::sync_channel(1);
    let run = move || {
        actix_rt::System::new().block_on(async move {
            let app = move || {
                App::new()
                    .app_data(web::Data::from(Arc::clone(&view)))
                    .route("/metrics", web::get().to(metrics_page))
                    .route("/healthz", web::get().to(healthz))
                    .route("/readyz", web::get().to(readyz))
            };
            let server = HttpServer::new(app).workers(1).max_connections(CONNECTIONS_MAX).disable_signals();
            let server = server.shutdown_timeout(1).listen(listener)?.run();
            // Whoever started us waits for this.
            let _ = started.send(server.handle());
            server.await
        })
    };
    let thread = std::thread::Builder::new().name("hepgate-admin".into()).spawn(run).map_err(error)?;
    match handle.recv() {
        Ok(handle) => Ok(Admin { address, handle, thread }),
        Err(_) => Err(error(match thread.join() {
            Ok(Err(reason)) => reason,
            _ => io::Error::other("its thread ended"),
        })),
    }
}

impl Admin {
    /// Where it listens.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Ends the server.
    pub async fn stop(self) {
        self.handle.stop(false).await;
        if let Ok(Err(error)) = self.thread.join() {
            tracing::warn!(%error, "the admin server ended with an error");
        }
    }
}

async fn metrics_page(view: web::Data<View>) -> HttpResponse {
    match metrics::text(&view) {
        Ok(text) => HttpResponse::Ok().content_type(metrics::CONTENT_TYPE).body(text),
        Err(error) => HttpResponse::InternalServerError().body(error.to_string()),
    }
}

async fn healthz(view: web::Data<View>) -> HttpResponse {
    let dead = view.dead_actors();
    if dead.is_empty() {
        return HttpResponse::Ok().content_type(ContentType::plaintext()).body("ok\n");
    }
    let text = format!("dead: {}\n", dead.join(", "));
    HttpResponse::ServiceUnavailable().content_type(ContentType::plaintext()).body(text)
}

async fn readyz(view: web::Data<View>) -> HttpResponse {
    if view.ready.load(Ordering::SeqCst) {
        return HttpResponse::Ok().content_type(ContentType::plaintext()).body("ready\n");
    }
    HttpResponse::ServiceUnavailable().content_type(ContentType::plaintext()).body("not ready\n")
}
