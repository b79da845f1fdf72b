//! What `wit/` means in Rust. Generated, and alone here so that everything else can be read.

wasmtime::component::bindgen!({
    path: "wit",
    world: "filter",
    imports: { default: trappable },
    with: {
        "hep:filter/packets.batch": crate::filter::state::BatchHandle,
        "hep:filter/packing.packet": crate::filter::made::MadePacket,
        "hep:filter/sending.collector": crate::filter::state::OpenCollector,
    },
});
