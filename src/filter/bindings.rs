//! What `wit/` means in Rust. Generated, and alone here so that everything else can be read.

wasmtime::component::bindgen!({
    path: "wit",
    world: "filter",
    imports: { default: trappable },
    with: {
        "hep:filter/packets.batch": crate::filter::state::BatchHandle,
        "hep:filter/packing.packet": crate::filter::made::MadePacket,
        "hep:filter/metrics.counter": crate::filter::host::metrics::CounterHandle,
        "hep:filter/metrics.gauge": crate::filter::host::metrics::GaugeHandle,
        "hep:filter/metrics.histogram": crate::filter::host::metrics::HistogramHandle,
        "hep:filter/sending.collector": crate::filter::state::OpenCollector,
    },
});
