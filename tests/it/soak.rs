use crate::support::eventually;
use crate::support::soak::Soak;

/// Cycles before the first look: pools are filled, both configurations have been in force, each filter has trapped.
const WARM_UP_CYCLES: usize = 3;
const CYCLES: usize = 10;
/// What an allocator may keep for itself. Seconds show only what leaks by the batch or by the instance; what leaks by the
/// octet is for the half hour to show.
const GROWTH_OCTETS_MAX: u64 = 8 << 20;

/// The whole of it, for half an hour, is `cargo bench --bench soak`.
#[test]
fn a_gateway_without_rest_keeps_its_memory_its_descriptors_and_its_books() {
    let mut soak = Soak::start(200);
    (0..WARM_UP_CYCLES).for_each(|_| soak.cycle());
    let before = soak.at_rest();
    (0..CYCLES).for_each(|_| soak.cycle());
    eventually("no descriptor and no thread is left over", || {
        let after = soak.at_rest();
        after.descriptors <= before.descriptors && after.threads <= before.threads
    });
    let after = soak.at_rest();
    let grown = after.resident_octets.saturating_sub(before.resident_octets);
    assert!(grown <= GROWTH_OCTETS_MAX, "{before:?} {after:?}");
    let over = soak.end();
    let cycles = WARM_UP_CYCLES + CYCLES;
    assert_eq!((over.done.cycles, over.done.reloads, over.done.absences), (cycles, 2 * cycles, cycles));
    // All of it did happen.
    let evidence = over.ended.files("evidence", "2");
    assert!(over.traps > 0 && over.dropped > 0 && !evidence.is_empty(), "{} {}", over.traps, over.dropped);
}
