//! The integration tests, in one binary so that they link once.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may; .clippy.toml does not reach helper functions")]

/// What is done in the background and what waits: `hep_async`, its local timeouts, retries and cool-down.
mod asynchronous;
/// Listeners under attack: nothing is kept waiting, and no other peer notices.
mod attacks;
/// Captures of every kind give the packets that are in them.
mod capture;
/// Several filters in a row: the callback rule, the two lanes, ticks and sending.
mod chain;
/// Where HEP goes: versions, waiting, breaking, files.
mod collectors;
/// Every key of the configuration, at its default, at its edges and misspelt.
mod config;
/// What a running gateway says, and does when it is asked.
mod control;
/// The packets of real senders, as files.
mod corpus;
/// `hepgate doctor`: every limit holds, on the running build.
mod doctor;
/// `hepgate dump` prints what is in a capture, and nothing secret.
mod dump;
/// `hepgate dump` listens by itself and prints what comes.
mod dump_live;
/// What becomes of a filter that fails: evidence, restarts, quarantine.
mod faults;
/// What filters may do and what becomes of those that do more.
mod filter;
/// The filters that come with the gateway do what their pages say.
mod filters;
/// Packets go through a running gateway as they should.
mod flow;
/// Strategies that make packets and streams.
mod generate;
/// Guests that run into every limit there is, and what they do not get.
mod hostile;
/// What a component is made of, and which one may run.
mod inspect;
/// The examples of wit/README.md run, one for every function of the interface.
mod interface;
/// Filters in every language: made, built, tested, changed and loaded, as a newcomer would.
mod languages;
/// The laws of the codec, which the fuzz targets share.
#[path = "../laws/mod.rs"]
mod laws;
/// Where HEP comes in: garbage, limits, half packets.
mod listeners;
/// The examples of config/migration.md do what it says.
mod migration;
/// Ways in which octets go wrong.
mod mutate;
/// Tenants beside each other: nobody sees, touches or starves another one.
mod neighbours;
/// What a filter has beyond its instances: what it remembers and counts, its clocks, what it subscribes to, its last call.
mod possessions;
/// What real senders do that the specification does not say, through a running gateway.
mod quirks;
/// Another configuration while packets come.
mod reload;
/// `hepgate send` brings a capture to a collector.
mod send;
/// Real senders reach a file through the gateway, real readers open it, and real collectors take what it sends.
mod senders;
/// A gateway that has no rest keeps its memory, its descriptors and its books: minutes of `benches/soak.rs` in seconds.
mod soak;
/// What the gateway says when it starts, or does not, and when it ends.
mod startup;
/// What several of the modules here need.
mod support;
/// Whose packets are whose: rules, keys, quotas, what a tenant tells its filters.
mod tenants;
/// The house: who imports whom, who may do what.
mod tidy;
/// TLS: who is let in, certificates that change, and what is no TLS.
mod tls;
/// TLS to collectors: whom we trust, who we say that we are, and what becomes of packets.
mod tls_out;
/// Filters tried over captures, measured, compared, and made of core modules: no gateway is needed for it.
mod trial;
/// The verbs of `proto_hep` and of its trace API, as a filter has them.
mod verbs;
/// How often the gateway is woken: not at all for nothing, and once for a packet.
mod wake_ups;
/// Packets of the specification and of real senders read as independent decoders read them.
mod wire_goldens;
/// The laws of the codec hold for packets that proptest makes.
mod wire_laws;
/// The laws of the codec hold for packets of real senders gone wrong.
mod wire_mutations;
/// Every trap that senders are known to set has a test with its name.
mod wire_traps;
