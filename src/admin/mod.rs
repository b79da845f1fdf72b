//! HTTP for those who watch: metrics, health, readiness. On a thread of its own, which no guest and no traffic shares.

mod control;
mod guests;
mod metrics;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::thread::JoinHandle;

use actix::Recipient;
use actix_web::dev::ServerHandle;
use actix_web::http::header::ContentType;
use actix_web::{App, HttpRequest, HttpResponse, HttpServer, web};
use tokio::sync::{mpsc, oneshot};

pub use control::{CaseReport, CollectorReport, FilterReport, QuarantineEntry, QuarantineReport, TenantReport, Use};

use crate::config::{CollectorId, Limits, TenantId};
use crate::filter::Belongings;
use crate::ledger::Ledger;
use crate::message::Drain;
use crate::tenant::{Evidence, Standing};

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
    /// Whether it is still in the chain; its counters stay.
    pub is_seated: bool,
    /// Its component; empty if it is gone.
    pub sha256: String,
    /// What its instances may use.
    pub limits: Option<Limits>,
    /// How it stands with the tenant, on all workers together.
    pub standing: Arc<Standing>,
    /// What it remembers, and its own metrics.
    pub belongings: Belongings,
}

/// A tenant, for those who watch.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TenantInfo {
    /// Its row in the ledger.
    pub id: TenantId,
    /// Its name.
    pub name: String,
    /// Its chain.
    pub filters: Vec<String>,
    /// Where its packets go.
    pub route: Vec<String>,
}

/// A collector, for those who watch.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CollectorInfo {
    /// Its row in the ledger.
    pub id: CollectorId,
    /// Its name.
    pub name: String,
    /// Where it is.
    pub to: String,
}

/// What a gateway is at the moment.
#[derive(Debug, Default)]
pub struct Shown {
    /// The filters that are loaded.
    pub filters: Vec<FilterInfo>,
    /// The filters in chains, in the order of the ledger's seats.
    pub seats: Vec<SeatInfo>,
    /// In the order of their rules.
    pub tenants: Vec<TenantInfo>,
    /// In the order in which they came.
    pub collectors: Vec<CollectorInfo>,
    /// The actors that must be there, by what they are.
    pub actors: Vec<(String, Recipient<Drain>)>,
}

/// What the gateway is asked to do, and where the answer goes.
#[derive(Debug)]
pub enum Command {
    /// Read the configuration again. What has changed, or all that is wrong with it.
    Reload(oneshot::Sender<Result<String, String>>),
}

/// What can be seen of a running gateway, and the way to ask it for something.
#[derive(Debug)]
pub struct View {
    /// The counters.
    pub ledger: Arc<Ledger>,
    /// Whether packets are taken.
    pub ready: AtomicBool,
    /// Where evidence is kept.
    pub evidence: Option<Arc<Evidence>>,
    shown: RwLock<Arc<Shown>>,
    commands: mpsc::Sender<Command>,
}

impl View {
    /// Nothing is there yet.
    #[must_use]
    pub fn new(ledger: Arc<Ledger>, evidence: Option<Arc<Evidence>>, commands: mpsc::Sender<Command>) -> Arc<Self> {
        let (ready, shown) = (AtomicBool::new(false), RwLock::default());
        Arc::new(Self { ledger, ready, evidence, shown, commands })
    }

    /// This is what there is from now on.
    pub fn show(&self, shown: Shown) {
        *self.shown.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(shown);
    }

    /// What there is.
    #[must_use]
    pub fn shown(&self) -> Arc<Shown> {
        Arc::clone(&self.shown.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The actors that have died: their part of the work is not done any more.
    #[must_use]
    pub fn dead_actors(&self) -> Vec<String> {
        let shown = self.shown();
        let dead = shown.actors.iter().filter(|(_, actor)| !actor.connected());
        dead.map(|(name, _)| name.clone()).collect()
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

/// Serves `/metrics`, `/healthz`, `/readyz` and what controls the gateway.
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
                    .route("/filters", web::get().to(filters))
                    .route("/tenants", web::get().to(tenants))
                    .route("/collectors", web::get().to(collectors))
                    .route("/quarantine", web::get().to(quarantines))
                    .route("/quarantine/{case}", web::get().to(case))
                    .route("/release/{tenant}/{filter}", web::post().to(release))
                    .route("/reload", web::post().to(reload))
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

async fn filters(view: web::Data<View>) -> HttpResponse {
    HttpResponse::Ok().json(control::filters(&view))
}

async fn tenants(view: web::Data<View>) -> HttpResponse {
    HttpResponse::Ok().json(control::tenants(&view))
}

async fn collectors(view: web::Data<View>) -> HttpResponse {
    HttpResponse::Ok().json(control::collectors(&view))
}

async fn quarantines(view: web::Data<View>) -> HttpResponse {
    HttpResponse::Ok().json(control::quarantines(&view))
}

async fn case(view: web::Data<View>, name: web::Path<String>) -> HttpResponse {
    match control::case(&view, &name) {
        Some(case) => HttpResponse::Ok().json(case),
        None => not_found(&format!("there is no case {:?}", name.as_str())),
    }
}

async fn release(view: web::Data<View>, request: HttpRequest, names: web::Path<(String, String)>) -> HttpResponse {
    if is_from_a_page(&request) {
        return refuse_pages();
    }
    let (tenant, filter) = names.into_inner();
    let text = match control::release(&view, &tenant, &filter) {
        None => return not_found(&format!("tenant {tenant:?} has no filter {filter:?}")),
        Some(true) => format!("filter {filter} of tenant {tenant} is in service again\n"),
        Some(false) => format!("filter {filter} of tenant {tenant} was in service\n"),
    };
    HttpResponse::Ok().content_type(ContentType::plaintext()).body(text)
}

fn not_found(what: &str) -> HttpResponse {
    HttpResponse::NotFound().content_type(ContentType::plaintext()).body(format!("{what}\n"))
}

/// A page of some other site can have a browser send requests here, but it cannot keep the browser from saying so.
fn is_from_a_page(request: &HttpRequest) -> bool {
    request.headers().contains_key("Origin")
}

fn refuse_pages() -> HttpResponse {
    HttpResponse::Forbidden().content_type(ContentType::plaintext()).body("requests from web pages are not answered\n")
}

async fn reload(view: web::Data<View>, request: HttpRequest) -> HttpResponse {
    if is_from_a_page(&request) {
        return refuse_pages();
    }
    let (answer, result) = oneshot::channel();
    let plain = |mut response: actix_web::HttpResponseBuilder, text: String| {
        response.content_type(ContentType::plaintext()).body(text)
    };
    if view.commands.try_send(Command::Reload(answer)).is_err() {
        return plain(HttpResponse::ServiceUnavailable(), "the gateway is busy reloading, or stopping\n".to_owned());
    }
    match result.await {
        Ok(Ok(changed)) => plain(HttpResponse::Ok(), format!("{changed}\n")),
        Ok(Err(complaints)) => plain(HttpResponse::UnprocessableEntity(), format!("{complaints}\n")),
        Err(_) => plain(HttpResponse::ServiceUnavailable(), "the gateway is stopping\n".to_owned()),
    }
}
